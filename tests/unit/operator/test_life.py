"""The whole operator in virtual time: jobs' lives under faults of operator, server and cluster."""

import asyncio
import copy
import random
from collections.abc import AsyncIterator

import pytest

from drakkar.kube.rest import ApiError
from support.fake_kube import JOBS, QUEUES, TOPOLOGIES, Fault, lost_connection, node, training_job
from support.operator_world import Process, World

pytestmark = pytest.mark.looptime(start=0)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    await world.close()
    assert world.kubelet.doubles == []


async def finish(world: World, name: str) -> None:
    """All pods of a job succeed."""
    for pod in world.pods(name):
        world.kubelet.end("default", pod["metadata"]["name"], 0)


async def test_a_job_is_placed_runs_and_completes(world: World):
    process = Process(world.kube)
    world.kube.put(JOBS, training_job("a"))
    await world.until(lambda: world.phase("a") == "Running")
    placement = world.status("a")["placement"]["nodes"]
    assert [p["spec"]["nodeName"] for p in world.pods("a")] == placement
    assert world.kube.get("services", "a")["spec"]["clusterIP"] == "None"
    await finish(world, "a")
    await world.until(lambda: world.phase("a") == "Complete")
    await process.terminate()
    notes = {e["reason"]: e["note"] for e in world.kube.all("events.events.k8s.io")}
    assert notes.keys() == {"Started", "Complete"}
    assert notes["Started"].startswith("all replicas train; 2 replicas placed in ")


async def test_a_gang_of_one_needs_few_writes(world: World):
    process = Process(world.kube)
    world.kube.requests.clear()
    world.kube.put(JOBS, training_job("a", replicas=1))
    await world.until(lambda: world.phase("a") == "Running")
    await process.terminate()
    writes = [
        (verb, path.rpartition("/")[2])
        for verb, path in world.kube.requests
        if verb not in ("GET", "WATCH") and "/namespaces/default/" in path
    ]
    assert writes == [
        ("PUT", "status"),
        ("POST", "pods"),
        ("PUT", "status"),
        ("POST", "events"),
    ]


async def test_the_placement_is_written_before_the_first_pod(world: World):
    seen: list[bool] = []

    def look() -> None:
        seen.append(len(world.status("a").get("placement", {}).get("nodes", [])) == 2)

    world.kube.faults.append(Fault("POST", "/pods", call=look, times=10))
    process = Process(world.kube)
    world.kube.put(JOBS, training_job("a"))
    await world.until(lambda: world.phase("a") == "Running")
    assert seen == [True, True]
    await process.terminate()


async def test_a_job_that_cannot_fit_says_why_and_starts_when_room_appears(world: World):
    process = Process(world.kube)
    world.kube.put(
        JOBS, training_job("a", replicas=6, accelerators={"resource": "nvidia.com/gpu", "count": 8})
    )
    await world.until(lambda: "6 replicas" in world.status("a").get("pendingReason", ""))
    writes = world.kube.sent("PUT", "trainingjobs")
    await asyncio.sleep(300)
    assert world.kube.sent("PUT", "trainingjobs") == writes, "a reason is written once"
    assert world.pods("a") == []
    world.kube.put("nodes", node("n4"))
    world.kube.put("nodes", node("n5"))
    await world.until(lambda: world.phase("a") == "Running", 10)
    await process.terminate()


async def test_room_given_up_by_one_job_is_taken_by_the_next(world: World):
    process = Process(world.kube)
    for name in ("a", "b"):
        world.kube.put(
            JOBS,
            training_job(name, replicas=3, accelerators={"resource": "nvidia.com/gpu", "count": 8}),
        )
        await asyncio.sleep(1)
    await world.until(lambda: world.phase("a") == "Running")
    assert world.pods("b") == []
    await finish(world, "a")
    await world.until(lambda: world.phase("b") == "Running", 10)
    await process.terminate()


@pytest.mark.parametrize(
    "fault",
    [
        Fault("POST", "/pods", lost_connection(), after=True, times=2),
        Fault("POST", "/pods", lost_connection(), times=2),
        Fault("POST", "/pods", ApiError(429, "TooManyRequests", "", retry_after=7.0), times=3),
        Fault("POST", "/pods", ApiError(500, "InternalError", "etcd"), times=9),
        Fault("POST", "/pods", ApiError(403, "Forbidden", "exceeded quota"), times=2),
        Fault("POST", "/services", lost_connection(), after=True),
        Fault("PUT", "/status", lost_connection(), after=True, times=3),
        Fault("PUT", "/status", ApiError(500, "InternalError", ""), times=9),
        Fault("PUT", "/status", ApiError(409, "Conflict", ""), times=2),
        Fault("GET", "/trainingjobs", ApiError(500, "InternalError", ""), times=3),
    ],
    ids=lambda f: f"{f.verb}{f.part}-{f.error.status}{'-done' if f.after else ''}",
)
async def test_refused_and_lost_answers_are_survived(world: World, fault: Fault):
    world.kube.faults.append(fault)
    process = Process(world.kube)
    world.kube.put(JOBS, training_job("a"))
    await world.until(lambda: world.phase("a") == "Running")
    assert sorted(world.kubelet.created) == ["a-0", "a-1"]
    await process.terminate()


async def test_a_pod_that_is_refused_for_good_ends_the_job_with_the_servers_words(world: World):
    error = ApiError(422, "Invalid", "spec.containers[0].image: Required value")
    world.kube.faults.append(Fault("POST", "/pods", error, times=2))
    process = Process(world.kube)
    world.kube.put(JOBS, training_job("a"))
    await world.until(lambda: world.phase("a") == "Failed")
    failed = next(c for c in world.status("a")["conditions"] if c["type"] == "Failed")
    assert "image: Required value" in failed["message"]
    await process.terminate()


async def test_a_name_that_is_taken_is_said_and_waited_for(world: World):
    stranger = {"metadata": {"name": "a-1", "namespace": "default"}, "spec": {}}
    world.kube.put("pods", stranger)
    process = Process(world.kube)
    world.kube.put(JOBS, training_job("a"))
    await world.until(
        lambda: any(
            e["reason"] == "NameTaken" and "default/a-1" in e["note"]
            for e in world.kube.all("events.events.k8s.io")
        )
    )
    world.kube.remove("pods", "default", "a-1")
    world.kubelet.alive.discard("default/a-1")
    await world.until(lambda: world.phase("a") == "Running")
    await process.terminate()


async def test_one_sick_job_does_not_stop_the_others(world: World):
    process = Process(world.kube)
    bad = training_job("bad", replicas="many")
    world.kube.put(JOBS, bad)
    crash = process.core.controller.context

    async def sometimes(job):  # type: ignore[no-untyped-def]
        if job.name == "crash":
            raise RuntimeError("a bug")
        return await crash(job)

    process.core.controller.context = sometimes  # type: ignore[method-assign]
    world.kube.put(JOBS, training_job("crash"))
    world.kube.put(JOBS, training_job("good"))
    await world.until(lambda: world.phase("good") == "Running")
    await world.until(lambda: world.phase("bad") == "Failed")
    failed = next(c for c in world.status("bad")["conditions"] if c["type"] == "Failed")
    assert "spec.replicas" in failed["message"]
    process.core.controller.context = crash  # type: ignore[method-assign]
    await world.until(lambda: world.phase("crash") == "Running", 200)
    await process.terminate()


async def test_a_deposed_leader_stops_in_the_middle_of_a_gang(world: World):
    first = Process(world.kube)
    await world.until(lambda: first.core.leader.leading)
    second = Process(world.kube)
    created: list[str] = []

    def usurp() -> None:
        """The second pod is being created when the Lease is found to be somebody else's."""
        created.append("pod")
        if len(created) == 2:
            first.core.leader._step_down("test")

    world.kube.faults.append(Fault("POST", "/pods", call=usurp, times=100))
    first.core.executor._slots = asyncio.Semaphore(1)
    # Its renewals fail from now on, so the second one takes over.
    lease = first.lease_rest

    async def refuse(*_: object, **__: object) -> None:
        raise lost_connection()

    lease._call = refuse  # type: ignore[method-assign, assignment]
    world.kube.put(JOBS, training_job("a", replicas=8))
    await world.until(lambda: len(created) >= 2)
    await asyncio.sleep(3)
    assert len(created) == 2, "the deposed leader wrote on"
    await world.until(lambda: world.phase("a") == "Running")
    assert second.core.leader.leading
    assert sorted(world.kubelet.created) == [f"a-{i}" for i in range(8)]
    await first.kill()
    await second.terminate()


@pytest.mark.parametrize("seed", range(20))
async def test_operators_are_killed_all_the_time(world: World, seed: int):
    """(e): at any point of a job's life; the job completes and no pod ever exists twice."""
    rng = random.Random(seed)
    kube = world.kube
    world.kubelet.delay = 0.2
    kube.put(JOBS, training_job("a", replicas=6))
    kube.put(JOBS, training_job("b", replicas=3))
    errors = [lost_connection(), ApiError(500, "E", "")]
    process = Process(kube, lease_seconds=3.0)
    for _ in range(10):
        await asyncio.sleep(rng.choice([rng.random() * 0.6, rng.random() * 8]))
        if rng.random() < 0.3:
            verb = rng.choice(["POST", "PUT", "PATCH", "DELETE", "GET"])
            kube.faults.append(
                Fault(verb, "", rng.choice(errors), times=2, after=rng.random() < 0.5)
            )
        pods = world.pods("a")
        if rng.random() < 0.3 and pods:
            name = rng.choice(pods)["metadata"]["name"]
            if rng.random() < 0.5:
                kube.remove("pods", "default", name)
            else:
                world.kubelet.end("default", name, 75)
        await process.kill()
        process = Process(kube, lease_seconds=3.0)
    kube.faults.clear()
    # The statuses are those of operators that are dead: the last one has to have its look first.
    await world.until(lambda: process.core.leader.leading)
    await asyncio.sleep(20)
    await world.until(lambda: world.phase("a") == world.phase("b") == "Running", 300)
    await finish(world, "a")
    await finish(world, "b")
    await world.until(lambda: world.phase("a") == world.phase("b") == "Complete", 60)
    await process.terminate()


async def test_two_gangs_that_fit_one_at_a_time_never_half_start(world: World):
    """(d): over 20 rounds."""
    process = Process(world.kube)
    gpus = {"resource": "nvidia.com/gpu", "count": 8}
    for turn in range(20):
        names = [f"x{turn}", f"y{turn}"]
        for name in names:
            world.kube.put(JOBS, training_job(name, replicas=3, accelerators=gpus))
        for left in (2, 1):
            await world.until(lambda both=names: any(world.phase(n) == "Running" for n in both))
            running = [n for n in names if world.phase(n) == "Running"]
            assert len(running) == 1
            other = [n for n in names if n not in running and world.phase(n) != "Complete"]
            assert all(world.pods(n) == [] for n in other)
            assert len(other) == left - 1
            await finish(world, running[0])
            await world.until(lambda name=running[0]: world.phase(name) == "Complete")
    await process.terminate()


async def test_a_quota_is_kept_and_the_queue_tells_its_use(world: World):
    world.kube.put(
        QUEUES, {"metadata": {"name": "team"}, "spec": {"quota": {"nvidia.com/gpu": "3"}}}
    )
    process = Process(world.kube)
    for name in ("a", "b"):
        world.kube.put(JOBS, training_job(name, queue="team"))
        await asyncio.sleep(0.5)
    await world.until(lambda: world.phase("a") == "Running")
    await world.until(lambda: "allows 3" in world.status("b").get("pendingReason", ""))
    want = {"admitted": 1, "pending": 1, "used": {"nvidia.com/gpu": "2", "pods": "2"}}

    def told() -> bool:
        status = world.kube.get(QUEUES, "team", None).get("status") or {}
        return want.items() <= status.items() and status["conditions"][0]["status"] == "True"

    await world.until(told, 20)
    world.kube.edit(
        QUEUES, None, "team", lambda q: q["spec"]["quota"].update({"nvidia.com/gpu": 4})
    )
    await world.until(lambda: world.phase("b") == "Running", 10)
    await process.terminate()


async def test_a_topology_tells_what_its_widest_domains_hold(world: World):
    level = {"name": "host", "nodeLabel": "kubernetes.io/hostname"}
    world.kube.put(TOPOLOGIES, {"metadata": {"name": "all"}, "spec": {"levels": [level]}})
    process = Process(world.kube)
    world.kube.put(JOBS, training_job("a"))
    await world.until(lambda: world.phase("a") == "Running")

    def free() -> list[int]:
        status = world.kube.get(TOPOLOGIES, "all", None).get("status") or {}
        return sorted(d["free"]["nvidia.com/gpu"] for d in status.get("domains", ()))

    nodes = len(world.kube.all("nodes"))
    await world.until(lambda: sum(free()) == 8 * nodes - 2, 20)
    assert len(free()) == nodes
    await process.terminate()


async def test_nothing_is_written_while_nothing_happens(world: World):
    process = Process(world.kube)
    world.kube.put(JOBS, training_job("a"))
    await world.until(lambda: world.phase("a") == "Running")
    await asyncio.sleep(5)
    before = len(world.kube.requests)
    await asyncio.sleep(600)
    later = [r for r in world.kube.requests[before:] if "leases" not in r[1]]
    assert {verb for verb, _ in later} <= {"WATCH", "GET"}
    await process.terminate()


async def test_a_deleted_job_is_forgotten(world: World):
    process = Process(world.kube)
    world.kube.put(JOBS, training_job("a"))
    await world.until(lambda: world.phase("a") == "Running")
    world.kube.remove(JOBS, "default", "a")
    await world.until(lambda: not world.pods("a"), 10)
    await asyncio.sleep(5)
    core = process.core
    assert not core.controller._uids
    assert len(core.scheduler._holdings) == 0
    assert not core.caches._by_job
    # The same name again is a new job.
    world.kube.put(JOBS, training_job("a"))
    await world.until(lambda: world.phase("a") == "Running", 10)
    await process.terminate()


async def test_a_job_deleted_and_applied_again_does_not_wait_for_the_garbage_collector(
    world: World,
):
    process = Process(world.kube)
    world.kube.put(JOBS, training_job("a"))
    await world.until(lambda: world.phase("a") == "Running")
    first = world.job("a")
    # Only the job goes; what it owned is still there when its namesake comes.
    world.kube.objects.pop((JOBS, "default", "a"))
    world.kube._event(JOBS, "DELETED", first)
    world.kube.put(JOBS, training_job("a"))
    await world.until(lambda: world.phase("a") == "Running", 30)
    uid = world.job("a")["metadata"]["uid"]
    assert uid != first["metadata"]["uid"]
    owned = [*world.pods("a"), world.kube.get("services", "a")]
    assert {o["metadata"]["ownerReferences"][0]["uid"] for o in owned} == {uid}
    assert "NameTaken" not in [e["reason"] for e in world.kube.all("events.events.k8s.io")]
    await process.terminate()


async def test_a_gang_that_is_refused_for_long_lets_others_have_its_room(world: World):
    """A quota that lets only half of each gang in must not leave two halves waiting."""
    process = Process(world.kube)
    big = {"replicas": 4, "accelerators": {"resource": "nvidia.com/gpu", "count": 8}}
    quota = Fault("POST", "/pods", ApiError(403, "Forbidden", "exceeded quota"), times=10**6)
    world.kube.put(JOBS, training_job("a", **big))
    await world.until(lambda: len(world.pods("a")) >= 1)
    for pod in world.pods("a")[2:]:
        world.kube.remove("pods", "default", pod["metadata"]["name"])
    world.kube.faults.append(quota)
    await world.until(lambda: "exceeded quota" in world.status("a").get("pendingReason", ""), 300)
    await world.until(lambda: world.pods("a") == [])
    assert "placement" not in world.status("a")
    quota.times = 0
    await world.until(lambda: world.phase("a") == "Running", 300)
    await process.terminate()


async def test_another_namespaces_pod_with_the_jobs_labels_is_none_of_its_pods(world: World):
    process = Process(world.kube)
    world.kube.put(JOBS, training_job("a"))
    await world.until(lambda: world.phase("a") == "Running")
    forged = copy.deepcopy(world.pods("a")[0])
    for key in ("uid", "resourceVersion", "ownerReferences"):
        forged["metadata"].pop(key, None)
    forged["metadata"]["namespace"] = "elsewhere"
    forged["status"] = {"phase": "Failed", "containerStatuses": []}
    world.kube.put("pods", forged)
    await asyncio.sleep(60)
    assert world.phase("a") == "Running"
    assert world.status("a")["restarts"] == []
    await process.terminate()
