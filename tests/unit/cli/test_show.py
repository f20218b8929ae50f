"""Cells and tables."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drakkar.cli import show
from drakkar.v1alpha1 import Topology, TrainingJob

NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0s"),
        (0, "0s"),
        (59.9, "59s"),
        (60, "1m"),
        (185, "3m5s"),
        (3599, "59m"),
        (3600, "1h"),
        (7800, "2h10m"),
        (86_400 + 3600, "25h"),
        (2 * 86_400, "2d"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert show.duration(seconds) == text


@given(st.floats(0, 1e7), st.floats(0, 1e7))
def test_duration_grows_no_longer_than_seven_characters(a: float, b: float) -> None:
    assert len(show.duration(a)) <= 7
    assert (show.duration(a) == show.duration(b)) or a != b


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), (0.0, "0"), (2.123456, "2.123"), (0.00012346, "0.0001235"), (12345.6, "12,346")],
)
def test_number(value: float | None, text: str) -> None:
    assert show.number(value) == text


def test_value_at_follows_paths_and_lists() -> None:
    item = {"spec": {"levels": [{"name": "zone"}, {"name": "host"}]}}
    assert show.value_at(item, ".spec.levels[*].name") == "zone,host"
    assert show.value_at(item, ".spec.none.deeper") is None
    assert show.value_at(item, ".spec.none[*].name") == ""


def test_row_of_a_job() -> None:
    item = {
        "metadata": {
            "name": "gpt",
            "namespace": "team",
            "creationTimestamp": (NOW - timedelta(minutes=3)).isoformat(),
        },
        "spec": {"replicas": 4},
        "status": {"phase": "Running", "progress": {"step": 12, "loss": 2.34567}},
    }
    shown = show.columns(TrainingJob.KIND, wide=False)
    (cells,) = show.rows([item], shown, namespaces=True, now=NOW)
    named = dict(zip(["Namespace", "Name", *(column.name for column in shown)], cells, strict=True))
    assert named["Namespace"] == "team"
    assert named["Phase"] == "Running"
    assert named["Step"] == "12"
    assert named["Loss"] == "2.346"
    assert named["Of"] == ""
    assert named["Age"] == "3m"
    assert "Reason" not in named


def test_wide_shows_all_columns() -> None:
    assert show.columns(Topology.KIND, wide=True) == list(Topology.KIND.columns)


def test_table_is_aligned_and_never_cut() -> None:
    text = show.table(("name", "message"), [("a", "x" * 300), ("longer", "y")]).plain
    head, first, second = text.split("\n")
    assert head == "NAME     MESSAGE"
    assert first == "a        " + "x" * 300
    assert second == "longer   y"
