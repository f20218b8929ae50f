"""What a process tells and how it ends when something is wrong."""

import itertools
import json
import os
import socket
import threading
import time
from pathlib import Path

import pytest

from drakkar.exitcodes import ExitCode
from drakkar_workers.train.entry import first_start


class Listener:
    """The agent's end of the channel."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        self._found: list[dict] = []
        # The kernel queues few datagrams, so somebody must listen all the time.
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            self._found.append(json.loads(self._socket.recv(1 << 16)))

    def messages(self, kind: str | None = None) -> list[dict]:
        time.sleep(0.2)
        return [m for m in self._found if kind in (None, m["kind"])]


@pytest.fixture
def listener(tmp_path):
    return Listener(tmp_path / "agent.sock")


def end(lab, listener, code, **arguments):
    running = lab.train(
        1, expect=code, environ={"DRAKKAR_AGENT_SOCKET": listener.path}, **arguments
    )
    (error,) = listener.messages("error")
    assert f"[rank 0] {error['reason']}: {error['message']}" in running.text()
    return error


def test_a_run_tells_its_story(lab, listener):
    lab.train(2, environ={"DRAKKAR_AGENT_SOCKET": listener.path}, steps=12, every=6)
    messages = listener.messages()
    by_kind = {
        kind: [m for m in messages if m["kind"] == kind] for kind in {m["kind"] for m in messages}
    }
    # A phase that takes long is told again.
    told = [m["phase"] for m in by_kind["phase"] if m["rank"] == 0]
    phases = [phase for phase, _ in itertools.groupby(told)]
    assert phases == ["starting", "restoring", "training", "saving", "done"]
    steps = [m for m in by_kind["step"] if m["rank"] == 0]
    assert [m["step"] for m in steps] == list(range(1, 13))
    last = steps[-1]
    assert last["total_steps"] == 12 and last["tokens_per_second"] > 0 and "mfu" not in last
    assert 0 < last["step_seconds"] < last["productive_seconds"] < last["started"]
    assert sorted({m["rank"] for m in by_kind["step"]}) == [0, 1], "every rank's heartbeat"
    assert [m["step"] for m in by_kind["eval"]] == [6, 12]
    assert [m["path"] for m in by_kind["checkpoint"]] == ["job/step-00000006", "job/step-00000012"]
    assert [m["text"][:4] for m in by_kind["sample"]] == ["the "]
    assert "error" not in by_kind


def test_a_bad_setting(lab, listener):
    error = end(lab, listener, ExitCode.CONFIG, stepz=3)
    assert error["message"] == "spec.recipe.config.stepz: no such setting"
    assert error["reason"] == "ConfigError"


def test_an_unknown_text(lab, listener):
    error = end(lab, listener, ExitCode.CONFIG, data={"source": "bibel"})
    assert "known: bible-kjv" in error["message"]


def test_an_unwritable_checkpoint_folder(lab, listener):
    lab.volume.write_text("a file where the volume should be")
    error = end(lab, listener, ExitCode.CONFIG)
    assert str(lab.checkpoints) in error["message"] and f"uid {os.getuid()}" in error["message"]


def test_a_missing_checkpoint_to_start_from(lab, listener):
    error = end(lab, listener, ExitCode.CONFIG, restore_from="none/step-00000001")
    assert "none/step-00000001: no checkpoint there" in error["message"]


def test_a_checkpoint_of_another_model(lab, listener):
    lab.train(1)
    error = end(
        lab, listener, ExitCode.CONFIG, model={"layers": 3, "hidden": 32, "heads": 4, "kvHeads": 2}
    )
    assert "is of another model: layers is 2 there and 3 here" in error["message"]


def test_a_loss_that_is_no_number(lab, listener):
    error = end(
        lab,
        listener,
        ExitCode.CRASHED,
        learningRate=10,
        minLearningRate=10,
        warmupSteps=0,
        clipNorm=1e30,
        weightDecay=10,
        precision="fp32",
        steps=500,
        evalEvery=500,
    )
    assert error["reason"] == "NonFiniteLoss"
    assert error["message"].startswith("step ") and "learningRate" in error["message"]


def test_two_nodes_with_different_texts(lab, words, tmp_path):
    """Ranks whose nodes hold different versions of a data set must not train together."""
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
        (folder / "bible-kjv.txt").write_text(words.read_text() + folder.name + "\n")
    running = lab.start(
        2,
        data={"source": "bible-kjv"},
        environ_of_rank=[{"DRAKKAR_DATA_DIR": str(folder)} for folder in folders],
    )
    assert running.wait() == [ExitCode.CONFIG] * 2
    assert "rank 1 has other tokens than rank 0" in running.text()


def test_the_first_start_is_remembered(tmp_path):
    assert first_start(tmp_path, 100.0) == 100.0
    assert first_start(tmp_path, 200.0) == 100.0
    (tmp_path / "run.json").write_text("{")
    assert first_start(tmp_path, 300.0) == 300.0
