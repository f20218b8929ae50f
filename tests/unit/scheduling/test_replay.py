"""The decisions of a cycle can be repeated from a file, exactly."""

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drakkar_operator.model import QueueView
from drakkar_operator.scheduling.case import Case
from drakkar_operator.scheduling.replay import ReplayError, dump, load, main, outcome, replay
from drakkar_operator.scheduling.request import Requirement, Term, Toleration
from drakkar_operator.scheduling.state import equal
from drakkar_operator.scheduling.workload import Pending, Running
from support.scheduling import GPU, gang, node, pod, snapshot, taint

SNAPSHOT = snapshot(
    [
        node("n1", "z/a/1", taints=(taint("t", value="v"),), labels={"pool": "x"}),
        node("n2", "z/a/1", unschedulable=True),
        node("n10", "z/a/2", gpus=0, allocatable={"vendor.example/nic": 1}),
    ],
    [pod("p", "n1", 3, host_ports=(("", "TCP", 80),))],
)
REQUEST = gang(
    4,
    2,
    {"required": "rack", "groups": [{"size": 2, "level": "host"}]},
    key=("team", "repair"),
    fixed={0: "n1"},
    hint={1: "n1"},
    node_selector={"pool": "x"},
    node_affinity=(
        Term((Requirement("a", "In", ("1",)),), (Requirement("metadata.name", "In", ("n1",)),)),
    ),
    tolerations=(Toleration("t", "Exists"),),
    host_ports=(("", "UDP", 5),),
    avoid=frozenset({"n9"}),
)
CASE = Case(
    SNAPSHOT,
    pending=(
        Pending(("team", "repair"), REQUEST, "q", 7, 1_800_000_000.25, charged=True),
        Pending(
            ("team", "fits"),
            gang(1, 4, key=("team", "fits"), tolerations=(Toleration("t", "Exists"),)),
        ),
        Pending(("team", "large"), gang(9, 8, key=("team", "large"))),
    ),
    running=(
        Running(
            ("team", "other"),
            gang(1, 3, key=("team", "other"), fixed={0: "n1"}, missing=()),
            placed=5.5,
            ends=1_800_000_900.0,
        ),
    ),
    queues={"q": QueueView("q", {GPU: 64}, weight=2)},
    now=1_800_000_000.5,
    moves=True,
)


def through_json(case: Case) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(dump(case, case.decide())))
    return found


def same(one: Case, other: Case) -> bool:
    plain = {field.name for field in fields(Case)} - {"snapshot"}
    return equal(one.snapshot, other.snapshot) and all(
        getattr(one, name) == getattr(other, name) for name in plain
    )


def test_a_document_gives_back_the_same_case() -> None:
    document = through_json(CASE)
    assert same(load(document), CASE)
    assert through_json(load(document)) == document


def test_an_empty_cluster() -> None:
    case = load(dump(Case(snapshot([]))))
    assert (len(case.snapshot.nodes), case.pending) == (0, ())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 99}, "version 99; this Drakkar reads 2"),
        ({"pending": [{"key": ["a", "b"]}]}, "0.request"),
        ({"pending": None}, "can't be read"),
        ({"resources": []}, "can't be read"),
        ({"nodes": [{"name": "n"}]}, "no field 'free'"),
    ],
)
def test_what_is_no_snapshot_is_refused_with_the_reason(
    change: Mapping[str, Any], message: str
) -> None:
    with pytest.raises(ReplayError, match=message):
        load({**through_json(CASE), **change})


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_decision_is_repeated_exactly(data: st.DataObject) -> None:
    amounts = st.integers(0, 8)
    nodes = [
        node(f"n{at}", f"z/{at % 2}/{at % 3}", gpus=data.draw(amounts))
        for at in range(data.draw(st.integers(1, 6)))
    ]
    pods = [pod("p", "n0", data.draw(amounts))]
    levels = st.sampled_from([None, "rack", "block"])
    pending = tuple(
        Pending(
            ("team", f"j{at}"),
            gang(
                data.draw(st.integers(1, 4)),
                data.draw(st.integers(0, 8)),
                {"required": data.draw(levels)},
                key=("team", f"j{at}"),
            ),
            data.draw(st.sampled_from([None, "q"])),
            data.draw(st.integers(-2, 2)),
            data.draw(st.floats(0, 2e9)),
        )
        for at in range(data.draw(st.integers(0, 5)))
    )
    queues = {"q": QueueView("q", {GPU: data.draw(st.integers(0, 20))})}
    case = Case(snapshot(nodes, pods), pending, queues=queues)
    document = through_json(case)
    again = load(document)
    assert [outcome(d) for d in again.decide()] == [outcome(d) for d in case.decide()]
    assert replay(document)[1] == []


def test_the_command_decides_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "snapshot.json"
    file.write_text(json.dumps(through_json(CASE)))
    assert main([str(file)]) == 0
    printed = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert printed["team/fits"] == "placed in host z/a/1/n1: 0 on n1"
    assert printed["team/large"].startswith("waits: no suitable node offers nvidia.com/gpu")


def test_the_command_tells_a_decision_that_came_out_otherwise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = through_json(CASE)
    for item in document["decisions"]:
        if item["key"] == ["team", "fits"]:
            item["placed"]["nodes"] = {"0": "n2"}
    file = tmp_path / "snapshot.json"
    file.write_text(json.dumps(document))
    assert main([str(file)]) == 1
    printed = capsys.readouterr().err
    assert "differs: team/fits: was " in printed
    assert printed.count("differs") == 1


def test_the_command_says_what_is_wrong_with_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "snapshot.json"
    file.write_text("{}")
    assert main([str(file)]) == 1
    assert "version None" in capsys.readouterr().err
    assert main([str(tmp_path / "none.json")]) == 1
    assert main([]) == 64
