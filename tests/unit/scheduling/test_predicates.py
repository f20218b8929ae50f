"""Which nodes a pod may use: the rules of kube-scheduler, one table each."""

from typing import Any

import pytest

from drakkar_operator.model import Taint
from drakkar_operator.scheduling.predicates import capacity, eligible
from drakkar_operator.scheduling.request import (
    Requirement,
    Term,
    Toleration,
    host_ports,
    rules_of_pod,
    tolerations,
)
from support.scheduling import GPU, gang, node, pod, snapshot, taint


@pytest.mark.parametrize(
    ("toleration", "tolerated"),
    [
        ({"operator": "Exists"}, True),
        ({"key": "gpu", "operator": "Exists"}, True),
        ({"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}, True),
        ({"key": "gpu", "operator": "Exists", "effect": "NoExecute"}, False),
        ({"key": "gpu", "value": "yes"}, True),
        ({"key": "gpu", "operator": "Equal", "value": "yes", "effect": "NoSchedule"}, True),
        ({"key": "gpu", "operator": "Equal", "value": "no"}, False),
        ({"key": "gpu"}, False),
        ({"key": "other", "operator": "Exists"}, False),
        ({"value": "yes"}, False),
        ({"key": "gpu", "operator": "Near", "value": "yes"}, False),
    ],
)
def test_tolerations(toleration: dict[str, str], tolerated: bool) -> None:
    (parsed,) = tolerations([toleration])
    assert parsed.tolerates(Taint("gpu", "yes", "NoSchedule")) == tolerated


@pytest.mark.parametrize(
    ("state", "tolerates", "suits"),
    [
        ({}, (), True),
        ({"ready": False}, (), False),
        ({"unschedulable": True}, (), False),
        ({"ready": False}, (Toleration(operator="Exists"),), False),
        ({"unschedulable": True}, (Toleration(operator="Exists"),), False),
        ({"taints": (taint("a"),)}, (), False),
        ({"taints": (taint("a", "NoExecute"),)}, (), False),
        ({"taints": (taint("a", "PreferNoSchedule"),)}, (), True),
        ({"taints": (taint("a"), taint("b"))}, (Toleration("a", "Exists"),), False),
        (
            {"taints": (taint("a"), taint("b"))},
            (Toleration("a", "Exists"), Toleration("b", "Exists")),
            True,
        ),
    ],
)
def test_state_and_taints(
    state: dict[str, Any], tolerates: tuple[Toleration, ...], suits: bool
) -> None:
    snap = snapshot([node("n", **state)])
    assert eligible(snap, gang(1, tolerations=tolerates).roles[0]).mask.tolist() == [suits]


def rule(key: str, operator: str, *values: str) -> Requirement:
    """One requirement."""
    return Requirement(key, operator, values)


@pytest.mark.parametrize(
    ("rules", "names"),
    [
        ([rule("disk", "In", "ssd", "nvme")], "ab"),
        ([rule("disk", "NotIn", "ssd")], "bcd"),
        ([rule("disk", "Exists")], "abc"),
        ([rule("disk", "DoesNotExist")], "d"),
        ([rule("gen", "Gt", "2")], "bc"),
        ([rule("gen", "Lt", "3")], "a"),
        ([rule("gen", "Gt", "two")], ""),
        ([rule("gen", "Gt", "1", "2")], ""),
        ([rule("disk", "Gt", "1")], ""),
        ([rule("disk", "Near", "ssd")], ""),
        ([rule("disk", "In", "ssd"), rule("gen", "Gt", "1")], ""),
        ([rule("disk", "In", "nvme"), rule("gen", "Gt", "1")], "b"),
        ([], ""),
    ],
)
def test_node_affinity(rules: list[Requirement], names: str) -> None:
    snap = snapshot(
        [
            node("a", labels={"disk": "ssd", "gen": "1"}),
            node("b", labels={"disk": "nvme", "gen": "10"}),
            node("c", labels={"disk": "hdd", "gen": "3"}),
            node("d", labels={"gen": "x"}),
        ]
    )
    found = eligible(snap, gang(1, node_affinity=(Term(tuple(rules)),)).roles[0])
    assert (
        "".join(n for n, ok in zip(snap.nodes.tree.names, found.mask, strict=True) if ok) == names
    )


@pytest.mark.parametrize(
    ("field", "names"),
    [
        (rule("metadata.name", "In", "b", "zzz"), "b"),
        (rule("metadata.name", "NotIn", "b"), "ac"),
        (rule("spec.unschedulable", "In", "b"), ""),
        (rule("metadata.name", "Exists"), ""),
    ],
)
def test_match_fields(field: Requirement, names: str) -> None:
    snap = snapshot([node(name) for name in "abc"])
    found = eligible(snap, gang(1, node_affinity=(Term(fields=(field,)),)).roles[0])
    assert (
        "".join(n for n, ok in zip(snap.nodes.tree.names, found.mask, strict=True) if ok) == names
    )


def test_one_matching_term_is_enough_and_all_rules_of_it_count() -> None:
    snap = snapshot([node("a", labels={"x": "1"}), node("b", labels={"y": "1"}), node("c")])
    terms = (Term((rule("x", "Exists"),)), Term((rule("y", "Exists"),)))
    assert eligible(snap, gang(1, node_affinity=terms).roles[0]).mask.tolist() == [
        True,
        True,
        False,
    ]


def test_each_node_is_counted_once_under_the_first_rule() -> None:
    snap = snapshot(
        [
            node("a", ready=False, unschedulable=True, taints=(taint("t"),)),
            node("b", unschedulable=True, taints=(taint("t"),)),
            node("c", taints=(taint("t", value="v"), taint("u"))),
            node("d"),
            node("e", labels={"pool": "x"}),
            node("f", labels={"pool": "x"}),
            node("g", labels={"pool": "x"}),
        ],
        [pod("p", "f", host_ports=(("", "TCP", 80),))],
    )
    found = eligible(
        snap,
        gang(1, node_selector={"pool": "x"}, host_ports=(("", "TCP", 80),)).roles[0],
        frozenset({"e", "a", "gone"}),
    )
    assert found.mask.tolist() == [False] * 6 + [True]
    assert found.excluded == {
        "not ready": 1, "cordoned": 1, "taint t=v:NoSchedule": 1, "node selector pool=x": 1,
        "avoided": 1, "host port 80": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("used", "asked", "free"),
    [
        (("", "TCP", 80), ("", "TCP", 80), False),
        (("", "", 80), ("0.0.0.0", "TCP", 80), False),
        (("10.0.0.1", "TCP", 80), ("", "TCP", 80), False),
        (("", "TCP", 80), ("10.0.0.1", "TCP", 80), False),
        (("10.0.0.1", "TCP", 80), ("10.0.0.2", "TCP", 80), True),
        (("10.0.0.1", "TCP", 80), ("10.0.0.1", "TCP", 80), False),
        (("", "UDP", 80), ("", "TCP", 80), True),
        (("", "TCP", 81), ("", "TCP", 80), True),
    ],
)
def test_host_ports(used: tuple[str, str, int], asked: tuple[str, str, int], free: bool) -> None:
    snap = snapshot([node("n")], [pod("p", "n", host_ports=(used,))])
    assert eligible(snap, gang(1, host_ports=(asked,)).roles[0]).mask.tolist() == [free]


@pytest.mark.parametrize(
    ("requests", "rooms"),
    [
        ({GPU: 1}, 5),
        ({GPU: 2}, 2),
        ({GPU: 6}, 0),
        ({"cpu": 20_000}, 3),
        ({"cpu": 20_000, GPU: 2}, 2),
        ({}, 9),
        ({GPU: 0}, 9),
        ({"cpu": 0, "vendor.example/none": 0}, 9),
        ({"vendor.example/none": 1}, 0),
    ],
)
def test_capacity(requests: dict[str, int], rooms: int) -> None:
    snap = snapshot([node("n", allocatable={"pods": 10})], [pod("p", "n", 3)])
    role = gang(1, requests=requests).roles[0]
    assert capacity(snap, role, eligible(snap, role).mask).tolist() == [rooms]


def test_a_node_that_holds_too_much_has_no_room() -> None:
    snap = snapshot([node("n", gpus=2)], [pod("p", "n", 4)])
    role = gang(1).roles[0]
    assert capacity(snap, role, eligible(snap, role).mask).tolist() == [0]


def test_the_rules_of_a_pod_spec() -> None:
    spec = {
        "nodeSelector": {"pool": "gpu"},
        "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "affinity": {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [
                        {
                            "matchExpressions": [{"key": "a", "operator": "In", "values": ["1"]}],
                            "matchFields": [
                                {"key": "metadata.name", "operator": "In", "values": ["n"]}
                            ],
                        }
                    ]
                }
            }
        },
        "containers": [{"ports": [{"containerPort": 1, "hostPort": 9}, {"containerPort": 2}]}],
    }
    assert rules_of_pod(spec) == {
        "node_selector": {"pool": "gpu"},
        "node_affinity": (
            Term((rule("a", "In", "1"),), (rule("metadata.name", "In", "n"),)),
        ),
        "tolerations": (Toleration("gpu", "Exists", "", "NoSchedule"),),
        "host_ports": (("0.0.0.0", "TCP", 9),),
    }  # fmt: skip
    assert rules_of_pod({}) == {
        "node_selector": {}, "node_affinity": (), "tolerations": (), "host_ports": (),
    }  # fmt: skip


def test_host_ports_of_a_pod_spec() -> None:
    spec = {
        "hostNetwork": True,
        "containers": [{"ports": [{"containerPort": 5, "protocol": "UDP", "hostIP": "1.2.3.4"}]}],
        "initContainers": [
            {"ports": [{"containerPort": 6}]},
            {"ports": [{"containerPort": 7}], "restartPolicy": "Always"},
        ],
    }
    assert host_ports(spec) == (("0.0.0.0", "TCP", 7), ("1.2.3.4", "UDP", 5))
