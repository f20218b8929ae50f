"""Plans and snapshots over HTTP: what is answered, what is refused, and by whom."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from drakkar_operator.questions import FORWARDED, Forward, debug_application, plan_application
from drakkar_operator.scheduling.replay import replay
from support.fake_kube import JOBS, QUEUES, Fault, training_job
from support.operator_world import Process, World

Answer = tuple[int, dict[str, Any]]
GPUS = {"resource": "nvidia.com/gpu", "count": 8}


class Desk:
    """A leader in a world of four nodes, and its two HTTP applications."""

    def __init__(self) -> None:
        self.world = World()
        # Time is real here: watches must not be silent for long, or they end late.
        self.world.kube.bookmark_seconds = 0.2
        self.process = Process(self.world.kube)
        self.clients: list[TestClient[Any, Any]] = []

    def forward(self, port: int = 0) -> Forward:
        core = self.process.core
        return Forward(core.leader, core.caches, namespace="drakkar-system", port=port)

    async def client(self, app: web.Application) -> TestClient[Any, Any]:
        client: TestClient[Any, Any] = TestClient(TestServer(app))
        await client.start_server()
        self.clients.append(client)
        return client

    async def open(self) -> None:
        core = self.process.core
        self.planning = await self.client(plan_application(core.planner, self.forward()))
        self.debugging = await self.client(debug_application(core.scheduler, self.forward()))
        await self.until(lambda: core.leader.leading and core.caches.synced)

    async def close(self) -> None:
        for client in self.clients:
            await client.close()
        await self.process.terminate()
        await self.world.close()

    async def until(self, condition: Any) -> None:
        async with asyncio.timeout(30):
            while not condition():
                await asyncio.sleep(0.02)

    async def ask(self, *jobs: dict[str, Any]) -> Answer:
        answer = await self.planning.post("/plan", json={"jobs": list(jobs)})
        return answer.status, await answer.json()

    async def snapshot(self, query: str = "") -> Answer:
        answer = await self.debugging.get(f"/snapshot{query}")
        return answer.status, await answer.json()


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    desk = Desk()
    await desk.open()
    yield desk
    await desk.close()


def stored(name: str, replicas: int = 2, **spec: Any) -> dict[str, Any]:
    """A job as a dry run of the API server gives it."""
    raw: dict[str, Any] = training_job(name, replicas=replicas, accelerators=GPUS, **spec)
    raw["metadata"] |= {"uid": f"uid-{name}", "creationTimestamp": "2026-01-01T00:00:00Z"}
    return raw


async def test_a_job_that_fits_is_told_where_it_would_run(desk: Desk) -> None:
    status, answer = await desk.ask(stored("a", topology={"required": "host"}, replicas=1))
    (plan,) = answer["jobs"]
    assert (status, plan["outcome"], plan["placement"]["level"]) == (200, "starts", "host")
    assert desk.world.kube.sent("POST", "/pods") == 0, "nothing is created"


async def test_the_plan_is_what_then_happens(desk: Desk) -> None:
    desk.world.kube.put(JOBS, training_job("first", replicas=1, accelerators=GPUS))
    await desk.until(lambda: desk.world.phase("first") == "Running")
    _, answer = await desk.ask(stored("a", replicas=3))
    desk.world.kube.put(JOBS, training_job("a", replicas=3, accelerators=GPUS))
    await desk.until(lambda: desk.world.phase("a") == "Running")
    assert answer["jobs"][0]["placement"] == desk.world.status("a")["placement"]


async def test_a_job_without_room_is_told_why(desk: Desk) -> None:
    _, answer = await desk.ask(stored("a", replicas=5))
    (plan,) = answer["jobs"]
    assert plan["outcome"] == "waits"
    assert "needs 5 replicas with 8 nvidia.com/gpu each" in plan["reason"]


async def test_jobs_of_one_question_compete(desk: Desk) -> None:
    _, answer = await desk.ask(stored("a", replicas=3), stored("b", replicas=3))
    assert [plan["outcome"] for plan in answer["jobs"]] == ["starts", "waits"]


async def test_jobs_that_would_be_held_up_are_named(desk: Desk) -> None:
    classes = "priorityclasses.scheduling.k8s.io"
    desk.world.kube.put(classes, {"metadata": {"name": "high"}, "value": 100})
    await desk.until(lambda: desk.process.core.caches.priority_of("high") == 100)
    # The next cycle is held up between its looking and its writing: the job waits.
    desk.world.kube.faults.append(Fault("PUT", "/low/status", delay=1.0, times=9))
    desk.world.kube.put(JOBS, training_job("low", replicas=3, accelerators=GPUS))
    await desk.until(lambda: desk.process.core.scheduler.waiting("default/low"))
    _, answer = await desk.ask(stored("a", replicas=3, priorityClassName="high"))
    assert answer["jobs"][0]["outcome"] == "starts"
    assert answer["heldUp"] == ["default/low"]


async def test_what_needs_no_room_to_be_judged(desk: Desk) -> None:
    desk.world.kube.put(JOBS, training_job("there", replicas=1))
    await desk.until(lambda: desk.world.phase("there") == "Running")
    _, answer = await desk.ask(
        stored("there"),
        stored("lost", queue="none"),
        stored("off", suspend=True),
        stored("bad", resources={"requests": {"cpu": "x"}}),
    )
    outcomes = {plan["name"]: plan for plan in answer["jobs"]}
    assert outcomes["there"]["outcome"] == "runs"
    assert outcomes["there"]["placement"] == desk.world.status("there")["placement"]
    assert outcomes["lost"]["outcome"] == "waits"
    assert "no Queue named 'none'" in outcomes["lost"]["reason"]
    assert outcomes["off"]["outcome"] == "suspended"
    assert outcomes["bad"]["outcome"] == "fails"


async def test_quota_counts(desk: Desk) -> None:
    desk.world.kube.put(
        QUEUES, {"metadata": {"name": "q"}, "spec": {"quota": {"nvidia.com/gpu": "8"}}}
    )
    await desk.until(lambda: "q" in desk.process.core.caches.queues.items)
    _, answer = await desk.ask(stored("a", queue="q"))
    assert "queue 'q'" in answer["jobs"][0]["reason"]
    assert answer["jobs"][0]["queue"] == "q"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"jobs": []}, "plan.jobs: "),
        ({}, "plan.jobs: Field required"),
        ({"jobs": [{"kind": "Pod"}]}, "only a TrainingJob can be planned, found 'Pod'"),
        ({"jobs": [{"kind": "TrainingJob"}]}, "not as the API server stores a TrainingJob"),
    ],
)
async def test_what_is_no_question_is_refused(desk: Desk, body: Any, message: str) -> None:
    answer = await desk.planning.post("/plan", json=body)
    found = await answer.json()
    assert answer.status == 400
    assert found["kind"] == "Status"
    assert message in found["message"]


async def test_each_port_answers_its_own_question_only(desk: Desk) -> None:
    assert (await desk.planning.get("/snapshot")).status == 404
    assert (await desk.planning.get("/plan")).status == 405
    assert (await desk.debugging.post("/plan", json={})).status == 404


async def test_a_snapshot_repeats_the_decisions_of_now(desk: Desk) -> None:
    desk.world.kube.put(JOBS, training_job("large", replicas=9, accelerators=GPUS))
    await desk.until(lambda: desk.world.status("large").get("pendingReason"))
    status, document = await desk.snapshot()
    assert status == 200
    lines, differences = replay(document)
    assert differences == []
    assert lines[0].startswith("default/large: waits: needs 9 replicas")


async def test_the_cycle_that_placed_a_job_can_be_repeated_later(desk: Desk) -> None:
    desk.world.kube.put(JOBS, training_job("a", replicas=3, accelerators=GPUS))
    await desk.until(lambda: desk.world.phase("a") == "Running")
    desk.world.kube.put(JOBS, training_job("b", replicas=3, accelerators=GPUS))
    await desk.until(lambda: desk.world.status("b").get("pendingReason"))
    _, document = await desk.snapshot("?job=default/a")
    lines, differences = replay(document)
    assert differences == []
    nodes = desk.world.status("a")["placement"]["nodes"]
    assert "default/a: placed" in lines[0]
    assert all(f"{at} on {node}" in lines[0] for at, node in enumerate(nodes))
    status, refused = await desk.snapshot("?job=default/none")
    assert status == 404
    assert "default/none" in refused["message"]


async def test_a_replica_that_does_not_lead_asks_the_leader(desk: Desk) -> None:
    second = Process(desk.world.kube)
    core = second.core
    await desk.until(lambda: core.caches.synced and core.leader.holder)
    leader = desk.process.core.settings.identity
    assert (core.leader.leading, core.leader.holder) == (False, leader)
    desk.world.kube.put("pods", _pod(leader))
    await desk.until(lambda: f"drakkar-system/{leader}" in core.caches.pods.items)
    port = desk.planning.port
    assert port is not None
    forward = Forward(core.leader, core.caches, namespace="drakkar-system", port=port)
    client = await desk.client(plan_application(core.planner, forward))
    answer = await client.post("/plan", json={"jobs": [stored("a")]})
    assert (await answer.json())["jobs"][0]["outcome"] == "starts"
    # Handed on once only: two that each take the other for the leader must not go in circles.
    refused = await client.post("/plan", json={"jobs": [stored("a")]}, headers={FORWARDED: "1"})
    assert refused.status == 503
    assert "no operator leads" in (await refused.json())["message"]
    await second.terminate()


async def test_a_leader_that_is_away(desk: Desk) -> None:
    second = Process(desk.world.kube)
    core = second.core
    await desk.until(lambda: core.caches.synced and core.leader.holder)
    client = await desk.client(plan_application(core.planner, desk_forward(second, 1)))
    refused = await client.post("/plan", json={"jobs": [stored("a")]})
    assert refused.status == 503
    assert "no operator leads" in (await refused.json())["message"]
    leader = desk.process.core.settings.identity
    desk.world.kube.put("pods", _pod(leader))
    await desk.until(lambda: f"drakkar-system/{leader}" in core.caches.pods.items)
    refused = await client.post("/plan", json={"jobs": [stored("a")]})
    assert refused.status == 503
    assert f"the leader {leader} does not answer" in (await refused.json())["message"]
    await second.terminate()


def desk_forward(process: Process, port: int) -> Forward:
    core = process.core
    return Forward(core.leader, core.caches, namespace="drakkar-system", port=port)


def _pod(name: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "drakkar-system", "labels": {}},
        "spec": {"containers": [{"name": "operator"}]},
        "status": {"phase": "Running", "podIP": "127.0.0.1"},
    }


async def test_the_ports_of_a_process() -> None:
    """They are three: metrics and probes, plans, snapshots."""
    from drakkar.kube.connection import Connection
    from drakkar_operator.app import Operator
    from drakkar_operator.settings import Settings

    operator = Operator(Settings(host="127.0.0.1", port=0), Connection("http://127.0.0.1:9"))
    stop = asyncio.Event()
    task = asyncio.create_task(operator.run(stop))
    async with asyncio.timeout(20):
        while len(operator.ports) < 3:
            await asyncio.sleep(0.02)
    async with aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{operator.ports['plan']}/plan"
        async with session.post(url, json={"jobs": [stored("a")]}) as answer:
            assert answer.status == 503
            assert "no operator leads" in (await answer.json())["message"]
    stop.set()
    await task
