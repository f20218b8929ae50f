"""Jobs of all sizes and priorities come at random, nodes fail, operators die: all ends well."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from drakkar.kube.rest import ApiError
from support.fake_kube import JOBS, Fault, lost_connection, node, training_job
from support.operator_world import Process, World, now

pytestmark = pytest.mark.looptime(start=0)

PRIORITIES = {"low": 0, "middle": 10, "high": 100}
LEAVE_SECONDS = 3.0
"""How long a pod takes to save its state and go."""
RACK = "topology.drakkar.dev/rack"


class Storm:
    """Jobs that train for a while when they run, and keep what they have done."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self.world = world
        self.rng = rng
        self.left: dict[str, float] = {}
        self.priority: dict[str, int] = {}

    def submit(self, name: str) -> None:
        """A job of random size."""
        rng = self.rng
        level = rng.choice([None, None, "rack"])
        chosen = rng.choice(list(PRIORITIES))
        self.left[name] = rng.choice([20.0, 100.0, 300.0])
        self.priority[name] = PRIORITIES[chosen]
        self.world.kube.put(
            JOBS,
            training_job(
                name,
                replicas=rng.choice([1, 1, 2, 3] if level else [1, 2, 4, 6]),
                accelerators={"resource": "nvidia.com/gpu", "count": rng.choice([2, 4, 8])},
                priorityClassName=chosen,
                **({"topology": {"required": level}} if level else {}),
            ),
        )

    async def train(self) -> None:
        """Time passes for those that run; those that are done end."""
        while True:
            await asyncio.sleep(1)
            for name, left in self.left.items():
                if self.world.phase(name) != "Running":
                    continue
                self.left[name] = left - 1
                if left <= 0:
                    for pod in self.world.pods(name):
                        if "deletionTimestamp" not in pod["metadata"]:
                            self.world.kubelet.end("default", pod["metadata"]["name"], 0)

    def done(self) -> bool:
        """Every job is complete."""
        return all(self.world.phase(name) == "Complete" for name in self.left)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World(nodes=0)
    for at in range(6):
        world.kube.put("nodes", node(f"n{at}", **{RACK: f"r{at // 3}"}))
    for name, value in PRIORITIES.items():
        body = {"metadata": {"name": name}, "value": value}
        world.kube.put("priorityclasses.scheduling.k8s.io", body)
    world.kubelet.leave_seconds = LEAVE_SECONDS
    yield world
    await world.close()
    assert world.kubelet.doubles == []
    assert world.kubelet.crowded == []


@pytest.mark.parametrize("seed", range(3))
async def test_everybody_has_a_turn_and_no_room_is_given_twice(world: World, seed: int) -> None:
    rng = random.Random(seed)
    storm = Storm(world, rng)
    training = asyncio.create_task(storm.train())
    process = Process(world.kube, lease_seconds=3.0)
    errors = [lost_connection(), ApiError(500, "E", "")]
    for turn in range(16):
        storm.submit(f"j{turn}")
        await asyncio.sleep(rng.choice([0.1, 5.0, 60.0]))
        if rng.random() < 0.4:
            verb = rng.choice(["POST", "PUT", "PATCH", "DELETE"])
            fault = Fault(verb, "", rng.choice(errors), times=2, after=rng.random() < 0.5)
            world.kube.faults.append(fault)
        if rng.random() < 0.4:
            await process.kill()
            process = Process(world.kube, lease_seconds=3.0)
    world.kube.faults.clear()
    await world.until(storm.done, 6000, every=5.0)
    training.cancel()
    await process.terminate()
    evicted = Counter(name for name in storm.left for _ in world.status(name).get("restarts", []))
    assert all(storm.priority[name] < 100 for name in evicted), "nobody outranks the highest"
    assert max(evicted.values(), default=0) <= 8, evicted
    assert now() < 6000
