"""A script that isn't ours: it resumes from memory in place, from a peer's, and from storage."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name("own_script.py")
STEPS = 300


def script(make_gang, *, every: int, stored: int, replicas: int = 2):
    gang = make_gang(replicas, memory_every=every, checkpoint_every=stored)
    root = gang.folder / "volume"
    root.mkdir()
    update = {"checkpoint_dir": str(root / "job"), "checkpoint_root": str(root)}
    gang.config = gang.config.model_copy(update=update)
    gang.command = [sys.executable, str(SCRIPT)]
    gang.env |= {"OWN_STEPS": str(STEPS), "DRAKKAR_WARM": "1", "DRAKKAR_PEER_TIMEOUT_SECONDS": "5"}
    return gang


def until_step(gang, epoch: int, count: int) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            done = [entry for entry in gang.history() if entry["epoch"] == str(epoch)]
        except (FileNotFoundError, ValueError):
            done = []
        if len(done) >= count:
            return
        assert time.monotonic() < deadline, gang.log()[-4000:]
        time.sleep(0.01)


def first_and_last(gang, epoch: int) -> tuple[int, int]:
    steps = [entry["step"] for entry in gang.history() if entry["epoch"] == str(epoch)]
    return steps[0], steps[-1]


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    """Filled by the first test, which nothing happens to."""
    return {}


def final(gang) -> dict[str, torch.Tensor]:
    return torch.load(gang.folder / "final.pt", weights_only=True)


def test_undisturbed(make_gang, weights):
    gang = script(make_gang, every=0, stored=1000)
    gang.start_all()
    report = gang.until(lambda r: r.state == "complete", 120)
    weights.update(final(gang))
    assert report.checkpoints[-1].path == f"job/step-{STEPS:08d}"


def test_killed_and_lost(make_gang, weights):
    gang = script(make_gang, every=1, stored=1000)
    gang.start_all()
    until_step(gang, 1, 40)
    os.kill(gang.trainers(1)[0], signal.SIGKILL)
    until_step(gang, 2, 130)  # More than two copies to the peer are apart.
    assert first_and_last(gang, 1)[1] - (first_and_last(gang, 2)[0] - 1) <= 1
    gang.kill_pod(1)
    gang.start(1)
    until_step(gang, 3, 1)
    assert "took rank 1's checkpoint of step" in gang.log()
    assert first_and_last(gang, 3)[0] > first_and_last(gang, 2)[0]
    report = gang.until(lambda r: r.state == "complete", 120)
    assert gang.exit_codes() == {0: 0, 1: 0}
    assert report.ledger is not None and report.ledger.productive_seconds > 0
    if weights:
        assert all(torch.equal(value, weights[name]) for name, value in final(gang).items())
    assert gang.leftovers() == []


def test_from_storage(make_gang, weights):
    gang = script(make_gang, every=0, stored=20)
    gang.start_all()
    until_step(gang, 1, 70)
    os.kill(gang.trainers(0)[0], signal.SIGKILL)
    gang.until(lambda r: r.state == "complete", 120)
    assert first_and_last(gang, 2)[0] % 20 == 1 and first_and_last(gang, 2)[0] > 20
    if weights:
        assert all(torch.equal(value, weights[name]) for name, value in final(gang).items())
