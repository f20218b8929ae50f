"""Domains count their nodes and the devices that nobody holds."""

from dataclasses import replace

from drakkar_operator.model import NodeView
from drakkar_operator.scheduling.domains import domains
from support.jobs import pod

RACK = "topology.drakkar.dev/rack"
GPU = "nvidia.com/gpu"


def node(name: str, rack: str | None, gpus: int = 8) -> NodeView:
    labels = {RACK: rack} if rack else {}
    return NodeView(name, labels, {"cpu": 64_000, GPU: gpus, "hugepages-2Mi": 0})


def test_devices_less_what_pods_hold() -> None:
    nodes = [
        node("a", "r1"),
        node("b", "r1", gpus=7),
        replace(node("c", "r2"), ready=False),
        replace(node("d", "r2"), unschedulable=True),
        node("e", None),
        node("f", "r3", gpus=3),
    ]
    pods = [
        pod(0, node="a", requests={GPU: 3, "cpu": 10}),
        pod(1, node="a", requests={GPU: 4}, phase="Succeeded"),
        pod(2, node="f", requests={GPU: 4}),
        pod(2, node="e", requests={GPU: 4}),
    ]
    found = domains(RACK, nodes, pods)
    assert [(d.name, d.nodes, d.free) for d in found] == [
        ("r1", 2, {GPU: 12}),
        ("r2", 2, {}),
        ("r3", 1, {GPU: 0}),
    ]


def test_no_nodes() -> None:
    assert domains(RACK, [], []) == []
