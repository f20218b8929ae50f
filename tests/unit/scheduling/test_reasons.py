"""What a user reads while a job waits. Each text is what the case calls for, word by word."""

from typing import Any

import pytest

from drakkar_operator.model import NodeView, PodView
from drakkar_operator.scheduling.decision import Unplaced
from drakkar_operator.scheduling.placement import place
from drakkar_operator.scheduling.reasons import show_amounts, show_excluded
from drakkar_operator.scheduling.request import GangRequest, Requirement, Term
from support.scheduling import GPU, gang, node, pod, snapshot, taint


def racks(*sizes: int, gpus: int = 8) -> list[NodeView]:
    """Racks of so many nodes in one block."""
    return [
        node(f"r{rack}-n{at}", f"zone-a/block-1/rack-{rack}", gpus)
        for rack, size in enumerate(sizes, 1)
        for at in range(size)
    ]


CASES: list[tuple[list[NodeView], list[PodView], GangRequest, str]] = [
    ([], [], gang(1), "the cluster has no nodes"),
    (
        racks(2),
        [],
        gang(2, 8, {"required": "rak"}),
        "topology level 'rak' is unknown; known: zone, block, rack, host",
    ),
    (
        racks(2),
        [],
        gang(2, 8, {"preferred": "pod"}),
        "topology level 'pod' is unknown; known: zone, block, rack, host",
    ),
    (
        [
            *racks(2, 3),
            node("c1", unschedulable=True),
            node("c2", unschedulable=True),
            node("d1", ready=False),
            *[node(f"t{at}", taints=(taint("team", value="b"),)) for at in range(4)],
        ],
        [],
        gang(4, 8, {"required": "rack"}),
        "needs 4 replicas with 8 nvidia.com/gpu each in one rack; the best rack "
        "(zone-a/block-1/rack-2) has room for 3; of 12 nodes 2 are cordoned, 1 is not ready, "
        "4 have taint team=b:NoSchedule not tolerated",
    ),
    (
        racks(2),
        [],
        gang(1, 16),
        "needs 16 nvidia.com/gpu on one node; the largest node has 8",
    ),
    (
        [*racks(1, gpus=4), node("big", gpus=16, unschedulable=True)],
        [],
        gang(1, 16),
        "needs 16 nvidia.com/gpu on one node; the largest suitable node has 4; "
        "of 2 nodes 1 is cordoned",
    ),
    (racks(1, gpus=0), [], gang(1, 1), "no node offers nvidia.com/gpu"),
    (
        [node("a", gpus=0), node("b", taints=(taint("gpu"),))],
        [],
        gang(1, 1),
        "no suitable node offers nvidia.com/gpu; of 2 nodes 1 has taint gpu:NoSchedule not "
        "tolerated",
    ),
    (
        [node("a", gpus=8, allocatable={"cpu": 1000}), node("b", gpus=0)],
        [],
        gang(1, requests={GPU: 8, "cpu": 32_000, "memory": 1 << 30}),
        "needs 8 nvidia.com/gpu, 32 cpu and 1Gi memory on one node; no node has all of it",
    ),
    (
        racks(2),
        [],
        gang(1, 8, node_selector={"disk": "ssd"}),
        "no node has the label disk=ssd that the node selector asks for; "
        "of 2 nodes 2 do not match the node selector disk=ssd",
    ),
    (
        racks(1),
        [],
        gang(1, 8, node_affinity=(Term((Requirement("gen", "Gt", ("3",)),)),)),
        "no node matches the node affinity: gen Gt [3]; "
        "of 1 node 1 does not match the node affinity",
    ),
    (
        racks(2),
        [],
        gang(1, 8, avoid=frozenset({"r1-n0", "r1-n1"})),
        "no node can take a replica; of 2 nodes 2 are avoided after a fault",
    ),
    (
        racks(3),
        [pod("p", "r1-n0", 1)],
        gang(3, 8),
        "needs 3 replicas with 8 nvidia.com/gpu each; the cluster has room for 2; "
        "of 3 nodes 1 has no room for a replica",
    ),
    (
        racks(2),
        [pod("p", "r1-n0", 4), pod("q", "r1-n1", 4)],
        gang(1, 8),
        "needs 1 replica with 8 nvidia.com/gpu; the cluster has room for 0; 8 nvidia.com/gpu are "
        "free there, but scattered: at most 4 on one node; of 2 nodes 2 have no room for a replica",
    ),
    (
        racks(2),
        [pod("p", "r1-n0", requests={"cpu": 60_000})],
        gang(2, requests={GPU: 8, "cpu": 8000}),
        "needs 2 replicas with 8 nvidia.com/gpu and 8 cpu each; the cluster has room for 1; where "
        "the rest is free there is too little nvidia.com/gpu or cpu; of 2 nodes 1 has no room for a replica",
    ),
    (
        racks(2),
        [pod("p", "r1-n0", 8), pod("q", "r1-n1", requests={"cpu": 64_000})],
        gang(1, requests={GPU: 8, "cpu": 8000}),
        "needs 1 replica with 8 nvidia.com/gpu and 8 cpu; the cluster has room for 0; where the "
        "rest is free there is too little nvidia.com/gpu or cpu; of 2 nodes 2 have no room for a "
        "replica",
    ),
    (
        racks(3, 2),
        [pod("p", "r2-n0", 8), pod("q", "r2-n1", 8)],
        gang(3, 8, {"required": "rack"}, fixed={0: "r2-n0", 1: "r2-n1"}),
        "needs 1 more replica with 8 nvidia.com/gpu in rack zone-a/block-1/rack-2, where the other "
        "ranks are; it has room for 0; of 5 nodes 2 have no room for a replica",
    ),
    (
        racks(3, 3),
        [],
        gang(4, 8, {"required": "rack"}, fixed={0: "r1-n0", 1: "r2-n0"}),
        "the ranks that stay are in 2 racks, but the job requires one rack",
    ),
    (
        racks(3, 3),
        [],
        gang(6, 8, {"groups": [{"size": 2, "level": "rack"}], "required": "block"}),
        "needs 3 groups of 2 replicas with 8 nvidia.com/gpu each, every group in one rack, all in "
        "one block; the best block (zone-a/block-1) has room for 2",
    ),
    (
        racks(3),
        [pod("p", "r1-n0", host_ports=(("", "TCP", 80),))],
        gang(3, 1, host_ports=(("", "TCP", 80),)),
        "needs 3 replicas with 1 nvidia.com/gpu each; the cluster has room for 2, one to a node "
        "since each takes host port 80; of 3 nodes 1 has host port 80 in use",
    ),
    (
        [node("a", gpus=1), node("b", gpus=1)],
        [],
        gang(2, 1, {"required": "rack"}),
        "needs 2 replicas with 1 nvidia.com/gpu each in one rack; the best rack (a) has room for "
        "1; no node has the label topology.drakkar.dev/rack that tells the rack",
    ),
]


@pytest.mark.parametrize(("nodes", "pods", "request_", "text"), CASES)
def test_reasons(
    nodes: list[NodeView], pods: list[PodView], request_: GangRequest, text: str
) -> None:
    answer = place(snapshot(nodes, pods), request_)
    assert isinstance(answer, Unplaced)
    assert answer.reason == text


def test_the_numbers_come_apart_from_the_text() -> None:
    answer = place(snapshot(racks(2, 3)), gang(4, 8, {"required": "rack"}))
    assert isinstance(answer, Unplaced)
    assert (answer.need, answer.best, answer.unit) == (4, 3, "replica")
    assert (answer.level, answer.domain) == ("rack", "zone-a/block-1/rack-2")
    assert answer.blocked_by == {GPU: 8}


@pytest.mark.parametrize(
    ("amounts", "text"),
    [
        ({GPU: 8}, "8 nvidia.com/gpu"),
        ({"memory": 16 << 30, "cpu": 1500, GPU: 1}, "1 nvidia.com/gpu, 1500m cpu and 16Gi memory"),
        ({"memory": 1 << 20, "ephemeral-storage": 1 << 30}, "1Mi memory and 1Gi ephemeral-storage"),
        ({"cpu": 0}, ""),
    ],
)
def test_amounts(amounts: dict[str, int], text: str) -> None:
    assert show_amounts(amounts) == text


def test_many_taints_are_summed_up() -> None:
    excluded: dict[str, Any] = {f"taint t{at}:NoSchedule": at for at in range(1, 6)}
    text = show_excluded(excluded, 20)
    assert text.startswith("of 20 nodes 5 have taint t5:NoSchedule not tolerated, 4 have")
    assert text.endswith(", 3 have other taints not tolerated")
