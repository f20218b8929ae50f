"""Preferences: the loss of the paper, and a model that comes to prefer what it was shown."""

import json
import math

import pytest
import torch

from drakkar.v1alpha1.recipes import DpoConfig
from drakkar_workers.errors import ConfigError
from drakkar_workers.train.recipes.dpo import Dpo, log_probabilities
from drakkar_workers.train.recipes.task import Share
from support.tiny_models import save_tiny

CPU = torch.device("cpu")


@pytest.fixture
def task(tmp_path):
    save_tiny("llama", tmp_path)
    path = tmp_path / "pairs.jsonl"
    lines = [
        {"prompt": f"question {n}", "chosen": "yes" * (n % 3 + 1), "rejected": "no, never"}
        for n in range(12)
    ]
    path.write_text("\n".join(json.dumps(line) for line in lines))
    return Dpo(
        DpoConfig(
            model={"path": str(tmp_path)},
            data={"path": str(path), "heldOut": 0.25},
            batch_size=8,
            sequence_length=64,
            warmup_steps=1,
        )
    )


def test_a_model_as_it_was_found_has_no_preference(task):
    batch = task.batch(0, Share(0, 1, CPU), 0, 1)
    assert task.loss(task.build(), batch).item() == pytest.approx(8 * math.log(2), rel=1e-5)


def test_the_loss_is_that_of_the_paper(task):
    """As in appendix B of arXiv 2305.18290, row by row."""
    model, before = task.build(), task.build()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.02)
    ids, targets = task.batch(0, Share(0, 1, CPU), 0, 1)
    with torch.no_grad():
        now, then = (log_probabilities(m(ids), targets) for m in (model, before))
        expected = sum(
            math.log1p(math.exp(-0.1 * ((now[i] - now[i + 8]) - (then[i] - then[i + 8])).item()))
            for i in range(8)
        )
        assert task.loss(model, (ids, targets)).item() == pytest.approx(expected, rel=1e-4)
    assert expected != pytest.approx(8 * math.log(2), rel=1e-3)


def test_training_raises_preferred_answers(task):
    model = task.build()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(4):
        loss = task.loss(model, task.batch(step, Share(0, 1, CPU), 0, 1)) / task.weight(step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        ((batch, pairs),) = task.held_out(Share(0, 1, CPU), 1)
        assert pairs == 3
        assert task.loss(model, batch).item() / pairs < 0.5


def test_every_rank_evaluates_as_often(task):
    per_rank = [list(task.held_out(Share(rank, 8, CPU), 1)) for rank in range(8)]
    assert {len(batches) for batches in per_rank} == {1}
    assert sum(part for ((_, part),) in per_rank) == 3
    assert task.loss(task.build(), per_rank[7][0][0]).item() == 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"prompt": "a", "chosen": "b"}, "line 1: needs prompt"),
        (
            {"prompt": "a", "chosen": "b", "rejected": "b"},
            "line 1: chosen and rejected are the same",
        ),
        ({"prompt": [{"role": "user"}], "chosen": "b", "rejected": "c"}, r"line 1: messages\[0\]"),
        ({"prompt": "a" * 99, "chosen": "b", "rejected": "c"}, "line 1: is cut off before the"),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "holds 1 pairs; two are the least"),
    ],
)
def test_bad_pairs_are_named(line, message, tmp_path):
    save_tiny("llama", tmp_path)
    path = tmp_path / "bad.jsonl"
    path.write_text(json.dumps(line))
    with pytest.raises(ConfigError, match=message):
        Dpo(
            DpoConfig(
                model={"path": str(tmp_path)},
                data={"path": str(path)},
                sequence_length=64,
            )
        )
