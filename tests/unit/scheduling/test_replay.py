"""A decision can be repeated from a file."""

import json
from pathlib import Path

import pytest

from drakkar_operator.scheduling.placement import place
from drakkar_operator.scheduling.replay import describe, dump, load, main
from drakkar_operator.scheduling.request import Requirement, Term, Toleration
from drakkar_operator.scheduling.state import equal
from support.scheduling import gang, node, pod, snapshot, taint

SNAPSHOT = snapshot(
    [
        node("n1", "z/a/1", taints=(taint("t", value="v"),), labels={"pool": "x"}),
        node("n2", "z/a/1", unschedulable=True),
        node("n10", "z/a/2", gpus=0, allocatable={"vendor.example/nic": 1}),
    ],
    [pod("p", "n1", 3, host_ports=(("", "TCP", 80),))],
)
REQUEST = gang(
    3,
    2,
    {"required": "rack", "group_size": 2, "group_level": "host"},
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


def test_a_document_gives_back_the_same_snapshot_and_requests() -> None:
    document = json.loads(json.dumps(dump(SNAPSHOT, [REQUEST, gang(1)])))
    snap, requests = load(document)
    assert equal(snap, SNAPSHOT)
    assert requests == [REQUEST, gang(1)]
    assert json.loads(json.dumps(dump(snap, requests))) == document


def test_an_empty_cluster() -> None:
    snap, requests = load(dump(snapshot([])))
    assert (len(snap.nodes), requests) == (0, [])


def test_another_version_is_refused() -> None:
    with pytest.raises(ValueError, match="version 99; this Drakkar reads 1"):
        load({"version": 99})


def test_the_command_decides_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asks = [gang(1, 4, tolerations=(Toleration("t", "Exists"),)), gang(9, 8)]
    file = tmp_path / "snapshot.json"
    file.write_text(json.dumps(dump(SNAPSHOT, asks)))
    assert main([str(file)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed == [f"team/job: {describe(place(SNAPSHOT, ask))}" for ask in asks]
    assert printed[0] == "team/job: placed in host z/a/1/n1: 0 on n1"
    assert printed[1].startswith("team/job: waits: no suitable node offers nvidia.com/gpu")
    assert main([]) == 64
