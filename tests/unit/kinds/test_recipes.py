"""What is wrong with a recipe's settings is said before a pod exists, with what would be right."""

import pytest

from drakkar.v1alpha1.recipes import parse_recipe

FIELD = "spec.recipe.config."
MODEL, DATA = {"path": "/models/m"}, {"path": "/data/d.jsonl"}
TUNED = {"model": MODEL, "data": DATA}
BAD = [
    ("pretrian", {}, 1, "spec.recipe.name: 'pretrian' is unknown; known: "),
    ("pretrain", {"stepz": 1}, 1, f"{FIELD}stepz: no such setting"),
    ("pretrain", {"steps": 0}, 1, f"{FIELD}steps: Input should be greater than or equal to 1"),
    ("pretrain", {"steps": "many"}, 1, f"{FIELD}steps: "),
    ("pretrain", {"steps": 5, "warmupSteps": 6}, 1, "warmupSteps (6) exceeds steps (5)"),
    ("pretrain", {"learningRate": 0}, 1, f"{FIELD}learningRate: "),
    ("pretrain", {"minLearningRate": 1}, 1, "minLearningRate (1.0) exceeds learningRate (0.001)"),
    ("pretrain", {"beta1": 1}, 1, f"{FIELD}beta1: Input should be less than 1"),
    ("pretrain", {"precision": "fp8"}, 1, f"{FIELD}precision: Input should be 'auto', 'fp32' or"),
    ("pretrain", {"sequenceLength": 4}, 1, f"{FIELD}sequenceLength: "),
    ("pretrain", {"batchSize": 0}, 1, f"{FIELD}batchSize: "),
    ("pretrain", {"batchSize": 7}, 2, "multiple of ranks x gradientAccumulation (2 x 1 = 2)"),
    ("pretrain", {"gradientAccumulation": 3}, 4, "gradientAccumulation (4 x 3 = 12)"),
    ("pretrain", {"model": {"layers": 0}}, 1, f"{FIELD}model.layers: "),
    ("pretrain", {"model": {"hidden": 30}}, 1, "hidden (30) must be a multiple of heads (4)"),
    ("pretrain", {"model": {"hidden": 20}}, 1, "rotary embeddings need an even number"),
    ("pretrain", {"model": {"kvHeads": 3}}, 1, "heads (4) must be a multiple of kvHeads (3)"),
    ("pretrain", {"model": {"width": 3}}, 1, f"{FIELD}model.width: no such setting"),
    ("pretrain", {"data": {"source": ""}}, 1, f"{FIELD}data.source: "),
    ("pretrain", {"data": {"heldOut": 0.9}}, 1, f"{FIELD}data.heldOut: "),
    ("pretrain", {"data": {"tokenizer": "words"}}, 1, f"{FIELD}data.tokenizer: "),
    ("pretrain", {"data": {"vocabSize": 12}}, 1, f"{FIELD}data.vocabSize: "),
    ("pretrain", {"parallel": {"tensor": 3}}, 3, "tensor (3) must be a power of two"),
    ("pretrain", {"parallel": {"tensor": 0}}, 1, f"{FIELD}parallel.tensor: "),
    (
        "pretrain",
        {"parallel": {"tensor": 2}},
        3,
        "tensor x context (2 x 1 = 2) does not divide the 3",
    ),
    (
        "pretrain",
        {"parallel": {"shard": 3}},
        4,
        "shard (3) does not divide the 4 ranks that are left",
    ),
    ("pretrain", {"parallel": {"shard": 4, "tensor": 2}}, 4, "use a divisor of 2, or 0 for all"),
    ("pretrain", {"parallel": {"tensor": 8}}, 8, "model.heads (4) must be a multiple of parallel"),
    ("pretrain", {"parallel": {"context": 3}}, 3, "sequenceLength (128) must be a multiple of par"),
    (
        "pretrain",
        {"parallel": {"tensor": 4}, "model": {"kvHeads": 2}},
        4,
        "model.kvHeads (2) must be a multiple of parallel.tensor x parallel.context (4 x 1 = 4)",
    ),
    (
        "pretrain",
        {"parallel": {"tensor": 4}, "model": {"mlpHidden": 18}},
        4,
        "model.mlpHidden (18) must be a multiple of parallel.tensor (4)",
    ),
    *[
        ("pretrain", {"model": {"experts": experts}, "parallel": parallel}, 4, message)
        for experts, parallel, message in [
            ({"count": 4}, {}, f"{FIELD}model.experts.hidden: Field required"),
            ({"count": 1, "hidden": 8}, {}, f"{FIELD}model.experts.count: "),
            ({"count": 4, "hidden": 8, "active": 5}, {}, "active (5) exceeds count (4)"),
            ({"count": 4, "hidden": 12}, {}, "hidden (12) must be a multiple of 8"),
            ({"count": 4, "hidden": 8, "denseLayers": 4}, {}, "leaves none of the 4 layers to"),
            ({"count": 6, "hidden": 8}, {"shard": 4, "expert": 4}, "experts.count (6) must be a"),
            ({"count": 6, "hidden": 8}, {"tensor": 4}, "parallel.tensor (1 x 4 = 4)"),
            ({"count": 8, "hidden": 8}, {"shard": 2, "expert": 4}, "use shard: 4, or 0 for all"),
            ({"count": 8, "hidden": 8}, {"expert": 2}, "expert (2) must divide shard (1)"),
            ({"count": 6, "hidden": 8}, {"shard": 0, "expert": 3}, "use a divisor of 4"),
            (None, {"shard": 0, "expert": 2}, "the model has none; set model.experts"),
        ]
    ],
    (
        "sft",
        {"model": MODEL, "data": DATA, "parallel": {"shard": 0, "expert": 2}},
        2,
        "parallel.expert (2): this recipe's models have no experts",
    ),
    ("sft", {}, 1, f"{FIELD}model: Field required"),
    ("sft", {"model": {"path": "here"}, "data": DATA}, 1, f"{FIELD}model.path: "),
    ("sft", {"model": MODEL, "data": {"path": "x.jsonl"}}, 1, f"{FIELD}data.path: "),
    ("sft", {"model": MODEL, "data": DATA, "adapter": {}}, 1, f"{FIELD}adapter: no such setting"),
    ("lora", {**TUNED, "adapter": {"rank": 0}}, 1, f"{FIELD}adapter.rank: "),
    ("lora", {**TUNED, "adapter": {"targets": []}}, 1, f"{FIELD}adapter.targets: "),
    ("lora", {**TUNED, "adapter": {"targets": ["lm_head"]}}, 1, f"{FIELD}adapter.targets.0: "),
    ("lora", {**TUNED, "parallel": {"tensor": 2}}, 2, "adapters are not split; use shard"),
    ("dpo", {**TUNED, "beta": 0}, 1, f"{FIELD}beta: "),
    ("dpo", {**TUNED, "parallel": {"context": 2}}, 2, "dpo compares whole answers; use shard"),
    ("pretrain", {"parallel": {"recompute": "some"}}, 1, f"{FIELD}parallel.recompute: "),
    ("pretrain", {"parallel": {"pipeline": 2}}, 2, f"{FIELD}parallel.pipeline: no such setting"),
    ("pretrain", {"parallel": {"tensor": 2}, "batchSize": 3}, 4, "data-parallel ranks x gradient"),
]


@pytest.mark.parametrize(("name", "config", "world", "message"), BAD)
def test_bad_settings_are_refused_by_name(name, config, world, message):
    with pytest.raises(ValueError) as error:
        parse_recipe(name, config, world)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("parallel", "world", "data"),
    [
        ({}, 4, 4),
        ({"shard": 0}, 4, 4),
        ({"shard": 2}, 4, 4),
        ({"tensor": 2}, 4, 2),
        ({"shard": 2, "tensor": 2, "context": 2}, 8, 2),
    ],
)
def test_ranks_with_data_of_their_own(parallel, world, data):
    config = parse_recipe("pretrain", {"parallel": parallel}, world)
    assert config.parallel.data_ranks(world) == data
    assert config.suits_world(world)
