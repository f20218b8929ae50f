"""Manifests are judged without a cluster where that is possible."""

from pathlib import Path

import pytest

from drakkar.cli import manifests
from drakkar.cli.manifests import ManifestError

ROOT = Path(__file__).parents[3]
CONFIGS = sorted((ROOT / "tests/bad_manifests/operator").glob("config-*.yaml"))
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
JOB = {"apiVersion": "drakkar.dev/v1alpha1", "kind": "TrainingJob", "metadata": {"name": "a"}}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_bad_recipe_settings_are_found(path: Path) -> None:
    expected = path.read_text().splitlines()[0].removeprefix("# expect: ")
    (item,) = manifests.read(str(path))
    assert expected in "; ".join(manifests.problems(item))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_fine(path: Path) -> None:
    for item in manifests.read(str(path)):
        assert manifests.problems(item) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "is not YAML"),
        ("", "holds no object"),
        ("---\n---\n", "holds no object"),
        ("just text", "needs apiVersion and kind"),
        ("kind: X", "needs apiVersion and kind"),
        ("apiVersion: v1\nkind: X", "X needs metadata.name"),
        ("apiVersion: v1\nkind: X\nmetadata: a", "X needs metadata.name"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "f.yaml"
    path.write_text(text)
    with pytest.raises(ManifestError, match=words):
        manifests.read(str(path))


def test_missing_file_and_binary_file(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="No such file"):
        manifests.read(str(tmp_path / "none.yaml"))
    binary = tmp_path / "b.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ManifestError, match="not UTF-8"):
        manifests.read(str(binary))


def test_lists_are_opened(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_text(
        "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: X, metadata: {name: a}}\n"
        "- {apiVersion: v1, kind: Y, metadata: {name: b}}\n"
    )
    assert [item["kind"] for item in manifests.read(str(path))] == ["X", "Y"]


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        (JOB, "spec: missing"),
        ({**JOB, "kind": "TrainJob"}, "known: InferenceService, Queue, Topology, TrainingJob"),
        ({**JOB, "spec": {"replicas": 0}}, "spec.replicas: Input should be greater than"),
        ({**JOB, "spec": {"image": "a b"}}, "spec.image: write an image reference without spaces"),
        (
            {**JOB, "spec": {"recipe": {"name": "pretrain", "config": {"setps": 1}}}},
            "spec.recipe.config.setps: no such setting",
        ),
    ],
)
def test_problems_name_field_and_remedy(manifest: manifests.Object, words: str) -> None:
    (line,) = manifests.problems(manifest)
    assert words in line


def test_other_kinds_are_left_to_the_cluster() -> None:
    assert (
        manifests.problems({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}}) == []
    )
