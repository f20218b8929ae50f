"""How fast and how often requests are made."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from drakkar.kube.backoff import Backoff
from drakkar.kube.rest import ApiError

R = TypeVar("R")


class TokenBucket:
    """At most ``rate`` per second on average, ``burst`` at once."""

    def __init__(
        self, rate: float, burst: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._tokens = burst
        self._updated = clock()

    async def take(self) -> None:
        """Wait for a turn; turns are given in the order they were asked for."""
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._updated) * self._rate)
        self._updated = now
        self._tokens -= 1.0
        if self._tokens < 0:
            await asyncio.sleep(-self._tokens / self._rate)


async def retrying(
    call: Callable[[], Awaitable[R]], *, attempts: int = 5, backoff: Backoff | None = None
) -> R:
    """Result of ``call``, tried again after transient errors; the last error is raised.

    The call must be safe to repeat: its first try may have worked although the answer was lost. A
    Retry-After of the server is honoured.
    """
    delays = backoff or Backoff(base=0.1, cap=5.0)
    for left in range(attempts - 1, -1, -1):
        try:
            return await call()
        except ApiError as error:
            if not error.transient or not left:
                raise
            await asyncio.sleep(max(delays.next(), min(error.retry_after or 0.0, 30.0)))
    raise AssertionError("attempts must be positive")
