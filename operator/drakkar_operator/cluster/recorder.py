"""Kubernetes events of transitions (events.k8s.io/v1), written behind the reconciler's back.

Recording never waits: events go into a bounded buffer. The same event again becomes a series of the
first one, so that a loop cannot flood the cluster.
"""

import asyncio
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog

from drakkar.constants import FIELD_MANAGER
from drakkar.kube.rest import ApiError, Rest
from drakkar_operator.cluster.limits import TokenBucket, retrying
from drakkar_operator.metrics import Metrics

BUFFER = 2000
NOTE_LIMIT = 1024
SERIES_SECONDS = 360.0
SERIES_PATCH_SECONDS = 10.0
_REMEMBERED = 4096
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Reference:
    """The object that an event is about."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str

    def wire(self) -> dict[str, str]:
        """As an ObjectReference."""
        return {
            "apiVersion": self.api_version,
            "kind": self.kind,
            "namespace": self.namespace,
            "name": self.name,
            "uid": self.uid,
        }


@dataclass(slots=True)
class _Series:
    name: str
    count: int
    last: float
    patched: float


class Recorder:
    """``record`` from anywhere; ``run`` writes until cancelled, then ``flush`` writes what is left."""

    def __init__(
        self,
        rest: Rest,
        metrics: Metrics,
        *,
        instance: str,
        rate: float = 50.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rest = rest
        self._metrics = metrics
        self._instance = instance
        self._clock = clock
        self._bucket = TokenBucket(rate, rate * 4, clock=clock)
        self._queue: asyncio.Queue[tuple[Reference, str, str, str, str]] = asyncio.Queue(BUFFER)
        self._series: OrderedDict[tuple[str, str, str], _Series] = OrderedDict()

    def record(self, about: Reference, type_: str, reason: str, note: str) -> None:
        """Note a transition; ``type_`` is Normal or Warning, ``reason`` CamelCase."""
        try:
            self._queue.put_nowait((about, type_, reason, note[:NOTE_LIMIT], _now()))
        except asyncio.QueueFull:
            self._metrics.events_dropped.inc()

    async def run(self) -> None:
        """Write events until cancelled."""
        while True:
            await self._write(*await self._queue.get())

    async def flush(self, seconds: float = 2.0) -> None:
        """Write what is buffered, for so long at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not self._queue.empty():
                    await self._write(*self._queue.get_nowait())

    async def _write(
        self, about: Reference, type_: str, reason: str, note: str, time_: str
    ) -> None:
        now = self._clock()
        key = (about.uid, reason, note)
        series = self._series.get(key)
        collection = f"/apis/events.k8s.io/v1/namespaces/{about.namespace or 'default'}/events"
        try:
            if series is not None and now - series.last < SERIES_SECONDS:
                series.count += 1
                series.last = now
                if now - series.patched >= SERIES_PATCH_SECONDS:
                    series.patched = now
                    await self._send_series(f"{collection}/{series.name}", series.count, time_)
                return
            name = f"{about.name}.{uuid.uuid4().hex[:16]}"
            self._remember(key, _Series(name, 1, now, now))
            await self._send(collection, self._body(name, about, type_, reason, note, time_))
        except ApiError as error:
            # Events are a courtesy: what can't be written is not worth holding up the next.
            self._series.pop(key, None)
            log.info("event not written", reason=reason, about=about.name, error=str(error))

    def _body(
        self, name: str, about: Reference, type_: str, reason: str, note: str, time_: str
    ) -> dict[str, Any]:
        return {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": about.namespace or "default"},
            "eventTime": time_,
            "reportingController": f"drakkar.dev/{FIELD_MANAGER.removeprefix('drakkar-')}",
            "reportingInstance": self._instance[:128],
            "action": reason,
            "reason": reason,
            "regarding": about.wire(),
            "note": note,
            "type": type_,
        }

    def _remember(self, key: tuple[str, str, str], series: _Series) -> None:
        self._series[key] = series
        self._series.move_to_end(key)
        if len(self._series) > _REMEMBERED:
            self._series.popitem(last=False)

    async def _send(self, path: str, body: Mapping[str, Any]) -> None:
        await self._bucket.take()

        async def create() -> None:
            try:
                await self._rest.post(path, dict(body))
            except ApiError as error:
                if error.status != 409:
                    raise

        await retrying(create, attempts=4)

    async def _send_series(self, path: str, count: int, time_: str) -> None:
        await self._bucket.take()
        body = {"series": {"count": count, "lastObservedTime": time_}}
        await retrying(lambda: self._rest.patch(path, body), attempts=2)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
