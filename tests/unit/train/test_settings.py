import json

import pytest

from drakkar_workers.errors import ConfigError
from drakkar_workers.train import settings

GANG = {
    "job": "j",
    "namespace": "n",
    "uid": "u",
    "replicas": 2,
    "processesPerReplica": 1,
    "coordinator": "j-0.j",
    "recipe": "pretrain",
    "recipeConfig": {"steps": 10, "warmupSteps": 1, "batchSize": 8},
    "checkpointDir": "/checkpoints/j",
    "checkpointRoot": "/checkpoints",
    "checkpointEvery": 7,
}
RANKS = {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "1"}


def read(argv=(), environ=None, **gang):
    given = {"DRAKKAR_GANG": json.dumps({**GANG, **gang}), **RANKS, **(environ or {})}
    return settings.read(settings.parse_arguments(list(argv)), given)


def test_the_agents_environment():
    found = read(environ={"DRAKKAR_EPOCH": "3"}, restoreFrom="other/step-00000010")
    assert (found.rank.rank, found.rank.world_size, found.epoch) == (1, 2, 3)
    assert found.recipe.steps == 10 and found.checkpoint_every == 7
    assert str(found.restore_from) == "/checkpoints/other/step-00000010"


@pytest.mark.parametrize(
    "content",
    [
        "steps: 30\nbatchSize: 8\n",
        "kind: TrainingJob\nspec:\n  recipe:\n    name: pretrain\n    config: {steps: 30}\n",
    ],
)
def test_a_file_of_settings_or_a_manifest(content, tmp_path):
    (tmp_path / "c.yaml").write_text(content)
    arguments = settings.parse_arguments(["--config", str(tmp_path / "c.yaml"), "--out", "o"])
    found = settings.read(arguments, {})
    assert found.recipe.steps == 30 and found.rank.world_size == 1
    assert str(found.checkpoint_dir) == "o"


@pytest.mark.parametrize(
    ("gang", "environ", "message"),
    [
        ({"recipe": "pretrian"}, {}, "spec.recipe.name: 'pretrian' is unknown; known: dpo, "),
        ({"recipeConfig": {"stepz": 1}}, {}, "spec.recipe.config.stepz: no such setting"),
        ({"recipeConfig": {"steps": -1}}, {}, "spec.recipe.config.steps: "),
        (
            {"recipeConfig": {"batchSize": 7}},
            {},
            "batchSize (7) must be a multiple of ranks x gradientAccumulation (2 x 1 = 2)",
        ),
        ({"replicas": "many"}, {}, "DRAKKAR_GANG: replicas: "),
        ({}, {"DRAKKAR_GANG": "{"}, "DRAKKAR_GANG: "),
        ({}, {"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two', expected a whole number"),
        ({}, {"RANK": "2"}, "RANK is 2, WORLD_SIZE is 2"),
        ({"restoreFrom": "../x"}, {}, "spec.checkpoint.restoreFrom: '../x' must be a path below"),
        ({"restoreFrom": "/etc"}, {}, "spec.checkpoint.restoreFrom: '/etc' must be a path below"),
    ],
)
def test_wrong_settings_are_named(gang, environ, message):
    with pytest.raises(ConfigError) as error:
        read(environ=environ, **gang)
    assert message in str(error.value)


def test_missing_environment():
    with pytest.raises(ConfigError, match=r"neither --config nor .* DRAKKAR_GANG"):
        settings.read(settings.parse_arguments([]), {})
    with pytest.raises(ConfigError, match="MASTER_ADDR is not set"):
        settings.read(settings.parse_arguments([]), {"WORLD_SIZE": "2"})


@pytest.mark.parametrize(
    ("content", "message"),
    [("[1]", "holds a list, expected a mapping"), ("a: [", "not YAML: "), (None, "No such file")],
)
def test_wrong_files_are_named(content, message, tmp_path):
    path = tmp_path / "c.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=message) as error:
        settings.read(settings.parse_arguments(["--config", str(path)]), {})
    assert str(path) in str(error.value)
