"""Real runs on a text of which a part is noise: what is passed over, and what is gone back for."""

import json
import random

import pytest

from drakkar.exitcodes import ExitCode
from drakkar_workers.train.checkpoint import layout

STEPS = 150
NOISE = 6_000
"""Bytes in the middle of the text that nobody can learn."""


@pytest.fixture
def noisy(lab):
    """The lab, whose text has a tenth of noise."""
    text = lab.text.read_text()
    rng = random.Random(3)
    noise = "".join(chr(rng.randrange(33, 127)) for _ in range(NOISE))
    lab.text = lab.folder / "noisy.txt"
    lab.text.write_text(text[: len(text) // 2] + noise + text[len(text) // 2 :])
    lab.cache = lab.folder / "cache"
    return lab


def settings(**guard):
    return {
        "steps": STEPS,
        "every": 10,
        "batchSize": 2,
        "sequenceLength": 64,
        "learningRate": 0.01,
        "minLearningRate": 0.01,
        "evalEvery": 1000,
        "guard": {"sigmas": 6, **guard},
    }


def anomalies(lab) -> list[dict]:
    lines = (lab.checkpoints / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if "anomaly" in row]


def manifest(lab) -> layout.Manifest:
    return layout.read_manifest(lab.checkpoints / layout.folder_name(STEPS))


def test_batches_of_noise_are_passed_over(noisy):
    noisy.train(2, **settings(spike="pass"))
    found = anomalies(noisy)
    assert found and {row["anomaly"] for row in found} == {"LossSpike"}
    passed = [row for row in found if row["act"] == "pass over"]
    assert manifest(noisy).passed_over == len(passed) > 0
    assert list(noisy.metrics()) == list(range(1, STEPS + 1)), "as many steps are made all the same"


def test_by_default_they_are_told_and_used(noisy):
    running = noisy.train(1, **settings())
    assert {row["act"] for row in anomalies(noisy)} == {"tell"}
    assert manifest(noisy).passed_over == 0
    assert "the batch is used" in running.text()


def test_the_training_goes_back_and_past_what_was_wrong(noisy):
    """Two in a row are too many here; each attempt goes on after the batches of those before."""
    given, went_back = settings(spike="pass", inARow=1), 0
    for _ in range(12):
        running = noisy.start(1, **given)
        (code,) = running.wait()
        if code == 0:
            break
        assert code == ExitCode.CRASHED
        assert "LossSpike" in running.text() and "going back" in running.text()
        went_back += 1
        first = layout.read_position(noisy.checkpoints)
        assert first > 0
    else:
        pytest.fail("no end of going back")
    assert went_back, "the text has noise enough for two in a row"
    assert manifest(noisy).passed_over > 0
    assert list(noisy.metrics())[-1] == STEPS


def test_replayed_steps_change_nothing(lab, tmp_path):
    """A healthy processor raises no alarm, and the weights are those of a run without the check."""
    given = {"steps": 20, "every": 20, "batchSize": 4}
    lab.train(2, into=tmp_path / "volume" / "plain", **given)
    lab.train(2, **given, guard={"replayEvery": 3})
    plain, replayed = (
        (folder / "step-00000020" / "model.safetensors").read_bytes()
        for folder in (tmp_path / "volume" / "plain", lab.checkpoints)
    )
    assert plain == replayed
