"""Writes history. The database may be away: what is new waits here, newest state per object, and is
written when it is back. Writing the same again changes nothing, so replicas may all write."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import structlog
from sqlalchemy import and_, select, update
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from drakkar.kube.backoff import Backoff
from drakkar.kube.rest import ApiError
from drakkar_server.db import tables as t
from drakkar_server.db.engine import migrate, upsert
from drakkar_server.history import extract
from drakkar_server.history.extract import JobRows, Object, Row
from drakkar_server.metrics import Metrics

MOST_POINTS: Final = 200_000
"""Points that wait for a database that is away; older ones are dropped then."""
MOST_OBJECTS: Final = 50_000
PERIOD_SECONDS: Final = 1.0
PING_SECONDS: Final = 5.0
"""The database is looked at this often while there is nothing to write."""
log = structlog.get_logger(__name__)
_JOB_CHANGES: Final = tuple(
    column.name for column in t.jobs.columns if column.name not in ("uid", "created")
)
_AWAY: Final = (SQLAlchemyError, OSError, TimeoutError)


@dataclass(slots=True)
class Batch:
    """What waits to be written."""

    jobs: "OrderedDict[str, JobRows]" = field(default_factory=OrderedDict)
    points: "OrderedDict[tuple[int, int], Row]" = field(default_factory=OrderedDict)
    events: "OrderedDict[str, Row]" = field(default_factory=OrderedDict)
    gone: "OrderedDict[str, float]" = field(default_factory=OrderedDict)

    def __len__(self) -> int:
        return len(self.jobs) + len(self.points) + len(self.events) + len(self.gone)

    def under(self, newer: "Batch") -> "Batch":
        """This with what came since on top."""
        for name in ("jobs", "points", "events", "gone"):
            getattr(self, name).update(getattr(newer, name))
        return self


class Recorder:
    """``run`` writes until cancelled; ``take_job``, ``take_event`` and ``job_gone`` only remember.

    relist: called when the database is back after a failure, to offer everything once more.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        metrics: Metrics,
        *,
        relist: Callable[[], Awaitable[None]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._engine = engine
        self._metrics = metrics
        self._relist = relist
        self._clock = clock
        self._batch = Batch()
        self._writing = 0
        self._changed = asyncio.Event()
        self._written: OrderedDict[str, tuple[Any, ...]] = OrderedDict()
        self.up = False
        """Whether the database took the last write, or answered since."""
        self.away_since: float | None = clock()
        """Since when it has not, in seconds since the epoch."""

    def take_job(self, raw: Object) -> None:
        """A job as it is now."""
        rows = extract.job_rows(raw, self._clock())
        for point in rows.points:
            self._batch.points[point["series_id"], point["step"]] = point
        self._batch.jobs[rows.job["uid"]] = rows
        self._batch.gone.pop(rows.job["uid"], None)
        self._bound()

    def take_event(self, raw: Object) -> None:
        """An Event about a job."""
        row = extract.event_row(raw)
        self._batch.events[row["id"]] = row
        self._bound()

    def job_gone(self, uid: str) -> None:
        """A job was deleted."""
        self._batch.gone[uid] = self._clock()
        self._bound()

    def _bound(self) -> None:
        while len(self._batch.points) > MOST_POINTS:
            self._batch.points.popitem(last=False)
            self._metrics.history_lost.inc()
        for each in (self._batch.jobs, self._batch.events, self._batch.gone):
            while len(each) > MOST_OBJECTS:
                each.popitem(last=False)
        self._changed.set()

    async def run(self) -> None:
        """Write what waits, about once a second."""
        backoff = Backoff(base=0.5, cap=10.0)
        migrated = failed = False
        while True:
            self._metrics.history_waiting.set(self.waiting)
            try:
                if not migrated:
                    await migrate(self._engine)
                    migrated = True
                if failed:
                    # The database may have been replaced by an empty one.
                    self._written.clear()
                    await migrate(self._engine)
                    await self._relist()
                    # A database that can be read may still take nothing, such as on a full disk.
                    await self.flush()
                    failed = False
                self._state(True)
                backoff.reset()
                if await self._something(PING_SECONDS):
                    await asyncio.sleep(PERIOD_SECONDS)
                    await self.flush()
                else:
                    await self._ping()
            except ApiError:
                await asyncio.sleep(backoff.next())
            except _AWAY as error:
                failed = True
                if self.up:
                    log.warning("the database does not take writes", error=str(error)[:500])
                self._state(False)
                await asyncio.sleep(backoff.next())

    @property
    def waiting(self) -> int:
        """Rows that are not written yet."""
        return len(self._batch) + self._writing

    async def _something(self, seconds: float) -> bool:
        """Whether there is something to write, waiting so long for it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        return self._changed.is_set()

    async def _ping(self) -> None:
        async with self._engine.connect() as connection:
            await connection.execute(select(1))

    async def flush(self) -> None:
        """Write what waits now, in one transaction. What fails waits on; raises what the database
        raised."""
        self._changed.clear()
        batch, self._batch = self._batch, Batch()
        if not len(batch):
            return
        self._writing = len(batch)
        try:
            try:
                async with self._engine.begin() as connection:
                    await self._write(connection, batch)
            except (DataError, IntegrityError):
                # One row that the database can't hold must not keep out the others for ever.
                await self._write_singly(batch)
        except BaseException:
            self._batch = batch.under(self._batch)
            self._changed.set()
            raise
        finally:
            self._writing = 0
        for uid, rows in batch.jobs.items():
            self._written[uid] = _mark(rows)
            self._written.move_to_end(uid)
        while len(self._written) > MOST_OBJECTS:
            self._written.popitem(last=False)

    async def _write_singly(self, batch: Batch) -> None:
        parts = [Batch(jobs=OrderedDict([item])) for item in batch.jobs.items()]
        parts += [Batch(points=OrderedDict([item])) for item in batch.points.items()]
        parts += [Batch(events=OrderedDict([item])) for item in batch.events.items()]
        parts.append(Batch(gone=batch.gone))
        for part in parts:
            try:
                async with self._engine.begin() as connection:
                    await self._write(connection, part)
            except (DataError, IntegrityError) as error:
                log.warning("a row of history is left out", error=str(error.orig)[:500])

    async def _write(self, connection: AsyncConnection, batch: Batch) -> None:
        found = list(batch.jobs.values())
        # Restarts, checkpoints and places rarely change: they go out when they did.
        fresh = [rows for rows in found if self._written.get(rows.job["uid"]) != _mark(rows)]
        write = self._upsert
        await write(connection, t.jobs, [r.job for r in found], _JOB_CHANGES, newer="version")
        restarts = [row for rows in fresh for row in rows.restarts]
        await write(
            connection, t.restarts, restarts, ("seconds_lost", "steps_lost", "resumed_from")
        )
        await write(connection, t.checkpoints, [c for rows in fresh for c in rows.checkpoints])
        await write(connection, t.placements, [r.placement for r in fresh if r.placement])
        await write(connection, t.series, [s for rows in fresh for s in rows.series])
        await write(connection, t.points, list(batch.points.values()), ("time", "value"))
        await write(
            connection,
            t.holdings,
            [h for rows in fresh for h in rows.holdings],
            ("ended", "amount"),
        )
        await write(connection, t.events, list(batch.events.values()), ("last", "count", "message"))
        for rows in fresh:
            await _close(connection, rows)
        for uid, at in batch.gone.items():
            await forget(connection, uid, at)

    async def _upsert(
        self,
        connection: AsyncConnection,
        table: Any,
        rows: list[Row],
        changes: tuple[str, ...] = (),
        newer: str | None = None,
    ) -> None:
        if rows:
            await upsert(connection, table, rows, update=changes, newer=newer)
            self._metrics.rows.labels(table.name).inc(len(rows))

    async def settle(self, live: Callable[[], set[str]]) -> None:
        """Mark as gone what was deleted while nobody watched; ``live`` gives the UIDs of the present."""
        async with self._engine.begin() as connection:
            open_jobs = select(t.jobs.c.uid, t.jobs.c.updated).where(t.jobs.c.deleted.is_(None))
            known = (await connection.execute(open_jobs)).all()
            # After the question, so that a job that came in between is not taken for gone.
            present = live()
            for uid, updated in known:
                if uid not in present:
                    await forget(connection, uid, updated)

    def _state(self, up: bool) -> None:
        self.up = up
        self.away_since = None if up else self.away_since or self._clock()
        self._metrics.history_up.set(up)


def _mark(rows: JobRows) -> tuple[Any, ...]:
    """What must change before restarts, checkpoints, places and holdings are written again."""
    return (
        tuple((r["id"], r["seconds_lost"]) for r in rows.restarts),
        tuple(c["step"] for c in rows.checkpoints),
        rows.placement and rows.placement["id"],
        tuple(s["name"] for s in rows.series),
        tuple((h["since"], h["amount"], h["ended"]) for h in rows.holdings),
        rows.closed,
    )


async def _close(connection: AsyncConnection, rows: JobRows) -> None:
    """End what the job no longer holds: all of it, or what it held before its present place."""
    end = (
        rows.closed
        if rows.closed is not None
        else min((h["since"] for h in rows.holdings), default=None)
    )
    if end is None:
        return
    mine = and_(t.holdings.c.job_uid == rows.job["uid"], t.holdings.c.ended.is_(None))
    before = t.holdings.c.since <= end if rows.closed is not None else t.holdings.c.since < end
    await connection.execute(update(t.holdings).where(mine, before).values(ended=end))


async def forget(connection: AsyncConnection, uid: str, at: float) -> None:
    """A job is gone since then, and holds nothing."""
    mine = t.jobs.c.uid == uid
    await connection.execute(
        update(t.jobs).where(mine, t.jobs.c.deleted.is_(None)).values(deleted=at)
    )
    held = and_(t.holdings.c.job_uid == uid, t.holdings.c.ended.is_(None))
    await connection.execute(update(t.holdings).where(held).values(ended=at))
