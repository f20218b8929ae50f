"""Whole runs by real processes: faults, signals, resumes."""

import json
import signal
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from drakkar.exitcodes import ExitCode
from drakkar_workers.train.checkpoint import layout


def weights(folder: Path) -> dict[str, bytes]:
    return {
        name: value.tobytes() for name, value in load_file(folder / "model.safetensors").items()
    }


@pytest.mark.parametrize("world", [1, 2, 4])
def test_training_beats_counting_tokens(lab, world):
    running = lab.train(world, steps=150, every=20)
    held_out = lab.metrics("eval_loss")[150]
    assert held_out < next(iter(lab.metrics("unigram_loss").values())) - 0.5
    assert sorted(lab.metrics()) == list(range(1, 151))
    assert layout.published(lab.checkpoints) == [150, 140, 120]
    assert "sample: the " in running.text()


def test_the_world_size_does_not_change_what_is_learned(lab):
    """Loss and gradient are means over all ranks' tokens, however they are spread."""
    losses = []
    for world, micros in ((1, 1), (2, 1), (1, 4), (2, 2), (4, 2)):
        into = lab.volume / f"w{world}m{micros}"
        lab.train(world, gradientAccumulation=micros, precision="fp32", into=into)
        rows = [json.loads(line) for line in (into / "metrics.jsonl").read_text().splitlines()]
        losses.append([row["loss"] for row in rows if "loss" in row])
    for other in losses[1:]:
        assert other == pytest.approx(losses[0], rel=2e-5)


@pytest.mark.parametrize("world", [1, 2, 4])
def test_resume_is_exact(lab, world):
    """N + N steps with a stop between equal 2N steps, bit for bit."""
    whole, halves = lab.volume / "whole", lab.checkpoints
    lab.train(world, into=whole, every=100)
    first = lab.start(world, every=6)
    first.until((halves / "step-00000006").is_dir)
    first.kill()
    first.wait()
    second = lab.train(world, every=6)
    assert "resuming at step 6" in second.text()
    assert weights(halves / "step-00000012") == weights(whole / "step-00000012")
    tensors = [path.name for path in whole.glob("step-00000012/*.distcp")]
    assert len(tensors) == world
    for name in tensors:
        one, other = (folder / "step-00000012" / name for folder in (whole, halves))
        assert one.read_bytes() == other.read_bytes(), "moments of the optimizer"


def test_resume_on_another_number_of_ranks(lab):
    lab.train(4, steps=12, every=6, warmupSteps=2)
    at_12 = lab.metrics("eval_loss")[12]
    for world, steps in ((2, 18), (1, 24), (4, 30)):
        running = lab.train(world, steps=steps, every=6)
        assert f"resuming at step {steps - 6}" in running.text()
    assert sorted(lab.metrics()) == list(range(1, 31))
    assert lab.metrics("eval_loss")[30] < at_12


def test_a_killed_rank_takes_its_peers_along_and_the_gang_resumes(lab):
    running = lab.start(2, steps=400, every=5)
    running.until((lab.checkpoints / "step-00000010").is_dir)
    running.kill(rank=1)
    assert running.wait(20) == [ExitCode.CRASHED, -signal.SIGKILL]
    assert "PeerLost" in running.text(0)
    lost = max(lab.metrics())
    newest = layout.published(lab.checkpoints)[0]
    assert lost - newest <= 2 * 5
    again = lab.train(2, steps=newest + 5, every=5)
    assert f"resuming at step {newest} " in again.text()
    assert min(lab.metrics(epoch=2)) == newest + 1


def test_a_damaged_checkpoint_gives_way_to_the_one_before(lab):
    lab.train(2, steps=12, every=3)
    newest = lab.checkpoints / "step-00000012"
    victim = next(newest.glob("__1_*.distcp"))
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    running = lab.train(2, steps=12, every=3)
    log = "".join(running.text(rank) for rank in range(2))
    assert f"checkpoint {newest} is damaged ({victim.name} has CRC-32" in log
    assert "resuming at step 9 " in running.text()
    assert layout.published(lab.checkpoints) == [12, 9, 6]
    assert [path.name for path in lab.checkpoints.glob(".corrupt-*")] == [".corrupt-step-00000012"]


def test_sigterm_on_one_rank_saves_and_leaves_on_all(lab):
    running = lab.start(2, steps=100_000, every=100_000)
    running.until(lambda: "step 1/" in running.text())
    running.kill(signal.SIGTERM, rank=1)
    assert running.wait(20) == [ExitCode.CHECKPOINTED] * 2
    (step,) = layout.published(lab.checkpoints)
    assert step == max(lab.metrics())
    again = lab.train(2, steps=step + 2)
    assert f"resuming at step {step} " in again.text()


def test_sigusr1_saves_and_goes_on(lab):
    running = lab.start(2, steps=100_000, every=100_000)
    running.until(lambda: "step 1/" in running.text())
    running.kill(signal.SIGUSR1, rank=1)
    running.until(lambda: bool(layout.published(lab.checkpoints)))
    (step,) = layout.published(lab.checkpoints)
    running.until(lambda: max(lab.metrics()) > step + 3)
    assert running.wait(0) == [None, None]


def test_a_full_disk_costs_checkpoints_not_the_training(lab):
    """RLIMIT_FSIZE below the size of a checkpoint's tensors, above that of the small files."""
    running = lab.start(2, steps=30, every=10, file_limit=60_000)
    assert running.wait() == [ExitCode.CRASHED] * 2, "the last state could not be kept"
    assert max(lab.metrics()) == 30
    assert "checkpoint of step 10 failed: rank " in running.text()
    assert "File too large" in running.text()
    assert "checkpoint of step 20 failed" in running.text()
    assert "CheckpointFailed: step 30 could not be saved" in running.text()
    assert list(lab.checkpoints.glob(".tmp*")) == []
    lab.train(2, steps=30, every=10)
    assert layout.published(lab.checkpoints) == [30, 20, 10]


def test_a_finished_job_has_nothing_left_to_do(lab):
    lab.train(1)
    before = weights(lab.checkpoints / "step-00000012")
    running = lab.train(1)
    assert "resuming at step 12" in running.text() and "sample:" in running.text()
    assert weights(lab.checkpoints / "step-00000012") == before


def test_a_job_starts_from_the_checkpoint_of_another(lab):
    lab.train(2, into=lab.volume / "teacher")
    lab.train(1, steps=14, restore_from="teacher/step-00000012")
    assert sorted(lab.metrics()) == [13, 14]
    lab.train(1, steps=16, restore_from="teacher/step-00000012")
    assert sorted(lab.metrics()) == [13, 14, 15, 16], "its own checkpoint goes first"


def test_a_second_start_sweeps_what_the_first_left(lab):
    stale = lab.checkpoints / ".tmp-step-00000003-dead"
    stale.mkdir(parents=True)
    (stale / "half").write_text("x")
    lab.train(1, steps=3, every=3)
    assert list(lab.checkpoints.glob(".tmp*")) == []


def test_productive_time_of_lost_steps_is_not_counted(lab):
    first = lab.start(1, steps=500, every=20)
    first.until(lambda: (lab.checkpoints / "step-00000020").is_dir())
    first.kill()
    first.wait()
    newest = layout.published(lab.checkpoints)[0]
    then = layout.read_manifest(lab.checkpoints / layout.folder_name(newest))
    lab.train(1, steps=newest + 1, every=20)
    now = layout.read_manifest(lab.checkpoints / layout.folder_name(newest + 1))
    assert now.started == then.started
    assert then.productive_seconds < now.productive_seconds
    assert now.productive_seconds < now.time - now.started
