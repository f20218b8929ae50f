"""The agent with Drakkar's own trainer: forked warm, killed, resumed."""

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

WORDS = ("the", "of", "and", "to", "in", "that", "it", "is", "was", "for", "on", "are", "as")


@pytest.fixture
def text(tmp_path: Path) -> Path:
    rng = random.Random(7)
    path = tmp_path / "text.txt"
    path.write_text(" ".join(rng.choice(WORDS) for _ in range(40_000)))
    return path


def make_training(make_gang, text: Path, replicas: int, **settings):
    gang = make_gang(
        replicas,
        recipe="pretrain",
        recipe_config={
            "model": {"layers": 2, "hidden": 64, "heads": 2},
            "data": {"source": str(text)},
            "steps": 120,
            "sequenceLength": 64,
            "batchSize": 8,
            "evalEvery": 60,
            "evalBatches": 2,
            "sampleTokens": 16,
        }
        | settings,
        checkpoint_every=20,
    )
    checkpoints = gang.folder / "checkpoints"
    checkpoints.mkdir()
    gang.config = gang.config.model_copy(
        update={"checkpoint_dir": str(checkpoints / "job"), "checkpoint_root": str(checkpoints)}
    )
    gang.env["DRAKKAR_CACHE"] = str(gang.folder / "cache")
    gang.env["DRAKKAR_PEER_TIMEOUT_SECONDS"] = "5"
    return gang


def metrics(gang) -> list[dict]:
    path = gang.folder / "checkpoints" / "job" / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [entry for entry in map(json.loads, lines) if "loss" in entry]


def test_killed_trainer_resumes(make_gang, text):
    gang = make_training(make_gang, text, 2)
    gang.start_all()
    gang.at_step(50, 120)
    (victim,) = gang.trainers(1)
    os.kill(victim, signal.SIGKILL)
    killed = time.time()
    report = gang.until(lambda r: r.state == "complete", 120)
    assert gang.exit_codes() == {0: 0, 1: 0}
    (restart,) = report.restarts
    assert (restart.reason, restart.replica) == ("ProcessKilled", 1)
    assert report.progress.step == 120
    assert report.checkpoints[-1].step == 120
    steps = [entry for entry in metrics(gang) if entry["epoch"] == 2]
    assert steps[0]["step"] <= 61 and steps[0]["step"] % 20 == 1
    milliseconds = 1000 * (steps[0]["time"] - killed)
    print(f"killed -> next step: {milliseconds:.0f} ms")
    assert gang.leftovers() == []


def test_bad_setting_ends_the_gang(make_gang, text):
    gang = make_training(make_gang, text, 2, batchSize=7)
    gang.start_all()
    assert gang.exit_codes(120) == {0: 78, 1: 78}
    assert "batchSize (7)" in gang.termination(1)["message"]


def test_terminated_pod_saves_in_the_middle(make_gang, text):
    gang = make_training(make_gang, text, 2)
    gang.start_all()
    gang.at_step(30, 120)
    gang.agents[1].send_signal(signal.SIGTERM)
    assert gang.agents[1].wait(20) == 75
    gang.start(1)
    report = gang.until(lambda r: r.state == "complete", 120)
    assert gang.exit_codes() == {0: 0, 1: 0}
    assert report.restarts == []
    steps = [entry["step"] for entry in metrics(gang)]
    assert steps == list(range(1, 121))
