"""Checkpoints in memory: a killed process loses the steps since the last copy, a lost pod hardly more.

With Drakkar's own trainer. Storage is far behind on purpose, so that what is resumed shows whence.
"""

import os
import signal
import struct
import time
from pathlib import Path

import httpx
import pytest

from drakkar_workers.memory.arena import Arena
from integration.agent.test_trainer import make_training, metrics, text

__all__ = ["text"]
pytestmark = pytest.mark.slow

STEPS = 700
FINAL = f"step-{STEPS:08d}"
_UNDISTURBED: list[bytes] = []


def train(make_gang, text: Path, replicas: int, *, every: int, stored: int = 1000, **gang):
    training = make_training(make_gang, text, replicas, steps=STEPS, evalEvery=STEPS)
    update = {"memory_every": every, "checkpoint_every": stored, **gang}
    training.config = training.config.model_copy(update=update)
    return training


def weights(gang) -> bytes:
    return (gang.folder / "checkpoints" / "job" / FINAL / "model.safetensors").read_bytes()


def until_step(gang, epoch: int, count: int) -> None:
    """Wait until an epoch has done so many steps."""
    deadline = time.monotonic() + 120
    while sum(entry["epoch"] == epoch for entry in metrics(gang)) < count:
        assert time.monotonic() < deadline, gang.log()[-4000:]
        time.sleep(0.01)


def resumed(gang, epoch: int) -> int:
    """The step that an epoch went on from."""
    return min(entry["step"] for entry in metrics(gang) if entry["epoch"] == epoch) - 1


def reached(gang, epoch: int) -> int:
    return max(entry["step"] for entry in metrics(gang) if entry["epoch"] == epoch)


@pytest.fixture
def undisturbed(make_gang, text):
    """The weights of a run with the same seed that nothing happens to."""
    if not _UNDISTURBED:
        gang = train(make_gang, text, 2, every=0)
        gang.start_all()
        gang.until(lambda r: r.state == "complete", 120)
        _UNDISTURBED.append(weights(gang))
    return _UNDISTURBED[0]


def test_a_killed_process_loses_no_step_and_the_weights_are_those_of_an_undisturbed_run(
    make_gang, text, undisturbed
):
    gang = train(make_gang, text, 2, every=1)
    gang.start_all()
    for number, rank in enumerate((1, 0, 1)):
        until_step(gang, number + 1, 30)
        os.kill(gang.trainers(rank)[0], signal.SIGKILL)
    gang.until(lambda r: r.state == "complete", 120)
    for epoch in (2, 3, 4):
        # At most the step that was under way, and the one whose copy was.
        assert reached(gang, epoch - 1) - resumed(gang, epoch) <= 1
    assert f"resuming at step {resumed(gang, 2)} from memory" in gang.log()
    assert weights(gang) == undisturbed
    assert gang.exit_codes() == {0: 0, 1: 0}
    assert gang.leftovers() == []


@pytest.mark.parametrize("replica", [0, 1])
def test_a_lost_pod_goes_on_from_its_peers_memory(make_gang, text, undisturbed, replica):
    gang = train(make_gang, text, 2, every=2)
    gang.start_all()
    until_step(gang, 1, 500)
    gang.kill_pod(replica)
    gang.start(replica)
    gang.until(lambda r: r.state == "complete", 120)
    log = gang.log()
    assert f"took rank {replica}'s checkpoint of step" in log
    assert resumed(gang, 2) > 0 and resumed(gang, 2) % 2 == 0
    assert f"resuming at step {resumed(gang, 2)} from memory" in log
    assert weights(gang) == undisturbed


def test_a_damaged_checkpoint_in_memory_gives_way_to_the_one_before(make_gang, text, undisturbed):
    gang = train(make_gang, text, 2, every=5)
    gang.start_all()
    until_step(gang, 1, 60)
    agent, (victim,) = gang.agents[1].pid, gang.trainers(1)
    os.kill(victim, signal.SIGSTOP)
    newest = spoil_newest(agent, "drakkar-rank-1")
    os.kill(victim, signal.SIGKILL)
    gang.until(lambda r: r.state == "complete", 120)
    assert f"the checkpoint of step {newest} in memory is damaged" in gang.log()
    assert resumed(gang, 2) == newest - 5
    assert weights(gang) == undisturbed


def test_storage_is_the_last_source(make_gang, text, undisturbed):
    gang = train(make_gang, text, 2, every=1, stored=20)
    gang.start_all()
    until_step(gang, 1, 60)
    gang.kill_pod(0)
    gang.kill_pod(1)
    gang.start_all()
    gang.until(lambda r: r.state == "complete", 120)
    first = [entry["step"] for entry in metrics(gang) if entry["epoch"] == 1]
    again = next(i for i, step in enumerate(first) if i and step <= first[i - 1])
    assert first[again] % 20 == 1
    assert weights(gang) == undisturbed


def test_memory_is_the_jobs_alone(make_gang, text):
    gang = train(make_gang, text, 1, every=1)
    gang.start_all()
    until_step(gang, 1, 5)
    url = f"http://127.0.0.1:{gang.config.agent_port}/v1/memory/0?epoch=1&step=1"
    assert httpx.get(url).status_code == 403
    wrong = {"Authorization": "Bearer another"}
    assert httpx.put(url, headers=wrong, content=b"x").status_code == 403
    right = {"Authorization": f"Bearer {gang.config.uid}"}
    assert httpx.get(url, headers=right).status_code == 404
    answer = httpx.put(url, headers=right, content=b"x")
    assert answer.status_code == 400 and "Drakkar-Parcel" in answer.json()["message"]


def spoil_newest(pid: int, name: str) -> int:
    """Flip bits in the middle of the newest checkpoint of that memory of a process; its step."""
    for link in Path(f"/proc/{pid}/fd").iterdir():
        if name in str(link.readlink()):
            arena = Arena(os.open(link, os.O_RDWR))
            record = arena.records()[0]
            arena.write(record.slot, struct.pack("<Q", 0xDEAD), record.head_size + 512)
            arena.close()
            return record.key.step
    raise AssertionError(f"process {pid} has no {name}")
