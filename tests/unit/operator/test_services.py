"""InferenceServices under the whole operator in virtual time, beside jobs and under faults."""

import asyncio
import base64
import hashlib
import hmac
from collections.abc import AsyncIterator
from typing import Any

import pytest

from drakkar.kube.rest import ApiError
from drakkar.routing import digest
from support.fake_kube import (
    JOBS,
    QUEUES,
    SERVICES,
    Fault,
    inference_service,
    lost_connection,
    training_job,
)
from support.operator_world import Process, World

pytestmark = pytest.mark.looptime(start=0)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    await world.close()
    assert world.kubelet.doubles == []
    assert world.kubelet.crowded == []


def status(world: World, name: str = "chat") -> dict[str, Any]:
    found: dict[str, Any] = world.kube.get(SERVICES, name).get("status") or {}
    return found


def servers(world: World, name: str = "chat") -> list[dict[str, Any]]:
    return [
        pod
        for pod in world.kube.all("pods")
        if pod["metadata"]["labels"].get("drakkar.dev/service") == name
    ]


async def test_replicas_are_placed_by_the_scheduler_and_run(world: World):
    process = Process(world.kube)
    world.kube.put(SERVICES, inference_service("chat", replicas=3))
    await world.until(lambda: status(world).get("readyReplicas") == 3)
    places = {m["name"]: m["placement"]["nodes"] for m in status(world)["members"]}
    for pod in servers(world):
        member = pod["metadata"]["labels"]["drakkar.dev/member"]
        assert places[member] == [pod["spec"]["nodeName"]]
    assert world.kube.get("deployments.apps", "chat-router")["spec"]["replicas"] == 1
    assert world.kube.get("services", "chat")["spec"]["ports"][0]["port"] == 80
    await process.terminate()


async def test_routers_of_a_service_know_every_operator_by_the_same_digest(world: World):
    process = Process(world.kube)
    world.kube.put(SERVICES, inference_service("chat"))
    world.kube.put(SERVICES, inference_service("other"))
    await world.until(lambda: status(world).get("readyReplicas") == 1)
    await world.until(lambda: status(world, "other").get("readyReplicas") == 1)

    def digests() -> list[str]:
        found = []
        for name in ("chat", "other"):
            router = world.kube.get("deployments.apps", f"{name}-router")
            words = router["spec"]["template"]["spec"]["containers"][0]["args"]
            found.append(words[words.index("--token-digest") + 1])
        return found

    before = digests()
    assert len(set(before)) == 2
    (secret,) = world.kube.all("secrets")
    assert secret["metadata"]["namespace"] == "drakkar-system"
    key = base64.b64decode(secret["data"]["key"])
    uid = world.kube.get(SERVICES, "chat")["metadata"]["uid"]
    assert before[0] == digest(hmac.new(key, uid.encode(), hashlib.sha256).hexdigest())
    await process.terminate()
    successor = Process(world.kube)
    world.kube.edit(SERVICES, "default", "chat", lambda raw: raw["spec"].update(replicas=2))
    await world.until(lambda: status(world).get("readyReplicas") == 2)
    assert digests() == before
    assert len(world.kube.all("secrets")) == 1
    await successor.terminate()


async def test_a_key_that_is_none_is_told_and_concerns_services_alone(
    world: World, caplog: pytest.LogCaptureFixture
):
    name = {"name": "drakkar-operator-routers", "namespace": "drakkar-system"}
    world.kube.put("secrets", {"metadata": name, "data": {"key": "c2hvcnQ="}})
    process = Process(world.kube)
    world.kube.put(SERVICES, inference_service("chat"))
    world.kube.put(JOBS, training_job("gpt"))
    await world.until(
        lambda: world.kube.get(JOBS, "gpt").get("status", {}).get("phase") == "Running"
    )
    assert world.kube.all("deployments.apps") == []
    world.kube.remove("secrets", name["namespace"], name["name"])
    await world.until(lambda: status(world).get("readyReplicas") == 1)
    await process.terminate()


async def test_a_replica_of_several_pods_is_placed_whole_or_not_at_all(world: World):
    process = Process(world.kube)
    spec = {
        "runtime": {"name": "vllm", "image": "vllm"},
        "accelerators": {"resource": "nvidia.com/gpu", "count": 8},
        "parallelism": {"tensor": 8, "pipeline": 2, "pods": 2},
        "replicas": 3,
    }
    world.kube.put(SERVICES, inference_service("chat", **spec))
    await world.until(lambda: status(world).get("readyReplicas") == 2)
    assert len(servers(world)) == 4
    waiting = [m for m in status(world)["members"] if "placement" not in m]
    assert "the cluster has room for 0" in waiting[0]["pendingReason"]
    ready = next(c for c in status(world)["conditions"] if c["type"] == "Ready")
    assert waiting[0]["pendingReason"] in ready["message"]
    await process.terminate()


async def test_services_and_jobs_share_a_queues_quota(world: World):
    queue = {"metadata": {"name": "team"}, "spec": {"quota": {"nvidia.com/gpu": 2}}}
    world.kube.put(QUEUES, queue)
    process = Process(world.kube)
    world.kube.put(JOBS, training_job("a", replicas=1, queue="team"))
    await world.until(lambda: world.phase("a") == "Running")
    world.kube.put(SERVICES, inference_service("chat", replicas=2, queue="team"))
    await world.until(lambda: status(world).get("readyReplicas") == 1)
    await world.until(
        lambda: any(m.get("pendingReason") for m in status(world)["members"]), seconds=30
    )
    used = world.kube.get(QUEUES, "team", None)
    await world.until(lambda: world.kube.get(QUEUES, "team", None)["status"]["admitted"] == 2)
    assert used
    world.kube.remove(JOBS, "default", "a")
    await world.until(lambda: status(world).get("readyReplicas") == 2)
    await process.terminate()


async def test_a_lost_nodes_replica_moves(world: World):
    process = Process(world.kube)
    world.kube.put(SERVICES, inference_service("chat"))
    await world.until(lambda: status(world).get("readyReplicas") == 1)
    place = status(world)["members"][0]["placement"]["nodes"][0]
    world.kube.remove("nodes", None, place)
    await world.until(lambda: [p for p in servers(world) if p["spec"]["nodeName"] != place])
    await world.until(lambda: status(world).get("readyReplicas") == 1)
    assert status(world)["restarts"][-1]["reason"] == "NodeLost"
    await process.terminate()


async def test_the_next_operator_continues_where_one_died(world: World):
    process = Process(world.kube)
    world.kube.put(SERVICES, inference_service("chat", replicas=2))
    await world.until(lambda: any(m.get("placement") for m in status(world).get("members", [])))
    await process.kill()
    process = Process(world.kube)
    await world.until(lambda: status(world).get("readyReplicas") == 2)
    uids = {pod["metadata"]["uid"] for pod in servers(world)}
    await process.kill()
    process = Process(world.kube)
    world.kube.edit(SERVICES, "default", "chat", lambda raw: raw["spec"].update(replicas=3))
    await world.until(lambda: status(world).get("readyReplicas") == 3)
    assert uids < {pod["metadata"]["uid"] for pod in servers(world)}
    await process.terminate()


async def test_writes_that_fail_are_tried_again(world: World):
    refused = ApiError(403, "Forbidden", "exceeded quota: pods")
    world.kube.faults += [
        Fault("PUT", "inferenceservices", lost_connection(), times=2, after=True),
        Fault("POST", "/pods", refused, times=3),
        Fault("POST", "/deployments", lost_connection(), times=1),
    ]
    process = Process(world.kube)
    world.kube.put(SERVICES, inference_service("chat", replicas=2))
    await world.until(lambda: status(world).get("readyReplicas") == 2)
    assert world.kube.get("deployments.apps", "chat-router")
    await process.terminate()


async def test_an_update_and_a_smaller_number_leave_nothing_behind(world: World):
    process = Process(world.kube)
    world.kube.put(SERVICES, inference_service("chat", replicas=3))
    await world.until(lambda: status(world).get("readyReplicas") == 3)
    before = {pod["metadata"]["uid"] for pod in servers(world)}
    world.kube.edit(
        SERVICES,
        "default",
        "chat",
        lambda raw: raw["spec"].update(replicas=2, runtime={"name": "drakkar", "args": ["-x"]}),
    )
    await world.until(
        lambda: (
            len(servers(world)) == 2
            and not before & {pod["metadata"]["uid"] for pod in servers(world)}
        )
    )
    await world.until(lambda: len(status(world)["members"]) == 2)
    assert len(status(world)["revisions"]) == 1
    await process.terminate()


async def test_a_foreign_object_of_the_same_name_is_left_alone(world: World):
    world.kube.put(
        "services",
        {"metadata": {"name": "chat", "namespace": "default"}, "spec": {"ports": [{"port": 1}]}},
    )
    process = Process(world.kube)
    world.kube.put(SERVICES, inference_service("chat"))
    await world.until(
        lambda: [e for e in world.kube.all("events.events.k8s.io") if e["reason"] == "NameTaken"]
    )
    assert world.kube.get("services", "chat")["spec"] == {"ports": [{"port": 1}]}
    await process.terminate()


async def test_pods_that_are_refused_for_good_wait_for_another_spec(world: World):
    world.kube.faults.append(Fault("POST", "/pods", ApiError(422, "Invalid", "bad"), times=1))
    process = Process(world.kube)
    world.kube.put(SERVICES, inference_service("chat"))

    def stalled() -> dict[str, Any]:
        conditions = status(world).get("conditions", [])
        return next((c for c in conditions if c["type"] == "Stalled"), {})

    await world.until(lambda: stalled().get("reason") == "PodCreationFailed")
    tries = world.kube.sent("POST", "/pods")
    await asyncio.sleep(60)
    assert stalled()["status"] == "True"
    assert world.kube.sent("POST", "/pods") == tries
    world.kube.edit(SERVICES, "default", "chat", lambda raw: raw["metadata"].update(generation=2))
    await world.until(lambda: status(world).get("readyReplicas") == 1)
    assert stalled()["status"] == "False"
    await process.terminate()
