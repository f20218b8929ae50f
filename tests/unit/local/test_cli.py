"""The commands' words, without a cluster."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from drakkar.cli.cluster import app


@pytest.fixture(autouse=True)
def empty_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRAKKAR_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("DRAKKAR_CLUSTER", raising=False)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("status", "There is no cluster drakkar: 'drakkar cluster up"),
        ("kubeconfig --name other", "There is no cluster other"),
        ("node stop node-1", "There is no cluster drakkar"),
        ("apiserver restart", "There is no cluster drakkar"),
        ("up --nodes 2 --topology x.yaml", "either --nodes or --topology"),
        ("up --topology /no/such.yaml", "/no/such.yaml cannot be read"),
        ("up --nodes 0", "1 to 200 nodes"),
        ("up --name UPPER", "is no cluster name"),
        ("up --provider existing --nodes 3", "not ours to change"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(arguments: str, words: str) -> None:
    result = CliRunner().invoke(app, arguments.split())
    assert result.exit_code == 1
    assert words in result.output
    assert "Traceback" not in result.output


def test_the_cluster_is_chosen_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRAKKAR_CLUSTER", "mine")
    assert "There is no cluster mine" in CliRunner().invoke(app, ["status"]).output
