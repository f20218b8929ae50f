"""Reading history. Everything is limited to namespaces that the caller may see."""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, case, func, literal, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from drakkar_server.auth.identity import Scope
from drakkar_server.db import tables as t
from drakkar_server.history.extract import Row, series_id

ORDERS: Final = {
    "created": t.jobs.c.created, "name": t.jobs.c.name, "namespace": t.jobs.c.namespace,
    "phase": t.jobs.c.phase, "queue": t.jobs.c.queue, "user": t.jobs.c.user,
    "loss": t.jobs.c.loss, "restarts": t.jobs.c.restarts, "ended": t.jobs.c.ended,
    "accelerators": t.jobs.c.accelerators,
}  # fmt: skip
_SHOWN: Final = [column for column in t.jobs.columns if column.name != "spec"]


def _rows(found: Any) -> list[Row]:
    return [dict(row) for row in found.mappings().all()]


def within(column: ColumnElement[str], scope: Scope) -> ColumnElement[bool]:
    """The condition that a row is of a namespace that the caller sees."""
    return literal(True) if scope.namespaces is None else column.in_(sorted(scope.namespaces))


async def namespaces(connection: AsyncConnection) -> set[str]:
    """All that ever held a job."""
    # One look into the index per namespace, where DISTINCT would read all of it.
    name = t.jobs.c.namespace
    found = select(func.min(name).label("name")).cte("found", recursive=True)
    following = select(func.min(name)).where(name > found.c.name).scalar_subquery()
    found = found.union_all(select(following).where(found.c.name.is_not(None)))
    query = select(found.c.name).where(found.c.name.is_not(None))
    return set((await connection.execute(query)).scalars())


async def jobs(
    connection: AsyncConnection,
    scope: Scope,
    *,
    namespace: str | None,
    phases: Sequence[str],
    queue: str | None,
    user: str | None,
    search: str,
    sort: str,
    descending: bool,
    limit: int,
    offset: int,
) -> tuple[list[Row], int]:
    """A page of all jobs that ever were, and their number."""
    conditions = [within(t.jobs.c.namespace, scope)]
    if namespace:
        conditions.append(t.jobs.c.namespace == namespace)
    if phases:
        conditions.append(t.jobs.c.phase.in_(phases))
    if queue:
        conditions.append(t.jobs.c.queue == queue)
    if user:
        conditions.append(t.jobs.c.user == user)
    if search:
        conditions.append(func.lower(t.jobs.c.name).contains(search.lower(), autoescape=True))
    by = ORDERS[sort]
    first = by.desc().nulls_last() if descending else by.asc().nulls_last()
    if sort == "created":
        # The column is never null, and plain DESC lets the index serve it.
        first = by.desc() if descending else by.asc()
    page = select(*_SHOWN).where(*conditions).order_by(first).limit(limit).offset(offset)
    count = select(func.count()).select_from(t.jobs).where(*conditions)
    total = (await connection.execute(count)).scalar_one()
    return _rows(await connection.execute(page)), total


async def job(
    connection: AsyncConnection, namespace: str, name: str, uid: str | None = None
) -> Row | None:
    """The newest job of that name, or the one with a UID."""
    query = select(t.jobs).where(t.jobs.c.namespace == namespace, t.jobs.c.name == name)
    if uid:
        query = query.where(t.jobs.c.uid == uid)
    found = (await connection.execute(query.order_by(t.jobs.c.created.desc()).limit(1))).mappings()
    row = found.first()
    return dict(row) if row else None


async def of_job(
    connection: AsyncConnection, table: Any, uid: str, order: str, limit: int = 500
) -> list[Row]:
    """Rows of a table that belong to a job, newest first."""
    query = select(table).where(table.c.job_uid == uid).order_by(table.c[order].desc()).limit(limit)
    return _rows(await connection.execute(query))


async def metric_names(connection: AsyncConnection, uid: str) -> list[str]:
    """Metrics that a job has points of."""
    query = select(t.series.c.name).where(t.series.c.job_uid == uid).order_by(t.series.c.name)
    return list((await connection.execute(query)).scalars())


async def metric(
    connection: AsyncConnection,
    uid: str,
    name: str,
    *,
    most: int,
    first: int = 0,
    last: int | None = None,
) -> list[Row]:
    """A metric by step, in at most so many points: mean, least and largest of steps in between."""
    p = t.points
    mine = [p.c.series_id == series_id(uid, name), p.c.step >= first]
    if last is not None:
        mine.append(p.c.step <= last)
    bounds = select(func.min(p.c.step), func.max(p.c.step), func.count()).where(*mine)
    low, high, count = (await connection.execute(bounds)).one()
    if not count:
        return []
    if count <= most:
        query: Select[Any] = (
            select(p.c.step, p.c.time, p.c.value, p.c.value.label("low"), p.c.value.label("high"))
            .where(*mine)
            .order_by(p.c.step)
        )
        return _rows(await connection.execute(query))
    width = max(1, -(-(high - low + 1) // most))
    # Whole numbers: both databases divide them without a rest.
    bucket = ((p.c.step - low) // width).label("bucket")
    query = (
        select(
            func.max(p.c.step).label("step"),
            func.max(p.c.time).label("time"),
            func.avg(p.c.value).label("value"),
            func.min(p.c.value).label("low"),
            func.max(p.c.value).label("high"),
        )
        .where(*mine)
        .group_by(bucket)
        .order_by(bucket)
    )
    return _rows(await connection.execute(query))


async def usage(
    connection: AsyncConnection,
    scope: Scope,
    *,
    start: float,
    end: float,
    by: Sequence[str],
    now: float,
) -> list[Row]:
    """Resource-seconds between two times, summed by the columns given, largest first."""
    h = t.holdings
    until = case((h.c.ended.is_(None), now), else_=h.c.ended)
    overlap = case((until < end, until), else_=end) - case(
        (h.c.since > start, h.c.since), else_=start
    )
    held = select(
        *(h.c[name] for name in by), h.c.resource, (overlap * h.c.amount).label("seconds")
    ).where(
        within(h.c.namespace, scope), h.c.since < end, or_(h.c.ended.is_(None), h.c.ended > start)
    )
    d = t.usage_days
    old = select(*(d.c[name] for name in by), d.c.resource, d.c.seconds).where(
        within(d.c.namespace, scope),
        d.c.day >= int(start // 86400),
        d.c.day < int(end // 86400) + 1,
    )
    both = held.union_all(old).subquery()
    groups = [both.c[name] for name in (*by, "resource")]
    total = func.sum(both.c.seconds)
    query = (
        select(*groups, total.label("seconds"))
        .group_by(*groups)
        .having(total > 0)
        .order_by(total.desc())
        .limit(1000)
    )
    return _rows(await connection.execute(query))


async def recent_restarts(
    connection: AsyncConnection, scope: Scope, *, since: float, limit: int
) -> list[Row]:
    """The newest interruptions of all jobs that the caller sees."""
    query = (
        select(t.restarts, t.jobs.c.namespace, t.jobs.c.name)
        .join(t.jobs, t.jobs.c.uid == t.restarts.c.job_uid)
        .where(t.restarts.c.time >= since, within(t.jobs.c.namespace, scope))
        .order_by(t.restarts.c.time.desc())
        .limit(limit)
    )
    return _rows(await connection.execute(query))
