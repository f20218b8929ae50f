"""Where ranks were in their code when they were asked: what Python's faulthandler writes, and its reading.

A trainer writes to a file in memory that its agent holds, as the agent is there when the trainer is
not any more. A rank that the kernel holds can't write: its process state says so.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path

STACKS_ENV = "DRAKKAR_STACKS_FD"
READ_LIMIT_BYTES = 1 << 16
FRAMES = 6
"""Innermost frames of the main thread that evidence shows."""
FRAME_LIMIT = 160
_FRAME = re.compile(r'^  File "(?P<file>.*)", line (?P<line>\d+) in (?P<name>.*)$')


class Stacks:
    """The files of an agent's ranks."""

    def __init__(self, ranks: Iterable[int]) -> None:
        """Raises OSError."""
        self.descriptors = {rank: os.memfd_create(f"drakkar-stacks-{rank}") for rank in ranks}

    def close(self) -> None:
        """Free the memory."""
        for descriptor in self.descriptors.values():
            os.close(descriptor)
        self.descriptors = {}

    def environment(self, rank: int) -> dict[str, str]:
        """The variable by which a trainer finds its file."""
        return {STACKS_ENV: str(self.descriptors[rank])}

    def clear(self) -> None:
        """Before other processes have them."""
        for descriptor in self.descriptors.values():
            os.ftruncate(descriptor, 0)
            os.lseek(descriptor, 0, os.SEEK_SET)

    def read(self, rank: int) -> str:
        """All that the rank has written; empty if it did not."""
        data = os.pread(self.descriptors[rank], READ_LIMIT_BYTES, 0)
        return data.decode(errors="replace")


def frames(text: str) -> list[str]:
    """The innermost frames of the main thread, innermost first: 'backward (engine.py:825)'.

    The main thread is the last that faulthandler writes.
    """
    found: list[str] = []
    for line in text.splitlines():
        if line.startswith(("Thread 0x", "Current thread 0x")):
            found = []
        elif match := _FRAME.match(line):
            place = f"{Path(match['file']).name}:{match['line']}"
            found.append(f"{match['name']} ({place})"[:FRAME_LIMIT])
    return found[:FRAMES]
