"""How much one user may ask: requests per second, and streams at once."""

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

_ENTRIES: Final = 20_000
BURST_SECONDS: Final = 4.0
"""A user who was quiet may ask this many seconds' worth at once."""


class RateLimit:
    """A bucket of tokens per key, refilled evenly."""

    def __init__(
        self, per_second: float, burst: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate = per_second
        self._burst = burst
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, key: str) -> float:
        """Take a token: 0 if there was one, else the seconds until there is."""
        now = self._clock()
        level, at = self._buckets.get(key, (self._burst, now))
        level = min(self._burst, level + (now - at) * self._rate)
        if level < 1.0:
            self._keep(key, level, now)
            return (1.0 - level) / self._rate
        self._keep(key, level - 1.0, now)
        return 0.0

    def _keep(self, key: str, level: float, now: float) -> None:
        self._buckets[key] = (level, now)
        self._buckets.move_to_end(key)
        if len(self._buckets) > _ENTRIES:
            self._buckets.popitem(last=False)


class StreamLimit:
    """Streams that each user has open."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._open: Counter[str] = Counter()

    def full(self, user: str) -> bool:
        """Whether the user has as many as are allowed."""
        return self._open[user] >= self.most

    @contextmanager
    def one(self, user: str) -> Iterator[None]:
        """Count one while it is open."""
        self._open[user] += 1
        try:
            yield
        finally:
            self._open[user] -= 1
            if not self._open[user]:
                del self._open[user]
