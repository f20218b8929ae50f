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
