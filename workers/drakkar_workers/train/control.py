"""Requests by signal, and how all ranks come to act on them at the same step.

SIGUSR1 asks for a checkpoint, SIGTERM to checkpoint and leave. A handler only sets a flag; the flags
of all ranks travel with the loss, in the one all-reduce of every step.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass(slots=True)
class Requests:
    """What this process has been asked for since the last step."""

    save: bool = False
    leave: bool = False

    def take(self) -> tuple[float, float]:
        """The flags as numbers to be summed over ranks: (save, leave). A save is asked for once."""
        word = (float(self.save), float(self.leave))
        self.save = False
        return word


@contextmanager
def listening() -> Iterator[Requests]:
    """Turn signals into requests inside the block; only in the main thread."""
    requests = Requests()

    def save(_number: int, _frame: FrameType | None) -> None:
        requests.save = True

    def leave(_number: int, _frame: FrameType | None) -> None:
        requests.leave = True

    before = {
        signal.SIGUSR1: signal.signal(signal.SIGUSR1, save),
        signal.SIGTERM: signal.signal(signal.SIGTERM, leave),
    }
    try:
        yield requests
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def wait_quietly() -> None:
    """Before the gang has met: a request to save means nothing yet, one to leave ends the process.

    Python's own handlers would not run while the main thread waits for its peers in C++.
    """
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
