"""History as one part of the server: writing it from the cluster, and reading it while it is there."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from drakkar.kube.informer import PAGE, Informer
from drakkar.kube.rest import Object, Rest
from drakkar_server.cluster.state import API, Live
from drakkar_server.cluster.views import JobView
from drakkar_server.db.engine import open_engine
from drakkar_server.history import retention
from drakkar_server.history.recorder import Recorder
from drakkar_server.metrics import Metrics
from drakkar_server.problems import ProblemError
from drakkar_server.settings import Settings

KEEP_SECONDS: Final = 3600.0
CLOSE_SECONDS: Final = 3.0
log = structlog.get_logger(__name__)


class History:
    """The recorder, and connections to read with."""

    def __init__(self, settings: Settings, rest: Rest, metrics: Metrics) -> None:
        self._settings = settings
        self._rest = rest
        self.engine = open_engine(settings.database)
        self.recorder = Recorder(self.engine, metrics, relist=self._relist)
        self._events: Informer[int] = Informer(
            rest,
            "/api/v1/events",
            self._event,
            metrics=metrics,
            params={"fieldSelector": "involvedObject.kind=TrainingJob"},
            watch_seconds=settings.watch_seconds,
        )

    @property
    def up(self) -> bool:
        """Whether the database takes writes."""
        return self.recorder.up

    @property
    def away_since(self) -> float | None:
        """Since when it does not, in seconds since the epoch."""
        return self.recorder.away_since

    async def run(self, live: Live) -> None:
        """Write history until cancelled."""

        def gone(old: JobView | None, new: JobView | None) -> None:
            if old is not None and new is None:
                self.recorder.job_gone(old.uid)

        live.jobs.subscribe(gone)
        async with asyncio.TaskGroup() as group:
            group.create_task(self.recorder.run())
            group.create_task(self._events.run())
            group.create_task(self._keep(live))

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection to read with. Raises ProblemError 503 if the database is away."""
        try:
            async with self.engine.connect() as connection:
                yield connection
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            log.info("history can't be read", error=str(error)[:500])
            raise ProblemError(
                503,
                "History is away for the moment: the database does not answer. What runs in the "
                "cluster is not affected, and history catches up.",
                kind="urn:drakkar:history-away",
                headers={"Retry-After": "5"},
            ) from None

    async def close(self) -> None:
        """Write what still waits, if the database takes it, and close all connections."""
        with suppress(SQLAlchemyError, OSError, TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                if self.up:
                    await self.recorder.flush()
        await self.engine.dispose()

    def _event(self, raw: Object) -> int:
        self.recorder.take_event(raw)
        return int(raw["metadata"]["resourceVersion"])

    async def _relist(self) -> None:
        """Offer all jobs once more."""
        query = {"limit": str(PAGE)}
        while True:
            answer = await self._rest.get(f"{API}/trainingjobs", query)
            for raw in answer.get("items") or ():
                self.recorder.take_job(raw)
            token = answer["metadata"].get("continue")
            if not token:
                return
            query["continue"] = token

    async def _keep(self, live: Live) -> None:
        await live.jobs.synced.wait()
        while True:
            await asyncio.sleep(10.0)
            if not self.up:
                continue
            try:
                await self.recorder.settle(lambda: {v.uid for v in live.jobs.items.values()})
                await retention.keep(
                    self.engine,
                    now=time.time(),
                    points_days=self._settings.points_days,
                    history_days=self._settings.history_days,
                )
            except (SQLAlchemyError, OSError, TimeoutError) as error:
                log.warning("retention put off", error=str(error)[:500])
                continue
            await asyncio.sleep(KEEP_SECONDS)
