"""History on both databases: the same rows whatever is written twice, and sums that add up."""

from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from drakkar_server.auth.identity import Scope
from drakkar_server.db import tables as t
from drakkar_server.db.engine import migrate
from drakkar_server.history import queries, retention
from drakkar_server.history.recorder import Recorder
from drakkar_server.metrics import Metrics

ALL = Scope(None)
HOUR = 3600.0
START = 1_700_000_000.0


def iso(seconds: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def job(
    name: str,
    version: int,
    *,
    step: int = 0,
    namespace: str = "ann",
    admitted: float | None = START,
    ended: float | None = None,
    count: int = 4,
    **status: Any,
) -> dict[str, Any]:
    conditions = [
        {"type": "Admitted", "status": "True" if admitted else "False", "reason": "x",
         "lastTransitionTime": iso(admitted or START + 2 * HOUR)}
    ]  # fmt: skip
    return {
        "metadata": {"name": name, "namespace": namespace, "uid": f"uid-{name}",
                     "resourceVersion": str(version), "creationTimestamp": iso(START)},
        "spec": {"replicas": 2, "queue": "q",
                 "accelerators": {"resource": "nvidia.com/gpu", "count": count}},
        "status": {
            "phase": "Complete" if ended else "Running",
            "conditions": conditions,
            "completionTime": iso(ended) if ended else None,
            "progress": {"step": step, "totalSteps": 100, "loss": 5.0 - step / 50},
            "placement": {"level": "rack", "domain": "r1", "nodes": ["n1", "n2"]} if admitted else None,
            **status,
        },
    }  # fmt: skip


RESTART = {
    "id": "r-1",
    "time": iso(START + 60),
    "scope": "pod",
    "reason": "PodFailed",
    "message": "m\0",
}


def recorder(engine: AsyncEngine, now: float = START) -> Recorder:
    async def nothing() -> None: ...

    return Recorder(engine, Metrics(), relist=nothing, clock=lambda: now)


async def count(engine: AsyncEngine, table: Any) -> int:
    async with engine.connect() as connection:
        found: int = (
            await connection.execute(select(func.count()).select_from(table))
        ).scalar_one()
        return found


async def test_migrations_lead_to_the_tables(engine: AsyncEngine) -> None:
    await migrate(engine)
    async with engine.connect() as connection:
        differences = await connection.run_sync(
            lambda sync: compare_metadata(
                MigrationContext.configure(sync, opts={"compare_type": True}), t.metadata
            )
        )
    assert differences == []


async def test_two_replicas_and_a_restart_write_each_thing_once(engine: AsyncEngine) -> None:
    for _ in range(2):
        writers = [recorder(engine), recorder(engine)]
        for version, step in ((1, 0), (2, 10), (3, 20)):
            for writer in writers:
                saved = [{"step": step, "path": "p", "time": iso(START)}]
                writer.take_job(job("a", version, step=step, restarts=[RESTART], checkpoints=saved))
                writer.take_event(
                    {
                        "metadata": {
                            "uid": "e1",
                            "namespace": "ann",
                            "creationTimestamp": iso(START),
                        },
                        "involvedObject": {"uid": "uid-a", "name": "a"},
                        "count": version,
                    }
                )
                await writer.flush()
    expected = {
        t.jobs: 1,
        t.restarts: 1,
        t.checkpoints: 3,
        t.placements: 1,
        t.events: 1,
        t.holdings: 1,
    }
    for table, rows in expected.items():
        assert await count(engine, table) == rows, table.name
    async with engine.connect() as connection:
        points = await queries.metric(connection, "uid-a", "loss", most=100)
        assert [(p["step"], p["value"]) for p in points] == [(0, 5.0), (10, 4.8), (20, 4.6)]
        (event,) = await queries.of_job(connection, t.events, "uid-a", "last")
        assert event["count"] == 3


async def test_an_older_state_never_overwrites_a_newer_one(engine: AsyncEngine) -> None:
    first, second = recorder(engine), recorder(engine)
    first.take_job(job("a", 9, step=50))
    await first.flush()
    second.take_job(job("a", 3, step=10))
    await second.flush()
    async with engine.connect() as connection:
        found = await queries.job(connection, "ann", "a")
        assert found is not None
        assert found["step"] == 50


async def test_usage_is_what_was_held(engine: AsyncEngine) -> None:
    writer = recorder(engine)
    writer.take_job(job("a", 1))
    writer.take_job(job("b", 1, namespace="ben", count=1))
    await writer.flush()
    # Displaced after two hours, placed again after three, complete after four.
    writer.take_job(job("a", 2, admitted=None))
    await writer.flush()
    writer.take_job(job("a", 3, admitted=START + 3 * HOUR))
    await writer.flush()
    writer.take_job(job("a", 4, admitted=START + 3 * HOUR, ended=START + 4 * HOUR))
    await writer.flush()
    writer.job_gone("uid-b")
    await writer.flush()

    async def usage(scope: Scope, start: float, end: float) -> dict[str, float]:
        async with engine.connect() as connection:
            rows = await queries.usage(
                connection, scope, start=start, end=end, by=["namespace"], now=START + 9 * HOUR
            )
        return {row["namespace"]: row["seconds"] for row in rows}

    assert (await usage(ALL, START, START + 10 * HOUR))["ann"] == pytest.approx(8 * 3 * HOUR)
    assert (await usage(ALL, START + HOUR, START + 3.5 * HOUR))["ann"] == pytest.approx(
        8 * 1.5 * HOUR
    )
    assert "ann" not in await usage(Scope(frozenset({"ben"})), START, START + 10 * HOUR)
    before = await usage(ALL, START - HOUR, START + 10 * HOUR)
    writer.job_gone("uid-a")
    await writer.flush()
    for _ in range(2):
        await retention.keep(engine, now=START + 400 * 86400, points_days=14, history_days=365)
    assert await count(engine, t.jobs) == 0
    assert await count(engine, t.points) == 0
    assert await usage(ALL, START - HOUR, START + 10 * HOUR) == pytest.approx(before)


async def test_metrics_are_downsampled_and_thinned(engine: AsyncEngine) -> None:
    writer = recorder(engine)
    for step in range(0, 4000, 2):
        writer.take_job(job("a", step + 1, step=step))
    writer.take_job(job("a", 9999, step=4000, ended=START + HOUR))
    await writer.flush()
    async with engine.connect() as connection:
        points = await queries.metric(connection, "uid-a", "loss", most=100)
    assert 90 <= len(points) <= 100
    assert points[-1]["step"] == 4000
    assert all(p["low"] <= p["value"] <= p["high"] for p in points)
    await retention.keep(engine, now=START + 20 * 86400, points_days=14, history_days=365)
    assert await count(engine, t.points) <= retention.POINTS_KEPT
    assert await count(engine, t.jobs) == 1


async def test_lists_are_limited_to_namespaces(engine: AsyncEngine) -> None:
    writer = recorder(engine)
    for index in range(5):
        writer.take_job(job(f"a-{index}", 1))
        writer.take_job(job(f"b-{index}_%", 1, namespace="ben"))
    await writer.flush()

    async def names(scope: Scope, search: str = "") -> list[str]:
        async with engine.connect() as connection:
            rows, total = await queries.jobs(
                connection, scope, namespace=None, phases=[], queue=None, user=None, search=search,
                sort="name", descending=False, limit=100, offset=0,
            )  # fmt: skip
        assert total == len(rows)
        return [row["name"] for row in rows]

    assert await names(Scope(frozenset({"ann"}))) == [f"a-{i}" for i in range(5)]
    assert await names(Scope(frozenset())) == []
    assert await names(ALL, "_%") == [f"b-{i}_%" for i in range(5)]
    assert await names(ALL, "' OR 1=1 --") == []
    async with engine.connect() as connection:
        assert await queries.namespaces(connection) == {"ann", "ben"}


async def test_what_was_deleted_unseen_is_found_to_be_gone(engine: AsyncEngine) -> None:
    writer = recorder(engine, START + HOUR)
    writer.take_job(job("a", 1))
    await writer.flush()
    await writer.settle(set)
    async with engine.connect() as connection:
        found = await queries.job(connection, "ann", "a")
        assert found is not None
        assert found["deleted"] == START + HOUR
        (held,) = await queries.of_job(connection, t.holdings, "uid-a", "since")
        assert held["ended"] == START + HOUR
