"""Every mesh learns what one process learns."""

import json

import pytest
from safetensors.torch import load_file

STEPS = {"steps": 4, "evalEvery": 4, "precision": "fp32", "sampleTokens": 4}
MESHES = {
    "fsdp": (2, {"shard": 0, "recompute": "selective"}),
    "tensor-in-replicas": (4, {"tensor": 2}),
    "fsdp-tensor": (4, {"shard": 2, "tensor": 2}),
    "hsdp": (4, {"shard": 2}),
    "fsdp-context": (4, {"shard": 2, "context": 2, "recompute": "full"}),
}


def losses(folder) -> list[float]:
    """Of all steps, and of the evaluation."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row[key] for key in ("loss", "eval_loss") for row in rows if key in row]


@pytest.mark.parametrize("mesh", MESHES)
def test_losses_are_those_of_one_process(mesh, lab):
    world, parallel = MESHES[mesh]
    lab.train(1, into=lab.volume / "one", **STEPS)
    lab.train(world, parallel=parallel, gradientAccumulation=2, **STEPS)
    assert losses(lab.checkpoints) == pytest.approx(losses(lab.volume / "one"), rel=1e-5)


def test_a_checkpoint_loads_on_any_mesh(lab):
    level = {**STEPS, "learningRate": 0.01, "minLearningRate": 0.01}
    lab.train(1, into=lab.volume / "one", **{**level, "steps": 16})
    meshes = [(4, {"shard": 2, "tensor": 2}), (2, {"tensor": 2}), (1, {}), (2, {"shard": 0})]
    for number, (world, parallel) in enumerate(meshes, start=1):
        running = lab.train(world, parallel=parallel, **{**level, "steps": 4 * number})
        if number > 1:
            assert f"resuming at step {4 * number - 4} " in running.text()
    rows = [json.loads(line) for line in (lab.checkpoints / "metrics.jsonl").open()]
    found = [row["loss"] for row in rows if "loss" in row]
    assert found == pytest.approx(losses(lab.volume / "one")[:16], rel=1e-4)
    exported = load_file(lab.checkpoints / "step-00000016" / "model.safetensors")
    expected = load_file(lab.volume / "one" / "step-00000016" / "model.safetensors")
    assert {k: v.shape for k, v in exported.items()} == {k: v.shape for k, v in expected.items()}


def test_bf16_is_close(lab):
    """Weights are gathered in bf16 there, and each rank multiplies in it."""
    lab.train(1, into=lab.volume / "one", **STEPS)
    lab.train(4, parallel={"shard": 2, "tensor": 2}, **{**STEPS, "precision": "bf16"})
    assert losses(lab.checkpoints) == pytest.approx(losses(lab.volume / "one"), rel=0.02)
