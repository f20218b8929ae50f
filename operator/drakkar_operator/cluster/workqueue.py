"""A queue of keys to look at: deduplicated, delayed, one worker per key at a time.

Level-triggered: a key says that something may have changed, never what. Adding a key that waits is
free; adding one that is being worked on runs it once more afterwards. A key is not run twice within
``window`` seconds (bursts of events become one run) but a key that was quiet runs at once. Failures
back off exponentially per key until a run succeeds.
"""

import asyncio
import heapq
import itertools
import random
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from drakkar.kube.backoff import Backoff

K = TypeVar("K")
SLACK = 1e-4
"""A key due within it is due: timers may fire a rounding error too early."""


class WorkQueue(Generic[K]):
    """Times are of ``clock``, in seconds; it must advance as the event loop's does."""

    def __init__(
        self,
        *,
        window: float = 0.05,
        base: float = 0.2,
        cap: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self._window = window
        self._base, self._cap = base, cap
        self._clock = clock
        self._rng = rng or random.Random()
        self._due: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._ready: list[tuple[int, int, K]] = []
        self._queued: dict[K, int] = {}
        self._running: set[K] = set()
        self._again: dict[K, float] = {}
        self._last_run: dict[K, float] = {}
        self._priority: dict[K, int] = {}
        self._backoffs: dict[K, Backoff] = {}
        self._order = itertools.count()
        self._wake = asyncio.Event()
        self._closed = False

    def __len__(self) -> int:
        """Keys that are due and wait for a worker."""
        return len(self._queued)

    def add(self, key: K, *, priority: int = 0) -> None:
        """Run the key as soon as the window allows. Higher priorities go first."""
        self._schedule(key, 0.0, priority)

    def add_after(self, key: K, delay: float) -> None:
        """Run the key in ``delay`` seconds, unless it is already due earlier."""
        self._schedule(key, max(0.0, delay), 0)

    def retry(self, key: K) -> float:
        """Run the key after its next back-off delay, which is returned."""
        backoff = self._backoffs.get(key)
        if backoff is None:
            backoff = self._backoffs[key] = Backoff(self._base, self._cap, self._rng)
        delay = backoff.next()
        self._schedule(key, delay, 0)
        return delay

    def reset(self, key: K) -> None:
        """The key was handled well: its next failure waits for the shortest delay."""
        self._backoffs.pop(key, None)

    def forget(self, key: K) -> None:
        """The object is gone: drop what is remembered of its key, and later runs."""
        self.reset(key)
        self._due.pop(key, None)
        self._last_run.pop(key, None)

    def close(self) -> None:
        """Hand out no more keys; ``get`` raises QueueClosedError."""
        self._closed = True
        self._wake.set()

    async def get(self) -> K:
        """The next key; call ``done`` after it. Raises QueueClosedError."""
        while True:
            if self._closed:
                raise QueueClosedError
            delay = self._promote()
            while self._ready:
                _, ticket, key = heapq.heappop(self._ready)
                if self._queued.get(key) != ticket:
                    continue
                del self._queued[key]
                self._priority.pop(key, None)
                self._running.add(key)
                self._last_run[key] = self._clock()
                if self._ready or self._heap:
                    self._wake.set()
                return key
            self._wake.clear()
            try:
                await asyncio.wait_for(self._wake.wait(), delay)
            except TimeoutError:
                continue

    def done(self, key: K) -> None:
        """The worker is done with the key; it may run again."""
        self._running.discard(key)
        if key in self._again:
            self._schedule_at(key, self._again.pop(key))

    async def work(self, handle: Callable[[K], Awaitable[None]]) -> None:
        """Run keys one after another until the queue is closed. ``handle`` must not raise."""
        while True:
            try:
                key = await self.get()
            except QueueClosedError:
                return
            try:
                await handle(key)
            finally:
                self.done(key)

    def _schedule(self, key: K, delay: float, priority: int) -> None:
        now = self._clock()
        at = max(now + delay, self._last_run.get(key, float("-inf")) + self._window)
        if priority > self._priority.get(key, 0):
            self._priority[key] = priority
            if key in self._queued:
                self._push_ready(key)
        if key in self._running:
            self._again[key] = min(at, self._again.get(key, at))
        else:
            self._schedule_at(key, at)

    def _schedule_at(self, key: K, at: float) -> None:
        if key in self._queued:
            return
        if self._due.get(key, float("inf")) <= at:
            return
        self._due[key] = at
        heapq.heappush(self._heap, (at, next(self._order), key))
        self._wake.set()

    def _promote(self) -> float | None:
        """Move keys whose time has come to the ready ones; returns seconds until the next."""
        now = self._clock()
        while self._heap:
            at, _, key = self._heap[0]
            if self._due.get(key) != at:
                heapq.heappop(self._heap)
                continue
            if at > now + SLACK:
                return at - now
            heapq.heappop(self._heap)
            del self._due[key]
            self._push_ready(key)
        if len(self._last_run) > 4 * (len(self._due) + len(self._running)) + 1024:
            self._last_run = {k: t for k, t in self._last_run.items() if now - t < self._window}
        return None

    def _push_ready(self, key: K) -> None:
        ticket = next(self._order)
        self._queued[key] = ticket
        heapq.heappush(self._ready, (-self._priority.get(key, 0), ticket, key))


class QueueClosedError(Exception):
    """The queue hands out no more keys."""
