"""Which nodes can take a replica, and how many of them: kube-scheduler's filters as arrays.

NodeUnschedulable, TaintToleration, NodeAffinity (with nodeSelector), NodePorts and
NodeResourcesFit, as the plugins of these names in kubernetes/pkg/scheduler/framework/plugins
decide for the part of a pod that is fixed. A node that is cordoned or not ready is never used,
whatever the pod tolerates: Drakkar moves ranks away from such nodes. Each node that is ruled out is
counted once, under the first rule that does.
"""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from drakkar_operator.model import Taint
from drakkar_operator.scheduling import shares
from drakkar_operator.scheduling.nodes import NodeTable
from drakkar_operator.scheduling.request import ANY_ADDRESS, Requirement, Role, Term
from drakkar_operator.scheduling.snapshot import Snapshot, port_key
from drakkar_operator.scheduling.topology import BoolArray, IntArray

NOT_READY = "not ready"
CORDONED = "cordoned"
TAINT = "taint "
"""Followed by the taint: "taint nvidia.com/gpu=present:NoSchedule"."""
SELECTOR = "node selector"
AFFINITY = "node affinity"
AVOIDED = "avoided"
PORT = "host port"
FULL = "full"


@dataclass(frozen=True, eq=False)
class Eligibility:
    """Nodes that suit a request, whatever is free on them."""

    mask: BoolArray
    excluded: Mapping[str, int]
    """Nodes ruled out per predicate."""


def eligible(snapshot: Snapshot, role: Role, avoid: frozenset[str] = frozenset()) -> Eligibility:
    """All predicates but NodeResourcesFit; ``avoid`` are nodes that must not be used."""
    nodes = snapshot.nodes
    known = nodes.remembered(role.node_rules)
    static = known if isinstance(known, Eligibility) else _by_node_rules(nodes, role)
    if static is not known:
        nodes.remember(role.node_rules, static)
    if not (avoid or role.host_ports):
        return static
    mask, excluded = static.mask.copy(), dict(static.excluded)

    def rule_out(name: str, names: set[str]) -> None:
        at = [i for node in names if (i := nodes.tree.index.get(node)) is not None and mask[i]]
        if at:
            mask[at] = False
            excluded[name] = len(at)

    rule_out(AVOIDED, set(avoid))
    for port in role.host_ports:
        key, address = port_key(port)
        rule_out(
            f"{PORT} {key[1]}",
            {
                node
                for node, other in snapshot.ports.get(key, ())
                if ANY_ADDRESS in (address, other) or address == other
            },
        )
    return Eligibility(mask, excluded)


def capacity(snapshot: Snapshot, role: Role, mask: BoolArray) -> IntArray:
    """Per node: replicas that fit (NodeResourcesFit), 0 where the mask is false."""
    nodes = snapshot.nodes
    rooms = np.where(mask, snapshot.free[:, nodes.columns["pods"]], 0)
    for resource, amount in role.requests.items():
        if amount <= 0 or resource == "pods":
            continue
        column = nodes.columns.get(resource)
        if column is None:
            return np.zeros(len(nodes), dtype=np.int64)
        np.minimum(rooms, snapshot.free[:, column] // amount, out=rooms)
        if resource in snapshot.devices:
            np.minimum(rooms, shares.rooms(snapshot.devices[resource], amount), out=rooms)
    if role.host_ports:
        # Two replicas can't have the same port of a node.
        np.minimum(rooms, 1, out=rooms)
    return np.maximum(rooms, 0, out=rooms)


def ports_clash(one: Role, other: Role) -> bool:
    """Whether replicas of two roles can't share a node since both want a port of it."""
    for port, theirs in itertools.product(one.host_ports, other.host_ports):
        (key, address), (other_key, other_address) = port_key(port), port_key(theirs)
        if key == other_key and (
            address == other_address or ANY_ADDRESS in (address, other_address)
        ):
            return True
    return False


def _by_node_rules(nodes: NodeTable, role: Role) -> Eligibility:
    mask = np.ones(len(nodes), dtype=np.bool_)
    excluded: dict[str, int] = {}

    def keep(name: str, suits: BoolArray) -> None:
        lost = int((mask & ~suits).sum())
        if lost:
            excluded[name] = excluded.get(name, 0) + lost
            np.logical_and(mask, suits, out=mask)

    keep(NOT_READY, nodes.ready)
    keep(CORDONED, ~nodes.unschedulable)
    for code, taints in enumerate(nodes.taint_sets):
        taint = untolerated(taints, role)
        if taint is not None:
            keep(f"{TAINT}{show_taint(taint)}", nodes.taint_codes != code)
    for key, value in sorted(role.node_selector.items()):
        column = nodes.label(key)
        keep(f"{SELECTOR} {key}={value}", column.where((v == value for v in column.values), False))
    if role.node_affinity:
        suits = np.zeros(len(nodes), dtype=np.bool_)
        for term in role.node_affinity:
            suits |= _term(nodes, term)
        keep(AFFINITY, suits)
    return Eligibility(mask, excluded)


def untolerated(taints: tuple[Taint, ...], role: Role) -> Taint | None:
    for taint in taints:
        if taint.effect in ("NoSchedule", "NoExecute") and not any(
            toleration.tolerates(taint) for toleration in role.tolerations
        ):
            return taint
    return None


def show_taint(taint: Taint) -> str:
    """A taint as kubectl writes it."""
    return f"{taint.key}{'=' if taint.value else ''}{taint.value}:{taint.effect}"


def _term(nodes: NodeTable, term: Term) -> BoolArray:
    if not (term.expressions or term.fields):
        return np.zeros(len(nodes), dtype=np.bool_)
    suits = np.ones(len(nodes), dtype=np.bool_)
    for rule in term.expressions:
        column = nodes.label(rule.key)
        matches = _matcher(rule)
        absent = rule.operator in ("NotIn", "DoesNotExist")
        suits &= column.where((matches(value) for value in column.values), absent)
    for rule in term.fields:
        if rule.key != "metadata.name" or rule.operator not in ("In", "NotIn"):
            return np.zeros(len(nodes), dtype=np.bool_)
        named = np.zeros(len(nodes), dtype=np.bool_)
        named[[i for v in rule.values if (i := nodes.tree.index.get(v)) is not None]] = True
        suits &= named if rule.operator == "In" else ~named
    return suits


def _matcher(rule: Requirement) -> Callable[[str], bool]:
    """Whether a value that is there matches; an unknown operator matches nothing."""
    values = frozenset(rule.values)
    match rule.operator:
        case "In":
            return lambda value: value in values
        case "NotIn":
            return lambda value: value not in values
        case "Exists":
            return lambda _: True
        case "Gt" | "Lt":
            bound = _integer(rule.values[0]) if len(rule.values) == 1 else None
            sign = 1 if rule.operator == "Gt" else -1

            def beyond(value: str) -> bool:
                number = _integer(value)
                return bound is not None and number is not None and sign * (number - bound) > 0

            return beyond
        case _:
            return lambda _: False


def _integer(text: str) -> int | None:
    """A decimal integer as Go's strconv.ParseInt reads it."""
    digits = text[1:] if text[:1] in ("+", "-") else text
    return int(text) if digits.isascii() and digits.isdigit() else None
