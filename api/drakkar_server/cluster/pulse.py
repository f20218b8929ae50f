"""Whether the API server answers, and since when it does not.

Watches can't tell: one that is quiet looks like one whose server is gone.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import structlog

from drakkar.kube.rest import ApiError, Rest

PERIOD_SECONDS: Final = 2.0
PATIENCE_SECONDS: Final = 5.0
"""An answer that takes longer is none."""
log = structlog.get_logger(__name__)


class Pulse:
    """``run`` asks every two seconds until cancelled; ``tell`` is called when the answer changes."""

    def __init__(
        self, rest: Rest, tell: Callable[[], None], clock: Callable[[], float] = time.time
    ) -> None:
        self._rest = rest
        self._tell = tell
        self._clock = clock
        self._answered = clock()
        self.away_since: float | None = None
        """When it last answered, in seconds since the epoch; None while it does."""

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(PERIOD_SECONDS)

    async def look(self) -> None:
        """Ask once."""
        before = self.away_since
        if await self._answers():
            self._answered = self._clock()
            self.away_since = None
        elif before is None:
            self.away_since = self._answered
        if (before is None) != (self.away_since is None):
            log.warning("the API server is away" if before is None else "the API server is back")
            self._tell()

    def silent(self) -> float:
        """Seconds since it last answered."""
        return max(0.0, self._clock() - self._answered)

    async def _answers(self) -> bool:
        with suppress(TimeoutError, asyncio.TimeoutError):
            async with asyncio.timeout(PATIENCE_SECONDS):
                try:
                    await self._rest.get("/version")
                except ApiError as error:
                    # A refusal is an answer, too much to do is not: lists would be old then.
                    return not error.transient
                return True
        return False
