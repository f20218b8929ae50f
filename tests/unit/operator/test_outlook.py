"""What waiting jobs are told of their place in the line, and how often."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from support.fake_kube import JOBS, Fault, training_job
from support.operator_world import EPOCH, Process, World, now

pytestmark = pytest.mark.looptime(start=0)
GPUS = {"resource": "nvidia.com/gpu", "count": 8}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    await world.close()


def events(world: World, name: str, reason: str) -> list[str]:
    return [
        event["note"]
        for event in world.kube.all("events.events.k8s.io")
        if event["regarding"]["name"] == name and event["reason"] == reason
    ]


async def test_a_waiting_job_knows_its_position_and_when_room_is_expected(world: World) -> None:
    process = Process(world.kube)
    world.kube.put(JOBS, training_job("a", accelerators=GPUS, activeDeadlineSeconds=1800))
    await world.until(lambda: world.phase("a") == "Running")
    for name in ("b", "c"):
        world.kube.put(JOBS, training_job(name, replicas=4, accelerators=GPUS))
    await world.until(lambda: world.status("c").get("queuePosition") == 2)
    await world.until(lambda: world.status("b").get("expectedStart"))
    status = world.status("b")
    assert status["queuePosition"] == 1
    expected = datetime.fromisoformat(status["expectedStart"]).astimezone(UTC).timestamp()
    assert 1700 < expected - EPOCH - now() < 1801
    assert status["pendingReason"].startswith("needs 4 replicas with 8 nvidia.com/gpu each")
    assert status["pendingReason"].endswith("when default/a ends")
    admitted = next(c for c in status["conditions"] if c["type"] == "Admitted")
    assert "expected" not in admitted["message"], "what changes by itself is no new reason"
    world.kube.remove(JOBS, "default", "a")
    await world.until(lambda: world.phase("b") == "Running")
    assert "queuePosition" not in world.status("b")
    assert "expectedStart" not in world.status("b")
    await world.until(lambda: world.status("c").get("queuePosition") == 1)
    await process.terminate()
    assert len(events(world, "b", "WaitingForRoom")) == 1


async def test_nothing_is_written_again_while_nothing_changes(world: World) -> None:
    process = Process(world.kube)
    world.kube.put(JOBS, training_job("a", accelerators=GPUS, activeDeadlineSeconds=90_000))
    await world.until(lambda: world.phase("a") == "Running")
    world.kube.put(JOBS, training_job("b", replicas=4, accelerators=GPUS))
    await world.until(lambda: world.status("b").get("expectedStart"))
    writes = world.kube.sent("PUT", "trainingjobs")
    await asyncio.sleep(3600)
    assert world.kube.sent("PUT", "trainingjobs") == writes
    await process.terminate()


async def test_a_long_line_is_told_by_and_by_and_holds_up_nobody(world: World) -> None:
    """A place is written although hundreds wait to be told why they have none."""
    process = Process(world.kube)
    for at in range(450):
        world.kube.put(JOBS, training_job(f"w{at:03}", replicas=9 + at, accelerators=GPUS))
    world.kube.faults.append(Fault("PUT", "/w", delay=0.05, times=10_000))
    world.kube.put(JOBS, training_job("fits", accelerators=GPUS))
    await world.until(lambda: world.phase("fits") == "Running", 3)
    await world.until(
        lambda: all(world.status(f"w{at:03}").get("pendingReason") for at in range(450))
    )
    await process.terminate()
