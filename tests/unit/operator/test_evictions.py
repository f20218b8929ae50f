"""Gangs that give up their places to others, through the whole operator in virtual time."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from support.fake_kube import JOBS, Object, node, training_job
from support.operator_world import EPOCH, Process, World, now

pytestmark = pytest.mark.looptime(start=0)

WHOLE_NODE = {"accelerators": {"resource": "nvidia.com/gpu", "count": 8}}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World(nodes=0)
    yield world
    await world.close()
    assert world.kubelet.doubles == []


def placed_on(world: World, name: str) -> list[str]:
    """The nodes of a job's place."""
    nodes: list[str] = (world.status(name).get("placement") or {}).get("nodes", [])
    return nodes


def save(world: World, name: str) -> None:
    """A checkpoint of the job is published now, as its coordinator would report."""
    time = datetime.fromtimestamp(EPOCH + now(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def change(job: Object) -> None:
        job["status"]["checkpoints"] = [{"step": 5, "path": f"{name}/step-5", "time": time}]

    world.kube.edit(JOBS, "default", name, change)


async def test_a_gang_is_moved_so_that_another_gets_a_whole_rack(world: World) -> None:
    rack = "topology.drakkar.dev/rack"
    for at in range(6):
        world.kube.put("nodes", node(f"n{at}", **{rack: f"r{at // 2}"}))
    process = Process(world.kube)
    for at in range(6):
        world.kube.put(JOBS, training_job(f"g{at}", replicas=1, **WHOLE_NODE))
        await world.until(lambda name=f"g{at}": world.phase(name) == "Running")
    home = {placed_on(world, f"g{at}")[0]: f"g{at}" for at in range(6)}
    for at in (0, 2, 4):
        world.kube.remove(JOBS, "default", home[f"n{at}"])
    left = [home[f"n{at}"] for at in (1, 3, 5)]
    await asyncio.sleep(700)
    for name in left:
        save(world, name)
    world.kube.put(JOBS, training_job("wide", topology={"required": "rack"}, **WHOLE_NODE))
    await world.until(lambda: world.phase("wide") == "Running", 30)
    moved = [name for name in left if world.status(name).get("restarts")]
    assert len(moved) == 1
    (record,) = world.status(moved[0])["restarts"]
    assert (record["reason"], record["counted"]) == ("Moved", False)
    assert "default/wide" in record["message"]
    await world.until(lambda: world.phase(moved[0]) == "Running", 30)
    places = [placed_on(world, name) for name in (*left, "wide")]
    assert len({each for nodes in places for each in nodes}) == 5
    assert world.status(moved[0])["restartCount"] == 0
    await process.terminate()


RACK = "topology.drakkar.dev/rack"
TOGETHER = {"topology": {"required": "rack"}, **WHOLE_NODE}


def lose(world: World, name: str) -> None:
    """A node stops to answer."""
    world.kube.edit(
        "nodes",
        None,
        name,
        lambda raw: raw["status"].update(conditions=[{"type": "Ready", "status": "False"}]),
    )


def spares_of(world: World, name: str) -> list[str]:
    nodes: list[str] = (world.status(name).get("placement") or {}).get("spares", [])
    return nodes


async def test_lost_nodes_are_replaced_by_spares_that_nobody_else_gets(world: World) -> None:
    for at in range(5):
        world.kube.put("nodes", node(f"n{at}", **{RACK: "r0"}))
    process = Process(world.kube)
    world.kube.put(JOBS, training_job("a", replicas=3, faultTolerance={"spares": 2}, **TOGETHER))
    await world.until(lambda: world.phase("a") == "Running")
    assert len(spares_of(world, "a")) == 2
    world.kube.put(JOBS, training_job("b", replicas=1, **WHOLE_NODE))
    await world.until(lambda: world.status("b").get("pendingReason"))
    before = placed_on(world, "a")
    for name in before[:2]:
        lose(world, name)
    await world.until(lambda: world.phase("a") == "Running" and placed_on(world, "a") != before, 30)
    assert placed_on(world, "a")[2] == before[2]
    assert spares_of(world, "a") == []
    assert {p["spec"]["nodeName"] for p in world.pods("a")} == set(placed_on(world, "a"))
    assert world.phase("b") == "Pending"
    # Nobody waits and nodes come back: the spares are filled up again.
    world.kube.remove(JOBS, "default", "b")
    for at in (5, 6):
        world.kube.put("nodes", node(f"n{at}", **{RACK: "r0"}))
    await world.until(lambda: len(spares_of(world, "a")) == 2, 60)
    assert world.phase("a") == "Running"
    world.kube.edit(JOBS, "default", "a", lambda j: j["spec"]["faultTolerance"].update(spares=0))
    await world.until(lambda: spares_of(world, "a") == [], 30)
    world.kube.put(JOBS, training_job("c", replicas=2, **WHOLE_NODE))
    await world.until(lambda: world.phase("c") == "Running", 30)
    await process.terminate()


async def test_a_gang_whose_rack_has_no_room_for_a_repair_goes_to_another_as_a_whole(
    world: World,
) -> None:
    for at in range(6):
        world.kube.put("nodes", node(f"n{at}", **{RACK: f"r{at // 3}"}))
    process = Process(world.kube)
    world.kube.put(JOBS, training_job("a", replicas=3, **TOGETHER))
    await world.until(lambda: world.phase("a") == "Running")
    before = placed_on(world, "a")
    lose(world, before[0])
    await world.until(lambda: world.phase("a") == "Running" and placed_on(world, "a") != before, 60)
    assert not set(before) & set(placed_on(world, "a"))
    assert "GangReleased" not in [e["reason"] for e in world.kube.all("events.events.k8s.io")]
    await process.terminate()


async def test_a_second_failure_while_room_for_the_first_is_made_costs_the_gang_nothing_more(
    world: World,
) -> None:
    """kueue#14244; the room comes from gangs of a lower priority, one after the other."""
    world.kubelet.leave_seconds = 20.0
    for at in range(6):
        world.kube.put("nodes", node(f"n{at}"))
    body = {"metadata": {"name": "high"}, "value": 100}
    world.kube.put("priorityclasses.scheduling.k8s.io", body)
    process = Process(world.kube)
    world.kube.put(JOBS, training_job("a", replicas=4, priorityClassName="high", **WHOLE_NODE))
    await world.until(lambda: world.phase("a") == "Running")
    for name in ("v", "w"):
        world.kube.put(JOBS, training_job(name, replicas=1, **WHOLE_NODE))
        await world.until(lambda name=name: world.phase(name) == "Running")
    await asyncio.sleep(100)
    first, second, *stay = placed_on(world, "a")
    lose(world, first)
    await world.until(lambda: "Pending" in (world.phase("v"), world.phase("w")), 30)
    lose(world, second)
    await world.until(lambda: world.phase("a") == "Running" and first not in placed_on(world, "a"))
    assert placed_on(world, "a")[2:] == stay
    assert [world.status(name)["restarts"][0]["reason"] for name in "vw"] == ["Preempted"] * 2
    assert "GangReleased" not in [e["reason"] for e in world.kube.all("events.events.k8s.io")]
    assert world.kubelet.crowded == []
    await process.terminate()
