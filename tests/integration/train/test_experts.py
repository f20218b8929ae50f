"""Experts that ranks share learn what those of one process learn."""

import json

import pytest
from safetensors.torch import load_file

EXPERTS = {"count": 4, "active": 2, "hidden": 16, "denseLayers": 1, "balanceRate": 0.01}
MODEL = {"layers": 3, "hidden": 32, "heads": 4, "kvHeads": 2, "experts": EXPERTS}
STEPS = {"model": MODEL, "steps": 4, "evalEvery": 4, "precision": "fp32", "sampleTokens": 4}
MESHES = {
    "expert-context": (4, {"shard": 2, "expert": 2, "context": 2, "recompute": "full"}),
    "expert-tensor": (4, {"shard": 2, "expert": 2, "tensor": 2}),
}


def rows(folder, *keys) -> list[float]:
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row[key] for key in keys for row in found if key in row]


@pytest.mark.parametrize("mesh", MESHES)
def test_losses_are_those_of_one_process(mesh, lab):
    world, parallel = MESHES[mesh]
    lab.train(1, into=lab.volume / "one", **STEPS)
    lab.train(world, parallel=parallel, gradientAccumulation=2, **STEPS)
    for keys in (("loss", "eval_loss"), ("expert_excess",)):
        expected = rows(lab.volume / "one", *keys)
        assert expected
        assert rows(lab.checkpoints, *keys) == pytest.approx(expected, rel=1e-5)


def test_a_checkpoint_loads_whatever_the_number_of_ranks_that_share_experts(lab):
    level = {**STEPS, "learningRate": 0.01, "minLearningRate": 0.01}
    lab.train(1, into=lab.volume / "one", **{**level, "steps": 12})
    meshes = [(4, {"shard": 0, "expert": 4}), (2, {"shard": 2, "expert": 2}), (1, {})]
    for number, (world, parallel) in enumerate(meshes, start=1):
        running = lab.train(world, parallel=parallel, **{**level, "steps": 4 * number})
        if number > 1:
            assert f"resuming at step {4 * number - 4} " in running.text()
    # The last bits of two sums may send a token to another expert.
    expected = rows(lab.volume / "one", "loss")[:12]
    assert rows(lab.checkpoints, "loss") == pytest.approx(expected, rel=1e-3)
    exported = load_file(lab.checkpoints / "step-00000012" / "model.safetensors")
    bias = exported["model.layers.1.mlp.gate.e_score_correction_bias"]
    assert bias.abs().max() == pytest.approx(0.12, abs=0.05)
    assert exported["model.layers.2.mlp.experts.3.up_proj.weight"].shape == (16, 32)
