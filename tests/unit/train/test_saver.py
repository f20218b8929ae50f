"""Saving by one rank alone, without a gang."""

import errno
import time

import pytest
import torch

from drakkar_workers.errors import TrainingError
from drakkar_workers.train import report
from drakkar_workers.train.checkpoint import layout
from drakkar_workers.train.checkpoint.layout import Manifest
from drakkar_workers.train.checkpoint.saver import Outcome, Saver
from drakkar_workers.train.trainer import Trainer
from drakkar_workers.train.world import World


def saver(directory, attempt: str) -> Saver:
    layout.claim(directory, attempt)
    world = World(0, 1, torch.device("cpu"), None)
    return Saver(directory, keep=1, attempt=attempt, world=world)


def save(saver: Saver, step: int) -> Outcome:
    manifest = Manifest(
        step=step,
        world_size=1,
        time=2.0,
        started=1.0,
        productive_seconds=0.5,
        recipe={},
        recipe_sha256="",
        model={},
        data_sha256="",
        files={},
    )
    saver.save({"w": torch.ones(2)}, manifest=manifest, own=b"{}")
    outcome = saver.wait()
    assert outcome is not None
    return outcome


def test_an_attempt_that_lost_the_folder_publishes_and_deletes_nothing(tmp_path):
    old = saver(tmp_path, "old")
    assert save(old, 1).folder == tmp_path / "step-00000001"
    new = saver(tmp_path, "new")
    outcome = save(old, 2)
    assert outcome.folder is None and outcome.superseded
    assert layout.published(tmp_path) == [1]
    assert save(new, 2).folder == tmp_path / "step-00000002"
    assert layout.published(tmp_path) == [2]


def test_an_attempt_that_loses_the_folder_while_it_publishes_deletes_nothing(tmp_path, monkeypatch):
    old = saver(tmp_path, "old")
    save(old, 1)
    real = layout.publish

    def publish(temporary, manifest):
        folder = real(temporary, manifest)
        layout.claim(tmp_path, "new")
        return folder

    monkeypatch.setattr(layout, "publish", publish)
    assert save(old, 2).superseded
    assert layout.published(tmp_path) == [2, 1]


def test_an_owner_that_cannot_be_read_costs_the_checkpoint_only(tmp_path, monkeypatch):
    mine = saver(tmp_path, "mine")

    def check(directory, attempt):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(layout, "check_owner", check)
    outcome = save(mine, 1)
    assert outcome.folder is None and not outcome.superseded
    assert outcome.error == "Input/output error"


def test_the_training_ends_with_the_reason():
    trainer = object.__new__(Trainer)
    with pytest.raises(TrainingError, match="belongs to") as caught:
        trainer._note(Outcome(2, None, "it belongs to attempt 'new' now", 0.1, superseded=True))
    assert caught.value.reason == "Superseded"


def test_the_wait_for_a_save_shows_life_but_not_for_ever(tmp_path, monkeypatch):
    pulses = []
    layout.claim(tmp_path, "a")
    world = World(0, 1, torch.device("cpu"), None)
    slow = Saver(
        tmp_path,
        keep=1,
        attempt="a",
        world=world,
        pulse=lambda: pulses.append(time.monotonic()),
        patience=0.6,
    )
    monkeypatch.setattr(slow, "_write", lambda *_arguments: (time.sleep(1.2), None, False))
    began = time.monotonic()
    save(slow, 1)
    assert time.monotonic() - began >= 1.2
    assert len(pulses) >= 2 and pulses[-1] - began < 1.1


def test_a_pulse_repeats_the_phase_once_a_second(monkeypatch):
    sent, now = [], [100.0]
    monkeypatch.setattr(report.channel, "send_phase", lambda **fields: sent.append(fields["phase"]))
    monkeypatch.setattr(report.time, "monotonic", lambda: now[0])
    reporter = report.Reporter(rank=1, epoch=1, total_steps=2, metrics=None)
    reporter.phase("restoring")
    for _ in range(25):
        now[0] += 0.1
        reporter.pulse()
    assert sent == ["restoring"] * 3
