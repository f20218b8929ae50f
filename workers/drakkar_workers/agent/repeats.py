"""The same exception at the same step, again and again: the code's fault, which no restart mends."""

import re

from drakkar_workers.agent.causes import CORRUPT, PEER_LOST, SUPERSEDED, RankExit, follows

_OTHERS = re.compile(
    r"CUDA|NCCL|cuDNN|cuBLAS|ECC|Xid|HIP error|out of memory|No space left|Input/output error"
    r"|Stale file handle|Cannot allocate",
    re.IGNORECASE,
)
"""Errors of devices and storage, which another node may not have."""
_NOT_CODE = {CORRUPT, PEER_LOST, SUPERSEDED, "SpawnFailed", "ForkServerLost", "StorageError"} | {
    "CheckpointFailed",
    "CheckpointDamaged",
}
_NUMBERS = re.compile(r"0x[0-9a-f]+|\d+(\.\d+)?")


class Repeats:
    """Counts failures of one kind in a row."""

    def __init__(self) -> None:
        self._last: tuple[str, str, int] | None = None
        self.count = 0

    def note(self, end: RankExit, step: int) -> int:
        """A rank failed when ``step`` was the highest that was ever done; how often in a row.

        0 if the exception need not be the code's.
        """
        reason, message = end.exit.reason, end.exit.message or ""
        code = reason is not None and reason not in _NOT_CODE and end.exit.signal is None
        if not code or follows(end.exit) or _OTHERS.search(f"{reason} {message}"):
            self._last, self.count = None, 0
            return 0
        # Addresses and counters in a message differ from try to try.
        kind = (reason or "", _NUMBERS.sub("#", message), step)
        self.count = self.count + 1 if kind == self._last else 1
        self._last = kind
        return self.count
