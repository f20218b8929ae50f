"""Linux calls that Python's standard library does not offer."""

import ctypes
import os

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36

# Loaded once: a forked child must not need the dynamic loader's locks.
_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent(parent: int, signal: int) -> None:
    """Have the kernel send ``signal`` to this process when its parent ends (prctl(2)).

    ``parent`` is the parent's pid: if it is gone already, this process ends at once.
    """
    _prctl(_PR_SET_PDEATHSIG, signal)
    if os.getppid() != parent:
        os._exit(1)


def set_name(name: str) -> None:
    """Name this process as ``top`` and ``ps`` show it; the kernel keeps 15 bytes."""
    buffer = ctypes.create_string_buffer(name.encode()[:15])
    _prctl(_PR_SET_NAME, ctypes.addressof(buffer))


def adopt_orphans() -> None:
    """Become the parent of all descendants whose own parent ends, as process 1 is."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")
