"""The provider kind, as far as it goes without a Docker engine."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from drakkar.cli.cluster import app
from drakkar.local.providers.kind import IMAGE_VARIABLE, creation_problem
from drakkar.local.topology import BLOCK_LABEL, RACK_LABEL, ZONE_LABEL

CONFIG = Path(__file__).parents[3] / "kind-config.yaml"

# What kind 0.33 wrote where Docker 20.10 ran without a way to the registry; the digest is cut off.
NO_PULL = """\
Creating cluster "opskind" ...
 • Ensuring node image (kindest/node:v1.37.0) ...
 ✗ Ensuring node image (kindest/node:v1.37.0)
ERROR: failed to create cluster: failed to pull image "kindest/node:v1.37.0@sha256:a1ed": command \
"docker pull kindest/node:v1.37.0@sha256:a1ed" failed with error: exit status 1

Command Output: Error response from daemon: Get "https://registry.example/v2/": dial tcp: no such host
"""


def test_nodes_of_the_config_have_their_place_in_the_fabric() -> None:
    nodes = yaml.safe_load(CONFIG.read_text())["nodes"]
    assert [node["role"] for node in nodes] == ["control-plane", *["worker"] * 4]
    workers = [node["labels"] for node in nodes[1:]]
    assert all(labels.keys() == {ZONE_LABEL, BLOCK_LABEL, RACK_LABEL} for labels in workers)
    assert len({labels[RACK_LABEL] for labels in workers}) == 2


def test_an_image_that_cannot_be_pulled_is_named_with_what_helps() -> None:
    said = creation_problem(NO_PULL)
    for word in ("kindest/node:v1.37.0:", "no such host", IMAGE_VARIABLE, "--provider upstream"):
        assert word in said


def test_other_problems_are_told_in_kinds_words() -> None:
    said = creation_problem(
        "Creating ...\nERROR: failed to create cluster: could not find a log line"
    )
    assert said.endswith("failed: failed to create cluster: could not find a log line")
    assert creation_problem("panic") == "'kind create cluster' failed: panic"


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of programs that comes first on PATH, and nothing of an earlier cluster."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("DRAKKAR_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("DRAKKAR_CLUSTER", raising=False)
    yield folder


def program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_kind_is_asked_for_the_config_and_the_image(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(programs / "docker", "echo 28.0")
    said = tmp_path / "said"
    program(
        programs / "kind",
        f'[ "$1" = create ] || exit 0\necho "$@" > {said}; echo ERROR: no >&2; exit 1',
    )
    monkeypatch.setenv(IMAGE_VARIABLE, "localhost/node:1")
    result = CliRunner().invoke(app, ["up", "--provider", "kind"])
    assert result.exit_code == 1
    assert "'kind create cluster' failed: no" in result.output
    words = said.read_text().split()
    assert words[words.index("--config") + 1] == str(CONFIG)
    assert words[words.index("--image") + 1] == "localhost/node:1"


def test_a_silent_engine_is_told(programs: Path) -> None:
    program(programs / "docker", "exit 1")
    result = CliRunner().invoke(app, ["up", "--provider", "kind"])
    assert result.exit_code == 1
    assert "No Docker engine answers" in result.output
