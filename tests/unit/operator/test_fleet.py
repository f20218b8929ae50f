"""What the operator tells Prometheus of jobs, queues and nodes."""

from collections.abc import AsyncIterator

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from drakkar.v1alpha1.trainingjob import TrainingJobSpec, TrainingJobStatus
from drakkar_operator.fleet import OTHER, Fleet, FleetCollector, cause
from drakkar_operator.model import JobView, NodeView, PodView
from drakkar_operator.scheduling.usage import QueueUse, Use
from support.fake_kube import JOBS, QUEUES, training_job
from support.operator_world import Process, World

GPU = "nvidia.com/gpu"
LEVELS = (("rack", "rack"), ("host", "host"))


def job(name: str, status: dict, **spec: object) -> JobView:
    return JobView(
        "ml",
        name,
        f"uid-{name}",
        1,
        1000.0,
        TrainingJobSpec.model_validate(spec),
        TrainingJobStatus.model_validate(status),
    )


def told(**more: object) -> dict[str, float]:
    """The samples of a fleet, as Prometheus would read them."""
    parts: dict = {
        "now": 10_000.0,
        "jobs": (),
        "nodes": (),
        "pods": (),
        "queues": {},
        "quotas": {},
        "levels": LEVELS,
        "unusable": 0.0,
    }
    registry = CollectorRegistry()
    registry.register(FleetCollector(lambda: Fleet(**(parts | more))))
    return samples(registry)


def samples(registry: CollectorRegistry) -> dict[str, float]:
    lines = generate_latest(registry).decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def node(name: str, rack: str, **more: object) -> NodeView:
    return NodeView(name, {"rack": rack}, {GPU: 8, "cpu": 64_000, "memory": 1 << 40}, **more)


def test_room_is_told_per_domain_without_pods_that_ended_and_nodes_that_are_unusable() -> None:
    pods = [
        PodView("ml", "a", "1", "n0", "Running", {GPU: 6, "cpu": 1500}),
        PodView("ml", "b", "2", "n1", "Succeeded", {GPU: 8}),
        PodView("ml", "c", "3", None, "Pending", {GPU: 8}),
    ]
    nodes = [
        node("n0", "r0"),
        node("n1", "r0"),
        node("n2", "r1", unschedulable=True),
        node("n3", "r1", ready=False),
    ]
    found = told(nodes=nodes, pods=pods)
    rack = f'{{domain="r0",level="rack",resource="{GPU}"}}'
    assert found[f"drakkar_domain_free{rack}"] == 10
    assert found[f"drakkar_domain_allocatable{rack}"] == 16
    assert found['drakkar_domain_free{domain="cluster",level="cluster",resource="cpu"}'] == 126.5
    assert not any('"r1"' in name or 'resource="memory"' in name for name in found)
    assert found['drakkar_nodes{state="cordoned"}'] == found['drakkar_nodes{state="lost"}'] == 1


def test_an_ended_job_has_no_series_but_counts_in_its_phase() -> None:
    ended = {
        "type": "Complete",
        "status": "True",
        "reason": "Finished",
        "lastTransitionTime": "2027-01-01T00:00:00Z",
    }
    found = told(
        jobs=[job("done", {"phase": "Complete", "conditions": [ended]}), job("new", {}, queue="q")]
    )
    assert found['drakkar_operator_trainingjobs{phase="Complete"}'] == 1
    assert found['drakkar_job_info{job="new",namespace="ml",phase="Pending",queue="q"}'] == 1
    assert not any('"done"' in name for name in found)


def test_only_jobs_that_want_a_place_make_a_queue_s_wait() -> None:
    use = QueueUse(Use({"cpu": 2500}), {}, 1, 2, 0.25, 0.5, None)
    jobs = [
        job("waits", {}, queue="q"),
        job("held", {}, queue="idle", suspend=True),
        job("placed", {"placement": {"level": "rack", "domain": "r", "nodes": ["n"]}}),
    ]
    found = told(jobs=jobs, queues={"q": use, "idle": use}, quotas={"q": {"cpu": 4000}})
    assert found['drakkar_queue_oldest_wait_seconds{queue="q"}'] == 9000
    assert found['drakkar_queue_oldest_wait_seconds{queue="idle"}'] == 0
    assert found['drakkar_queue_oldest_wait_seconds{queue="none"}'] == 0
    assert found['drakkar_queue_used{queue="q",resource="cpu"}'] == 2.5
    assert found['drakkar_queue_quota{queue="q",resource="cpu"}'] == 4
    assert found['drakkar_queue_jobs{queue="q",state="pending"}'] == 2


def test_a_script_s_own_exceptions_are_one_label() -> None:
    assert cause("OOMKilled") == "OOMKilled"
    assert cause("KeyError") == cause("MyVeryOwnError") == OTHER


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    await world.close()


@pytest.mark.looptime(start=0)
async def test_the_leader_tells_and_counts_and_the_other_is_silent(world: World) -> None:
    leader = Process(world.kube)
    await world.until(lambda: leader.core.leader.leading)
    other = Process(world.kube)
    world.kube.put(QUEUES, {"metadata": {"name": "team"}, "spec": {}})
    world.kube.put(JOBS, training_job("a", queue="team"))
    await world.until(lambda: world.phase("a") == "Running")
    world.kube.remove("pods", "default", world.pods("a")[0]["metadata"]["name"])
    name = 'drakkar_operator_restarts_total{reason="PodDeleted",scope="gang"}'
    await world.until(lambda: name in samples(leader.core.metrics.registry))
    found = samples(leader.core.metrics.registry)
    assert found[name] == 1
    assert found['drakkar_queue_wait_seconds_count{queue="team"}'] == 1
    assert found['drakkar_queue_jobs{queue="team",state="admitted"}'] == 1
    silent = samples(other.core.metrics.registry)
    assert not any(line.startswith(("drakkar_job", "drakkar_queue")) for line in silent)
    assert name not in silent
