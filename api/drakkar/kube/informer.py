"""A local copy of one kind of object, kept by list and watch."""

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Protocol

import structlog

from drakkar.kube.backoff import Backoff
from drakkar.kube.rest import ApiError, Object, Rest, StreamError
from drakkar.kube.store import Store, T, object_key

if TYPE_CHECKING:
    from prometheus_client import Counter

PAGE = 500
FAILURES_BEFORE_RELIST = 5
_GONE = 410
log = structlog.get_logger(__name__)


class Metrics(Protocol):
    """What informers count, each by the label resource."""

    relists: "Counter"
    watches: "Counter"


async def list_into(
    rest: Rest,
    path: str,
    store: Store[T],
    *,
    params: Mapping[str, str] | None = None,
    page: int = PAGE,
    prefix: str = "",
) -> str:
    """Bring a store up to date with a full list; returns its resourceVersion. Raises ApiError.

    ``prefix`` is that of the keys that the list covers. Pages come from one snapshot (the continue
    token names it). If that is compacted away in the middle (410), the list starts over with larger
    pages.
    """
    listed: set[str] = set()
    query = {**(params or {}), "limit": str(page)}
    while True:
        try:
            answer = await rest.get(path, query)
        except ApiError as error:
            if error.status != _GONE or "continue" not in query:
                raise
            listed.clear()
            page *= 4
            query = {**(params or {}), "limit": str(page)}
            continue
        meta = answer["metadata"]
        for raw in answer.get("items") or ():
            listed.add(object_key(raw))
            store.upsert(raw)
        if not meta.get("continue"):
            version: str = meta["resourceVersion"]
            store.retain(listed, int(version), prefix)
            return version
        query["continue"] = meta["continue"]
        # A page takes milliseconds of CPU: let others run in between.
        await asyncio.sleep(0)


class Informer(Store[T]):
    """A store that follows the API server while ``run`` runs."""

    def __init__(
        self,
        rest: Rest,
        path: str,
        project: Callable[[Object], T],
        *,
        metrics: Metrics,
        params: Mapping[str, str] | None = None,
        page: int = PAGE,
        watch_seconds: float = 120.0,
        grace: float = 10.0,
        backoff: Backoff | None = None,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        super().__init__(path.rsplit("/", 1)[-1], project)
        self.synced = asyncio.Event()
        """Set when the first list is complete."""
        self.last_activity = clock()
        """When the server last said something or a request to it failed, by ``clock``."""
        self._rest = rest
        self._path = path
        self._metrics = metrics
        self._params = dict(params or {})
        self._page = page
        self._watch_seconds = watch_seconds
        self._grace = grace
        self._backoff = backoff or Backoff()
        self._clock = clock
        self._rng = rng or random.Random()
        self._version: str | None = None

    def age(self) -> float:
        """Seconds since the last sign of life: much more than a watch lasts means it is stuck."""
        return self._clock() - self.last_activity

    async def run(self) -> None:
        """Keep the copy until cancelled."""
        while True:
            try:
                if self._version is None:
                    self._metrics.relists.labels(self.resource).inc()
                    self._version = await list_into(
                        self._rest, self._path, self, params=self._params, page=self._page
                    )
                    self._touch()
                    self.synced.set()
                await self._watch(self._version)
            except ApiError as error:
                # 410: history is gone. 401, 403, 404: the copy can't be trusted to be current.
                # Many failures in a row: perhaps it is this version that the server can't serve.
                if not error.transient or self._backoff.failures >= FAILURES_BEFORE_RELIST:
                    self._version = None
                log.info("watch ended", resource=self.resource, error=str(error))
                await self._pause(error)
            except (StreamError, KeyError, TypeError, ValueError, AttributeError) as error:
                self._version = None
                log.warning("bad answer, listing again", resource=self.resource, error=repr(error))
                await self._pause(None)

    async def _watch(self, version: str) -> None:
        """Follow changes from a version until the server ends the stream."""
        seconds = self._watch_seconds * (0.75 + 0.5 * self._rng.random())
        params = {
            **self._params,
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(max(1, int(seconds))),
        }
        self._metrics.watches.labels(self.resource).inc()
        started = self._clock()
        # The server promises to end the stream: one that is silent for longer is dead.
        stream = self._rest.watch(self._path, params, silence=seconds + self._grace)
        async with aclosing(stream):
            async for event in stream:
                self._touch()
                self._take(event)
        self._touch()
        if self._clock() - started < 1.0:
            await self._pause(None)

    def _take(self, event: Object) -> None:
        raw: Object = event["object"]
        kind = event.get("type")
        if kind == "ERROR":
            code = int(raw.get("code") or 500)
            raise ApiError(code, raw.get("reason") or "Error", raw.get("message") or "")
        if kind in ("ADDED", "MODIFIED"):
            self.upsert(raw)
        elif kind == "DELETED":
            self.delete(object_key(raw), raw["metadata"]["uid"])
        elif kind != "BOOKMARK":
            raise StreamError(f"unknown event type {kind!r}")
        self._version = raw["metadata"]["resourceVersion"]
        self._backoff.reset()

    async def _pause(self, error: ApiError | None) -> None:
        self._touch()
        delay = self._backoff.next()
        if error is not None and error.retry_after is not None:
            delay = max(delay, error.retry_after)
        await asyncio.sleep(delay)

    def _touch(self) -> None:
        self.last_activity = self._clock()
