"""Reports of coordinators: believed when valid, bounded, and passed on in a bearable rhythm."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web

from drakkar.protocol import Report
from drakkar_operator.cluster.reports import Reports, urgent
from drakkar_operator.metrics import Metrics

JOB, POD = "job-uid", "pod-uid"


def report(version: int = 1, **changes: Any) -> dict[str, Any]:
    return {
        "uid": JOB,
        "podUid": POD,
        "version": version,
        "epoch": 1,
        "state": "running",
        "progress": {"step": version, "totalSteps": 100},
        "time": datetime.now(UTC).isoformat(),
        **changes,
    }


class Agent:
    """A coordinator that says what the test wants."""

    def __init__(self) -> None:
        self.answer: Any = report()
        self.polls: list[int] = []
        self.port = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        after = int(request.query["after"])
        self.polls.append(after)
        if isinstance(self.answer, web.StreamResponse):
            raise web.HTTPFound("/elsewhere")
        if isinstance(self.answer, bytes):
            return web.Response(body=self.answer)
        end = asyncio.get_running_loop().time() + float(request.query["wait"])
        while self.answer["version"] == after and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.01)
        return web.json_response(self.answer)


@pytest.fixture
async def agent() -> AsyncIterator[Agent]:
    agent = Agent()
    app = web.Application()
    app.router.add_get("/v1/report", agent.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    agent.port = runner.addresses[0][1]
    yield agent
    await runner.cleanup()


@pytest.fixture
async def reports(agent: Agent) -> AsyncIterator[tuple[Reports, list[tuple[str, float]]]]:
    news: list[tuple[str, float]] = []
    watcher = Reports(
        lambda key, delay: news.append((key, delay)), Metrics(), port=agent.port, wait=0.3
    )
    yield watcher, news
    await watcher.close()


Watched = tuple[Reports, list[tuple[str, float]]]


async def until(condition: Any, seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


async def test_the_newest_report_is_kept_and_asked_for_by_version(agent: Agent, reports: Watched):
    watcher, news = reports
    watcher.follow("ns/a", JOB, POD, "127.0.0.1")
    await until(lambda: watcher.newest(JOB) is not None)
    assert news == [("ns/a", 0.0)]
    agent.answer = report(7, state="complete")
    await until(lambda: watcher.newest(JOB).version == 7)
    assert news[-1] == ("ns/a", 0.0)
    assert agent.polls[0] == -1
    await until(lambda: agent.polls[-1] == 7)
    assert watcher.age(JOB) < 5


async def test_mere_progress_is_passed_on_seldom(agent: Agent, reports: Watched):
    watcher, news = reports
    watcher.follow("ns/a", JOB, POD, "127.0.0.1")
    for version in range(2, 10):
        agent.answer = report(version)
        await asyncio.sleep(0.15)
    await until(lambda: watcher.newest(JOB).version == 9)
    assert len(news) == 2, "the first report, and one reconcile later on for all the others"
    assert news[1][1] == pytest.approx(2.0, abs=1.0)


@pytest.mark.parametrize(
    "answer",
    [
        b"not json",
        b"[]",
        b"{}",
        b'{"uid": 3}',
        b"x" * (2 << 20),
        b"\xff\xfe\x00",
        b"[" * 100_000,
        web.StreamResponse(),
    ],
    ids=["text", "list", "empty", "types", "huge", "bytes", "nested", "redirect"],
)
async def test_nonsense_is_ignored(agent: Agent, reports: Watched, answer: Any):
    watcher, news = reports
    agent.answer = answer
    watcher.follow("ns/a", JOB, POD, "127.0.0.1")
    await until(lambda: agent.polls)
    await asyncio.sleep(0.3)
    assert (watcher.newest(JOB), news) == (None, [])


@pytest.mark.parametrize("wrong", [{"uid": "other"}, {"podUid": "other"}])
async def test_what_it_says_of_others_is_not_believed(
    agent: Agent, reports: Watched, wrong: dict[str, str]
):
    watcher, news = reports
    agent.answer = report(**wrong)
    watcher.follow("ns/a", JOB, POD, "127.0.0.1")
    await until(lambda: agent.polls)
    await asyncio.sleep(0.3)
    assert (watcher.newest(JOB), news) == (None, [])


async def test_a_stopped_poll_asks_no_more_and_a_new_pod_is_asked_anew(
    agent: Agent, reports: Watched
):
    watcher, _ = reports
    watcher.follow("ns/a", JOB, POD, "127.0.0.1")
    watcher.follow("ns/a", JOB, POD, "127.0.0.1")
    await until(lambda: watcher.newest(JOB) is not None)
    watcher.stop(JOB)
    await asyncio.sleep(0.1)
    asked = len(agent.polls)
    await asyncio.sleep(0.5)
    assert len(agent.polls) == asked
    assert watcher.newest(JOB) is not None
    agent.answer = report(1, podUid="second")
    watcher.follow("ns/a", JOB, "second", "127.0.0.1")
    await until(lambda: watcher.newest(JOB).pod_uid == "second")
    assert agent.polls[asked] == -1
    watcher.forget(JOB)
    assert watcher.newest(JOB) is None


@pytest.mark.parametrize(
    ("changes", "is_urgent"),
    [
        ({}, False),
        ({"version": 5, "progress": {"step": 50, "totalSteps": 100}}, False),
        ({"state": "recovering"}, True),
        ({"epoch": 2}, True),
        ({"failure": {"reason": "X", "message": "y", "retryable": False}}, True),
        ({"checkpoints": [{"step": 5, "path": "a", "time": "2026-01-01T00:00:00Z"}]}, True),
        ({"members": [{"replica": 0, "pod": "a-0", "node": "n", "state": "running"}]}, True),
        ({"podUid": "another"}, True),
    ],
)
def test_urgency(changes: dict[str, Any], is_urgent: bool):
    old = Report.model_validate(report())
    assert urgent(old, Report.model_validate(report(**changes))) is is_urgent
    assert urgent(None, old)
