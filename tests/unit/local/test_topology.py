"""What nodes a cluster gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from drakkar.local.errors import ClusterError
from drakkar.local.topology import default_topology, load_topology


def test_default_racks_hold_two_nodes_and_blocks_eight() -> None:
    nodes = default_topology(10).nodes
    assert [node.name for node in nodes[:2]] == ["node-1", "node-2"]
    assert [node.rack for node in nodes[:4]] == ["rack-1", "rack-1", "rack-2", "rack-2"]
    assert [node.block for node in nodes[6:]] == ["block-1", "block-1", "block-2", "block-2"]


@pytest.mark.parametrize("count", [0, 201])
def test_impossible_sizes_are_refused(count: int) -> None:
    with pytest.raises(ClusterError, match="1 to 200 nodes"):
        default_topology(count)


def test_a_file_says_what_each_node_is(tmp_path: Path) -> None:
    path = tmp_path / "topology.yaml"
    path.write_text(
        """
nodes:
  - name: big
    rack: rack-7
    labels: {disk: ssd}
    taints: [{key: dedicated, value: training}]
    resources: {drakkar.dev/slot: 8}
    cpu: 1
    memory: 8Gi
  - name: small
"""
    )
    big, small = load_topology(path).nodes
    assert big.node_labels() == {
        "kubernetes.io/hostname": "big",
        "topology.kubernetes.io/zone": "zone-1",
        "topology.drakkar.dev/block": "block-1",
        "topology.drakkar.dev/rack": "rack-7",
        "disk": "ssd",
    }
    assert (big.cpu, big.memory, big.resources) == ("1", "8Gi", {"drakkar.dev/slot": 8})
    assert big.taints[0].effect == "NoSchedule"
    assert small.cpu is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nodes: []", "wrong at nodes"),
        ("nodes: [{name: a}, {name: a}]", "node a is listed twice"),
        ("nodes: [{name: a, cpus: 1}]", "wrong at nodes.0.cpus"),
        ("nodes: [{name: a, memory: lots}]", "'lots' is not a quantity"),
        ("nodes: [{name: A_b}]", "wrong at nodes.0.name"),
        ("nodes: [", "is no YAML"),
        ("", "wrong at the file"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "topology.yaml"
    path.write_text(text)
    with pytest.raises(ClusterError, match=words):
        load_topology(path)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="cannot be read"):
        load_topology(tmp_path / "none.yaml")
