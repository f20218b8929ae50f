"""A part goes away and comes back: what runs is not affected, the pages say so, nothing is lost."""

import sqlite3
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from drakkar_server.db import engine as db
from drakkar_server.db import tables as t
from support.fake_kube import Object
from support.postgres import Postgres
from support.server_world import ADMIN, ANN, BEN, World, world

JOBS = "trainingjobs.drakkar.dev"
LAST = 40


class Database:
    """A database that can be taken away: its URL, and how."""

    def __init__(self, url: str, take: Callable[[], None], give: Callable[[], None]) -> None:
        self.url = url
        self.take = take
        self.give = give


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", folder], check=True)
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture(params=["locked", "full", "stopped"])
def database(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Database]:
    """SQLite that another process has locked, or whose disk is full; PostgreSQL that has stopped."""
    monkeypatch.setattr(db, "SECONDS", 1)
    if request.param == "stopped":
        url, server = request.getfixturevalue("postgres_server")
        assert isinstance(server, Postgres)
        for name in reversed([table.name for table in t.metadata.sorted_tables]):
            server.run("psql", "-h", "127.0.0.1", "-p", str(server.port), "-U", "drakkar",
                       "-d", "postgres", "-c", f"DROP TABLE IF EXISTS {name}, alembic_version")  # fmt: skip
        yield Database(url, server.stop, server.start)
        return
    folder = request.getfixturevalue("small_disk") if request.param == "full" else tmp_path
    file = folder / "history.db"
    url = f"sqlite+aiosqlite:///{file}"
    if request.param == "full":
        yield Database(url, lambda: _fill(folder / "ballast"), (folder / "ballast").unlink)
        return
    other = sqlite3.connect(file, isolation_level=None)
    yield Database(url, lambda: _run(other, "BEGIN IMMEDIATE"), lambda: _run(other, "ROLLBACK"))
    other.close()


def _run(connection: sqlite3.Connection, statement: str) -> None:
    connection.execute(statement)


def _fill(file: Path) -> None:
    """Until not one byte has room."""
    with suppress(OSError), file.open("wb", buffering=0) as out:
        while True:
            out.write(b"\0" * 4096)


@pytest.fixture
async def here(tmp_path: Path, database: Database) -> AsyncIterator[World]:
    """The server under test."""
    async with world(tmp_path, database=database.url) as found:
        yield found


def running(step: int, **more: Any) -> Object:
    return {"phase": "Running", "progress": {"step": step, "totalSteps": LAST, "loss": 9.0}, **more}


RESTART = {"id": "r", "time": "2026-01-01T00:00:00Z", "scope": "pod", "reason": "PodDeleted"}


async def test_history_catches_up_with_a_database_that_was_away(
    here: World, database: Database
) -> None:
    client = here.client()
    history = here.app.state.context.history

    async def status() -> Any:
        return (await client.get("/api/v1/status")).json()["history"]

    here.job("one", status=running(0))
    await here.sees("ann/one")
    await here.until(lambda: not history.recorder.waiting, "the first state is written")
    assert (await status())["up"] is True

    database.take()
    try:
        for step in range(1, LAST + 1):
            here.job("one", status=running(step, restarts=[RESTART]))
        here.job("short", status=running(1))
        await here.sees("ann/short")
        here.kube.remove(JOBS, "ann", "short")
        await here.until(lambda: not history.up, "the database is missed")
        # What is live goes on as if nothing were, and what is not says so.
        found = (await client.get("/api/v1/jobs/ann/one")).json()
        assert found["status"]["progress"]["step"] == LAST
        assert (await client.get("/api/v1/overview")).status_code == 200
        assert (await client.get("/readyz")).status_code == 200
        assert (await status())["up"] is False
        assert (await status())["away_since"]
        page = (await _signed_in(here, ADMIN)).get("/")
        assert "The database has not answered since" in (await page).text
        past = await client.get("/api/v1/history/jobs")
        if past.status_code != 200:
            assert past.status_code == 503
            assert past.json()["type"] == "urn:drakkar:history-away"
    finally:
        database.give()
    await here.until(lambda: history.up and not history.recorder.waiting, "it has caught up")
    points = (await client.get("/api/v1/history/jobs/ann/one/metrics/loss?points=2000")).json()
    assert [point["step"] for point in points] == list(range(LAST + 1))
    past = (await client.get("/api/v1/history/jobs/ann/one")).json()
    assert [restart["id"] for restart in past["restarts"]] == ["r"]
    # A job that came and went in between is there, too.
    assert (await client.get("/api/v1/history/jobs/ann/short")).json()["job"]["deleted"]
    async with history.engine.connect() as connection:
        rows = select(func.count()).select_from(t.jobs)
        assert (await connection.execute(rows)).scalar_one() == 2
    assert "The database has not" not in (await (await _signed_in(here, ADMIN)).get("/")).text


async def _signed_in(here: World, token: str) -> httpx.AsyncClient:
    client = here.client(None)
    assert (await client.post("/login", data={"token": token})).status_code == 303
    return client


async def test_pages_without_an_api_server_show_how_it_was(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        here.job("one", status=running(3))
        await here.sees("ann/one")
        context = here.app.state.context
        await here.until(lambda: not context.history.recorder.waiting, "it is written")
        browser, ann = await _signed_in(here, ADMIN), here.client(ANN)
        for client, path in (
            (browser, "/"),
            (ann, "/api/v1/jobs"),
            (ann, "/api/v1/history/jobs"),
        ):
            assert (await client.get(path)).status_code == 200

        await here.api.stop()
        await here.until(lambda: context.live.pulse.away_since, "the API server is missed")
        for path in ("/", "/jobs", "/history", "/jobs/ann/one"):
            answer = await browser.get(path)
            assert answer.status_code == 200, path
            assert "API server has not answered since" in answer.text
        assert (await ann.get("/api/v1/jobs")).json()["items"][0]["step"] == 3
        assert (await ann.get("/api/v1/history/jobs/ann/one")).json()["job"]["step"] == 3
        assert (await ann.get("/api/v1/status")).json()["cluster"]["away_since"]
        # What only the API server can judge has to wait for it: changes, and who is new.
        assert (await ann.post("/api/v1/jobs/ann/one/suspend")).status_code == 503
        assert (await here.client(BEN).get("/api/v1/jobs")).status_code == 503
        assert (await here.client("made-up").get("/api/v1/jobs")).status_code == 503

        await here.api.start()
        await here.until(lambda: context.live.pulse.away_since is None, "it is missed no more")
        here.job("one", status=running(7))
        await here.until(lambda: context.live.jobs.items["ann/one"].step == 7, "changes arrive")
        assert "has not answered" not in (await browser.get("/")).text
        assert (await here.client("made-up").get("/api/v1/jobs")).status_code == 401
        assert (await ann.post("/api/v1/jobs/ann/one/suspend")).status_code == 200
