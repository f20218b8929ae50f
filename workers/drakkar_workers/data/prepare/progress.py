"""How far it is, for people: a line that is rewritten on a terminal, now and then one elsewhere."""

import sys
import time
from typing import TextIO

TERMINAL_SECONDS = 0.2
LOG_SECONDS = 10.0


class Progress:
    """Of one stage."""

    def __init__(self, stage: str, total: int, out: TextIO | None = None) -> None:
        self._stage, self._total = stage, total
        self._out = out or sys.stderr
        self._terminal = self._out.isatty()
        self._started = time.monotonic()
        self._told = 0.0
        self._done = 0
        self._bytes = 0

    def add(self, size: int, detail: str = "") -> None:
        """One more part is done, of ``size`` bytes."""
        self._done += 1
        self._bytes += size
        now = time.monotonic()
        every = TERMINAL_SECONDS if self._terminal else LOG_SECONDS
        if now - self._told >= every or self._done == self._total:
            self._told = now
            rate = self._bytes / 1e6 / max(now - self._started, 1e-9)
            last = self._done == self._total
            line = f"{self._stage}: {self._done}/{self._total}, {rate:.1f} MB/s{detail}"
            begin, end = ("\r\x1b[K", "\n" if last else "") if self._terminal else ("", "\n")
            print(f"{begin}{line}", end=end, file=self._out, flush=True)
