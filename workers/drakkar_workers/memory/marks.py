"""Where in its step a rank is: a few numbers in memory that its agent reads, at no cost to the step.

A rank that hangs can't speak, but what it did last stands here. Ranks of a gang pass the same stages
in the same order: whoever has passed the fewest is the one that the others wait for. The time that a
rank spends in the stages that wait for nobody tells a slow one.
"""

import mmap
import os
import struct
import time
from dataclasses import dataclass

STAGES = ("start", "data", "forward", "backward", "all-reduce", "optimizer", "save", "evaluate")
ALONE = ("data", "forward")
"""Stages in which a rank waits for no other."""
_AT = 1024
_HEAD = struct.Struct("<QId")
_SECONDS = struct.Struct(f"<{len(STAGES)}d")
_SIZE = 16 + 8 + _SECONDS.size


@dataclass(frozen=True, slots=True)
class Mark:
    """What a rank has left."""

    passed: int
    """Stages since its start."""
    stage: str
    since: float
    """When it came there, monotonic seconds."""
    seconds: dict[str, float]
    """In each stage so far."""


class Marks:
    """The writing side."""

    def __init__(self, descriptor: int) -> None:
        """``descriptor``: of the rank's memory file (``arena``)."""
        self._map = mmap.mmap(descriptor, mmap.PAGESIZE)
        self._passed = 0
        self._stage = 0
        self._since = time.monotonic()
        self._seconds = [0.0] * len(STAGES)
        self._write()

    def enter(self, stage: str) -> None:
        """The rank is in this stage from now on."""
        now = time.monotonic()
        self._seconds[self._stage] += now - self._since
        self._passed += 1
        self._stage, self._since = STAGES.index(stage), now
        self._write()

    def _write(self) -> None:
        _HEAD.pack_into(self._map, _AT, self._passed, self._stage, self._since)
        _SECONDS.pack_into(self._map, _AT + 24, *self._seconds)


class NoMarks(Marks):
    """For a rank without an agent."""

    def __init__(self) -> None:
        pass

    def enter(self, stage: str) -> None:
        """Nobody would read it."""


def read(descriptor: int) -> Mark | None:
    """A rank's mark; None if it has not left any."""
    data = os.pread(descriptor, _SIZE, _AT)
    if len(data) < _SIZE:
        return None
    passed, stage, since = _HEAD.unpack_from(data)
    if since <= 0 or stage >= len(STAGES):
        return None
    return Mark(
        passed, STAGES[stage], since, dict(zip(STAGES, _SECONDS.unpack_from(data, 24), strict=True))
    )


def clear(descriptor: int) -> None:
    """Before another process has the file."""
    os.pwrite(descriptor, bytes(_SIZE), _AT)
