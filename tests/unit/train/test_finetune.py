"""What fine-tuning gives the loop, and what it leaves behind."""

import json

import pytest
import torch
from safetensors.torch import load_file

from drakkar.v1alpha1.recipes import LoraConfig, SftConfig
from drakkar_workers.errors import ConfigError
from drakkar_workers.train.models.decoder import IGNORE
from drakkar_workers.train.recipes.finetune import Finetune
from drakkar_workers.train.recipes.task import Share
from support.tiny_models import save_tiny

CPU = torch.device("cpu")


@pytest.fixture
def task(tmp_path):
    (tmp_path / "model").mkdir()
    save_tiny("llama", tmp_path / "model")
    lines = [
        {"prompt": "say " + "x" * number, "completion": "y" * (number % 7 + 1)}
        for number in range(23)
    ]
    (tmp_path / "data.jsonl").write_text("\n".join(json.dumps(line) for line in lines))

    def make(kind=SftConfig, **settings):
        config = kind(
            model={"path": str(tmp_path / "model")},
            data={"path": str(tmp_path / "data.jsonl"), "heldOut": 0.2},
            **{"batch_size": 8, "sequence_length": 64, "warmup_steps": 1, **settings},
        )
        return Finetune(config)

    return make


def learned(batches) -> int:
    return sum(int((targets != IGNORE).sum()) for _, targets in batches)


@pytest.mark.parametrize(("ranks", "micros"), [(1, 1), (2, 1), (2, 2), (4, 2)])
def test_ranks_share_a_step_whatever_their_number(task, ranks, micros):
    found = task()
    for step in (0, 1, 5):
        parts = [
            found.batch(step, Share(rank, ranks, CPU), micro, micros)
            for rank in range(ranks)
            for micro in range(micros)
        ]
        assert learned(parts) == found.weight(step)
        assert sum(len(ids) for ids, _ in parts) == 8


def test_each_pass_sees_each_conversation_once(task):
    found = task(batch_size=19)
    total = found.weight(0)
    assert [found.weight(step) for step in range(4)] == [total] * 4
    one, two = (found.batch(step, Share(0, 1, CPU), 0, 1)[0] for step in (0, 1))
    assert not torch.equal(one, two), "in another order"


@pytest.mark.parametrize("ranks", [1, 2, 4, 8])
def test_every_rank_evaluates_as_often(task, ranks):
    found = task()
    per_rank = [list(found.held_out(Share(rank, ranks, CPU), 1)) for rank in range(ranks)]
    assert len({len(batches) for batches in per_rank}) == 1
    weight = sum(part for batches in per_rank for _, part in batches)
    assert weight == learned(batch for batches in per_rank for batch, _ in batches) > 0


def test_what_fills_a_row_changes_no_loss(task):
    found = task()
    model = found.build()
    ids, targets = found.batch(0, Share(0, 1, CPU), 0, 1)
    with torch.no_grad():
        together = found.loss(model, (ids, targets))
        apart = sum(found.loss(model, (ids[i : i + 1], targets[i : i + 1])) for i in range(8))
        ids[targets == IGNORE] = torch.where(ids == 0, 7, ids)[targets == IGNORE]
        filled = found.loss(model, (ids, targets))
    assert together.item() == pytest.approx(apart.item(), rel=1e-5)
    assert together.item() == pytest.approx(filled.item(), rel=1e-5)


def test_adapters_are_left_beside_the_merged_model(task, tmp_path):
    found = task(LoraConfig, adapter={"rank": 2, "targets": ["v_proj"]})
    model = found.build()
    tensors = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            tensors[f"model.{name}"] = parameter.detach() + 0.1
    found.export(tmp_path, tensors)
    assert (tmp_path / "adapter_model.safetensors").is_file()
    before = load_file(tmp_path / "model" / "model.safetensors")
    after = load_file(tmp_path / "model.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"model.layers.{layer}.self_attn.v_proj.weight" for layer in range(2)}


def test_heads_that_do_not_divide_are_named(task):
    with pytest.raises(ConfigError, match="has 2 key heads, which must be a multiple of"):
        task(parallel={"tensor": 4})


def test_sequences_too_short_for_any_answer_are_named(task):
    with pytest.raises(ConfigError, match="the assistant speaks within the first 8 tokens of 0"):
        task(sequence_length=8)
