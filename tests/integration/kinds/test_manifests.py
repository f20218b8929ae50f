"""The API server refuses bad manifests with words that help, and takes good ones."""

from pathlib import Path

import pytest
import yaml

from drakkar.client import Client, InvalidError

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[3]
BAD = sorted((ROOT / "tests/bad_manifests/admission").glob("*.yaml"))
LATER = sorted((ROOT / "tests/bad_manifests/operator").glob("*.yaml"))
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))


def expected(path: Path) -> str:
    first = path.read_text().splitlines()[0]
    assert first.startswith("# expect: ")
    return first.removeprefix("# expect: ")


def test_there_are_enough_bad_manifests() -> None:
    assert len(BAD) + len(LATER) >= 25


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_bad_manifest_is_refused(client: Client, path: Path) -> None:
    # kubectl create validates fields as strictly; an apply words unknown fields differently.
    with pytest.raises(InvalidError) as caught:
        client.create(yaml.safe_load(path.read_text()), dry_run=True)
    assert expected(path) in str(caught.value)


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_bad_manifest_is_refused_by_apply_too(client: Client, path: Path) -> None:
    with pytest.raises(InvalidError):
        client.apply(yaml.safe_load(path.read_text()), dry_run=True)


@pytest.mark.parametrize("path", LATER, ids=lambda path: path.stem)
def test_what_only_the_operator_can_judge_is_admitted(client: Client, path: Path) -> None:
    client.apply(yaml.safe_load(path.read_text()), dry_run=True)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_admitted(client: Client, path: Path) -> None:
    for item in yaml.safe_load_all(path.read_text()):
        client.apply(item, dry_run=True)
