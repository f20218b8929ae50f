"""What becomes of old history: points are thinned out, jobs forgotten, their usage kept by day."""

from typing import Any, Final

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from drakkar_server.db import tables as t
from drakkar_server.db.engine import upsert
from drakkar_server.history.extract import Row

DAY: Final = 86400.0
POINTS_KEPT: Final = 500
"""Points of a thinned series."""
AT_ONCE: Final = 50
"""Series or jobs of one transaction, so that writers wait for moments only."""


async def keep(engine: AsyncEngine, *, now: float, points_days: float, history_days: float) -> None:
    """One round over everything that is due. Raises what the database raises."""
    while await _round(engine, _thin, now - points_days * DAY):
        pass
    while await _round(engine, _forget, now - history_days * DAY):
        pass
    async with engine.begin() as connection:
        await connection.execute(delete(t.events).where(t.events.c.last < now - history_days * DAY))


async def _round(engine: AsyncEngine, step: Any, before: float) -> bool:
    async with engine.begin() as connection:
        return bool(await step(connection, before))


async def _thin(connection: AsyncConnection, before: float) -> int:
    """Replace the points of series whose jobs ended long ago by means of buckets."""
    over = func.coalesce(t.jobs.c.ended, t.jobs.c.deleted)
    due = (
        select(t.series.c.id)
        .join(t.jobs, t.jobs.c.uid == t.series.c.job_uid)
        .where(t.series.c.thinned.is_(False), over < before)
        .limit(AT_ONCE)
    )
    found = list((await connection.execute(due)).scalars())
    p = t.points
    for number in found:
        mine = p.c.series_id == number
        low, high, count = (
            await connection.execute(
                select(func.min(p.c.step), func.max(p.c.step), func.count()).where(mine)
            )
        ).one()
        if count <= POINTS_KEPT:
            continue
        width = -(-(high - low + 1) // POINTS_KEPT)
        bucket = ((p.c.step - low) // width).label("bucket")
        means = await connection.execute(
            select(
                func.max(p.c.step).label("step"),
                func.max(p.c.time).label("time"),
                func.avg(p.c.value).label("value"),
            )
            .where(mine)
            .group_by(bucket)
        )
        rows = [{"series_id": number, **row} for row in means.mappings().all()]
        await connection.execute(delete(p).where(mine))
        await connection.execute(insert(p), rows)
    if found:
        await connection.execute(
            update(t.series).where(t.series.c.id.in_(found)).values(thinned=True)
        )
    return len(found)


async def _forget(connection: AsyncConnection, before: float) -> int:
    """Delete jobs that are gone for long; what they held is added to the days."""
    due = select(t.jobs.c.uid).where(t.jobs.c.deleted < before).limit(AT_ONCE)
    found = list((await connection.execute(due)).scalars())
    if not found:
        return 0
    # What is deleted here is what is added, in one transaction: no replica counts it again.
    held = await connection.execute(
        delete(t.holdings).where(t.holdings.c.job_uid.in_(found)).returning(t.holdings)
    )
    days = by_day([dict(row) for row in held.mappings().all()])
    if days:
        await _add(connection, days)
    series = select(t.series.c.id).where(t.series.c.job_uid.in_(found))
    await connection.execute(delete(t.points).where(t.points.c.series_id.in_(series)))
    for table in (t.series, t.restarts, t.checkpoints, t.placements, t.events):
        await connection.execute(delete(table).where(table.c.job_uid.in_(found)))
    await connection.execute(delete(t.jobs).where(t.jobs.c.uid.in_(found)))
    return len(found)


async def _add(connection: AsyncConnection, days: list[Row]) -> None:
    """Add seconds to days."""
    await upsert(connection, t.usage_days, [{**day, "seconds": 0.0} for day in days])
    for day in days:
        keys = [column == day[column.name] for column in t.usage_days.primary_key]
        await connection.execute(
            update(t.usage_days)
            .where(*keys)
            .values(seconds=t.usage_days.c.seconds + day["seconds"])
        )


def by_day(holdings: list[Row]) -> list[Row]:
    """Resource-seconds per day of holdings that have ended. Pure."""
    found: dict[tuple[Any, ...], float] = {}
    for row in holdings:
        end = row["ended"]
        start = row["since"]
        while end is not None and start < end:
            day = int(start // DAY)
            stop = min(end, (day + 1) * DAY)
            key = (day, row["namespace"], row["queue"], row["user"], row["resource"])
            found[key] = found.get(key, 0.0) + (stop - start) * row["amount"]
            start = stop
    names = ("day", "namespace", "queue", "user", "resource")
    return [dict(zip(names, key, strict=True)) | {"seconds": s} for key, s in found.items()]
