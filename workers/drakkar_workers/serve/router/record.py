"""What the router counts: for the operator, who scales and judges by it, and for Prometheus."""

import asyncio
import time
import uuid
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from drakkar.routing import (
    LATENCY_BOUNDS,
    SAMPLES,
    TPOT_BOUNDS,
    ErrorClass,
    Histogram,
    RevisionStats,
    Sample,
)

REVISIONS = 64
"""That are remembered; those that got a request longest ago are forgotten."""


class Load:
    """How many requests there are, averaged over each second's time."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """``clock``: seconds since the epoch."""
        self._clock = clock
        self._level = 0
        self._at = clock()
        self._area = 0.0
        self._arrived = 0
        self._samples: deque[Sample] = deque(maxlen=SAMPLES)

    @property
    def level(self) -> int:
        """Requests at this moment."""
        return self._level

    def add(self, change: int) -> None:
        """Requests have come (above 0) or gone."""
        self._advance()
        self._level += change
        self._arrived += max(0, change)

    def samples(self) -> list[Sample]:
        """The last whole seconds, oldest first, without gaps."""
        self._advance()
        return list(self._samples)

    def _advance(self) -> None:
        # A clock that was set back stands still for a while.
        now = max(self._at, self._clock())
        if now - self._at > SAMPLES + 1:
            # Nobody asked and nothing happened for long: what is older is not told anyway.
            self._at, self._area = float(int(now) - SAMPLES), 0.0
        while int(self._at) < int(now):
            end = float(int(self._at) + 1)
            self._area += self._level * (end - self._at)
            sample = Sample(second=int(self._at), concurrency=self._area, arrived=self._arrived)
            self._samples.append(sample)
            self._at, self._area, self._arrived = end, 0.0, 0
        self._area += self._level * (now - self._at)
        self._at = now


class Buckets:
    """A histogram that grows."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value of 0 or more."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += max(0.0, value)

    def told(self) -> Histogram:
        """As it is at this moment."""
        return Histogram(counts=list(self.counts), sum=self.sum)


@dataclass(slots=True)
class RevisionRecord:
    """What became of the attempts at a revision's replicas."""

    in_flight: int = 0
    requests: int = 0
    cancelled: int = 0
    errors: Counter[ErrorClass] = field(default_factory=Counter)
    ttft: Buckets = field(default_factory=lambda: Buckets(LATENCY_BOUNDS))
    tpot: Buckets = field(default_factory=lambda: Buckets(TPOT_BOUNDS))
    latency: Buckets = field(default_factory=lambda: Buckets(LATENCY_BOUNDS))
    prompt_tokens: int = 0
    generation_tokens: int = 0

    def told(self, name: str) -> RevisionStats:
        """As it is at this moment."""
        return RevisionStats(
            name=name,
            in_flight=self.in_flight,
            requests=self.requests,
            errors=dict(self.errors),
            cancelled=self.cancelled,
            ttft=self.ttft.told(),
            tpot=self.tpot.told(),
            latency=self.latency.told(),
            prompt_tokens=self.prompt_tokens,
            generation_tokens=self.generation_tokens,
        )


class Record:
    """All counts of one router since it started."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.instance = uuid.uuid4().hex
        self.version = 0
        self.load = Load(clock)
        self.refused: Counter[str] = Counter()
        self.retries = 0
        self._revisions: dict[str, RevisionRecord] = {}
        self._news = asyncio.Event()

    @contextmanager
    def present(self) -> Iterator[None]:
        """A request is here, held or at a replica."""
        self.load.add(1)
        try:
            yield
        finally:
            self.load.add(-1)

    def revision(self, name: str) -> RevisionRecord:
        """The record of a revision."""
        found = self._revisions.pop(name, None) or RevisionRecord()
        self._revisions[name] = found
        if len(self._revisions) > REVISIONS:
            idle = next((key for key, one in self._revisions.items() if not one.in_flight), None)
            if idle is not None and idle != name:
                del self._revisions[idle]
        return found

    def revisions(self) -> list[RevisionStats]:
        """Of all revisions."""
        return [record.told(name) for name, record in self._revisions.items()][-REVISIONS:]

    def urgent(self) -> None:
        """Something that the operator must hear at once."""
        self.version += 1
        self.supersede()

    def supersede(self) -> None:
        """End the waits of now."""
        self._news.set()
        self._news = asyncio.Event()

    async def news(self, after: int, seconds: float) -> None:
        """Wait until something urgent has come since version ``after``, at most so long."""
        if self.version != after:
            return
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            pass
