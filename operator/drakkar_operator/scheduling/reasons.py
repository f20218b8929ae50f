"""Why a gang has no place: one honest sentence with numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from drakkar.quantity import show
from drakkar_operator.scheduling import predicates
from drakkar_operator.scheduling.decision import Unplaced
from drakkar_operator.scheduling.nodes import NodeTable
from drakkar_operator.scheduling.predicates import Eligibility
from drakkar_operator.scheduling.request import GangRequest, Role
from drakkar_operator.scheduling.snapshot import Snapshot
from drakkar_operator.scheduling.together import Part
from drakkar_operator.scheduling.topology import CLUSTER, IntArray

_MOST_TAINTS = 3
"""Taints that a reason names before it says 'others'."""


@dataclass(frozen=True, slots=True)
class Shortage:
    """The domain where a role of the gang comes nearest to fitting."""

    depth: int
    domain: int
    need: int
    best: int
    unit: str
    """replica or group."""
    size: int
    """Replicas in a unit."""
    level: str
    """Level that the replicas of a unit share."""
    anchored: bool
    """Ranks that stay tie the gang to this domain."""
    torn: str | None = None
    """What stands in the way besides the room."""


def explain_shortage(
    snapshot: Snapshot, request: GangRequest, parts: Sequence[Part], fixed: Mapping[int, int]
) -> Unplaced:
    """The verdict for a request that does not fit: text and numbers.

    It tells of the first role that does not fit even by itself.
    """
    parts = [part for part in parts if part.own(request.missing)] or list(parts)
    whole: list[tuple[Part, Shortage]] = []
    for part in parts:
        where = _shortage(part, part.own(sorted(request.missing)), fixed)
        if where.torn or where.best < where.need:
            return _explain(snapshot, request, part, where)
        whole.append((part, where))
    part, where = whole[0]
    if len(whole) > 1:
        names = [part.role.name or "replicas" for part in parts]
        where = replace(
            where,
            torn=f"the roles {', '.join(names[:-1])} and {names[-1]} each have room by themselves, "
            f"but not together in {_one(part.search.tree.level(where.depth))}",
        )
    return _explain(snapshot, request, part, where)


def _one(level: str) -> str:
    return f"the {level}" if level == CLUSTER else f"one {level}"


def _shortage(part: Part, missing: Sequence[int], fixed: Mapping[int, int]) -> Shortage:
    """Where a role comes nearest to fitting, and what is short there."""
    tree, top = part.search.tree, part.search.top
    units = part.search.units(part.rooms, missing, fixed)
    stage = units.active(top)
    held = np.unique(np.array([*fixed.values()], dtype=np.int64))
    homes = np.unique(tree.ids[top][held])
    torn = None
    if len(homes) > 1:
        torn = (
            f"the ranks that stay are in {len(homes)} {tree.level(top)}s, "
            f"but the job requires one {tree.level(top)}"
        )
    # The smallest units of which there are too few tell most.
    for at in range(stage + 1):
        values = units.free[at].at(top)
        domain = int(homes[0]) if len(homes) else int(np.argmax(values))
        need = len(missing) if at == 0 else len(units.homeless[at])
        if int(values[domain]) < need:
            stage = at
            break
    size = units.stages[stage].size
    return Shortage(
        depth=top,
        domain=domain,
        need=need,
        best=int(values[domain]),
        unit="group" if stage else "replica",
        size=size,
        level=tree.level(units.stages[stage].depth),
        anchored=bool(len(homes)),
        torn=torn or units.torn(units.active(top)),
    )


def _explain(snapshot: Snapshot, request: GangRequest, part: Part, where: Shortage) -> Unplaced:
    nodes = snapshot.nodes
    tree = nodes.tree
    suits, role = part.suits, part.role
    blocked = {} if where.unit == "group" else _blocked(snapshot, role, suits, where)
    excluded = dict(suits.excluded)
    hopeless = _no_node_suits(nodes, role, suits) or _too_large(nodes, role, suits)
    tail = show_excluded(excluded, len(nodes))
    if full := int((suits.mask & (part.rooms <= 0)).sum()):
        excluded[predicates.FULL] = full
    if hopeless is None:
        tail = show_excluded(excluded, len(nodes))
    reason = hopeless or where.torn or _too_few(snapshot, request, part, where, blocked)
    if role.name and not (where.torn and hopeless is None):
        reason = f"role {role.name}: {reason}"
    return Unplaced(
        reason=f"{reason}; {tail}" if tail else reason,
        need=where.need,
        best=where.best,
        unit=where.unit,
        level=tree.level(where.depth),
        domain=tree.domain_name(where.depth, where.domain),
        blocked_by=blocked,
        excluded=excluded,
    )


def show_amounts(amounts: Mapping[str, int]) -> str:
    """8 nvidia.com/gpu, 4 cpu and 16Gi memory: devices first."""
    ranked = sorted(
        (r for r, amount in amounts.items() if amount > 0),
        key=lambda r: (
            "/" not in r,
            ("cpu", "memory").index(r) if r in ("cpu", "memory") else 2,
            r,
        ),
    )
    parts = [f"{show(resource, amounts[resource])} {resource}" for resource in ranked]
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def show_excluded(excluded: Mapping[str, int], total: int) -> str:
    """of 12 nodes 2 are cordoned, 1 is not ready, 4 have taint X not tolerated."""
    parts: list[str] = []
    taints = sorted(
        ((n, name) for name, n in excluded.items() if name.startswith(predicates.TAINT)),
        key=lambda pair: (-pair[0], pair[1]),
    )
    plain = {name: n for name, n in excluded.items() if not name.startswith(predicates.TAINT)}
    states = [(plain.pop(name, 0), name) for name in (predicates.CORDONED, predicates.NOT_READY)]
    parts += [f"{n} {_are(n)} {name}" for n, name in states if n]
    parts += [f"{n} {_have(n)} {name} not tolerated" for n, name in taints[:_MOST_TAINTS]]
    if others := sum(n for n, _ in taints[_MOST_TAINTS:]):
        parts.append(f"{others} {_have(others)} other taints not tolerated")
    full = plain.pop(predicates.FULL, 0)
    for name, n in plain.items():
        if name == predicates.AVOIDED:
            parts.append(f"{n} {_are(n)} avoided after a fault")
        elif name.startswith(predicates.PORT):
            parts.append(f"{n} {_have(n)} {name} in use")
        else:
            parts.append(f"{n} {'does' if n == 1 else 'do'} not match the {name}")
    if full:
        parts.append(f"{full} {_have(full)} no room for a replica")
    if not parts:
        return ""
    return f"of {total} node{'s' if total > 1 else ''} {', '.join(parts)}"


def _are(n: int) -> str:
    return "is" if n == 1 else "are"


def _have(n: int) -> str:
    return "has" if n == 1 else "have"


def _no_node_suits(nodes: NodeTable, role: Role, suits: Eligibility) -> str | None:
    if suits.mask.any():
        return None
    for key, value in sorted(role.node_selector.items()):
        if value not in nodes.label(key).values:
            return f"no node has the label {key}={value} that the node selector asks for"
    if predicates.AFFINITY in suits.excluded and len(suits.excluded) == 1:
        wanted = " or ".join(str(term) for term in role.node_affinity)
        return f"no node matches the node affinity: {wanted}"
    return "no node can take a replica"


def _too_large(nodes: NodeTable, role: Role, suits: Eligibility) -> str | None:
    """A single replica that no suitable node could hold, were it empty."""
    if not suits.mask.any():
        return None
    if suits is not nodes.remembered(role.node_rules):
        return _larger_than_all(nodes, role, suits)
    # Jobs are judged again and again, and this depends on nothing but the nodes.
    key = ("too large", role.node_rules, frozenset(role.requests.items()))
    known = nodes.remembered(key)
    if known is None:
        known = _larger_than_all(nodes, role, suits) or ""
        nodes.remember(key, known)
    return str(known) or None


def _larger_than_all(nodes: NodeTable, role: Role, suits: Eligibility) -> str | None:
    largest = nodes.allocatable[suits.mask]
    holds = np.ones(len(largest), dtype=np.bool_)
    wanted = {**{r: a for r, a in role.requests.items() if a > 0}, "pods": 1}
    for resource, amount in wanted.items():
        column = nodes.columns.get(resource)
        most = int(largest[:, column].max()) if column is not None else 0
        if most == 0:
            every = column is None or not nodes.allocatable[:, column].any()
            return f"no {'' if every else 'suitable '}node offers {resource}"
        if most < amount:
            which = "largest node has" if suits.mask.all() else "largest suitable node has"
            return (
                f"needs {show(resource, amount)} {resource} on one node; "
                f"the {which} {show(resource, most)}"
            )
        holds &= largest[:, column] >= amount
    if not holds.any():
        return f"needs {show_amounts(role.requests)} on one node; no node has all of it"
    return None


def _blocked(snapshot: Snapshot, role: Role, suits: Eligibility, where: Shortage) -> dict[str, int]:
    """Per resource that keeps the gang out of the domain: how much more it would take.

    Those that are too scarce by themselves; if there are none, those without which it would fit.
    """
    nodes = snapshot.nodes
    part = nodes.tree.nodes_of(where.depth, where.domain)
    mask = suits.mask[part]
    wanted = {r: a for r, a in {**role.requests, "pods": 1}.items() if a > 0}
    fits: dict[str, IntArray] = {}
    for resource, amount in wanted.items():
        column = nodes.columns.get(resource)
        if column is None:
            return {resource: where.need * amount}
        fits[resource] = np.maximum(snapshot.free[part, column][mask], 0) // amount
    short = {
        resource: (where.need - int(fit.sum())) * wanted[resource]
        for resource, fit in fits.items()
        if int(fit.sum()) < where.need
    }
    if short or role.host_ports:
        return short
    for resource, amount in wanted.items():
        others = [fit for other, fit in fits.items() if other != resource]
        if others and int(np.min(others, axis=0).sum()) >= where.need:
            short[resource] = (where.need - where.best) * amount
    return short


def _too_few(
    snapshot: Snapshot,
    request: GangRequest,
    part: Part,
    where: Shortage,
    blocked: Mapping[str, int],
) -> str:
    tree, role = snapshot.nodes.tree, part.role
    level = tree.level(where.depth)
    # Devices, and of the rest what is short: the other amounts only lengthen the sentence.
    named = {r: a for r, a in role.requests.items() if "/" in r or r in blocked}
    amounts = show_amounts(named) or show_amounts(role.requests)
    each = " each" if where.need > 1 else ""
    more = "more " if request.repair else ""
    if where.unit == "group":
        what = (
            f"{where.need} {more}{_plural('group', where.need)} of {where.size} replicas with "
            f"{amounts} each, every group in one {where.level}"
        )
    else:
        what = f"{where.need} {more}{_plural('replica', where.need)}"
        what += f" with {amounts}{each}" if amounts else ""
    if role.spread is not None:
        what += f", at most {role.spread.max_per_domain} in one {role.spread.level}"
    if where.depth == 0:
        place, best = "", "the cluster"
    elif where.anchored:
        name = tree.domain_name(where.depth, where.domain)
        place, best = f" in {level} {name}, where the other ranks are", "it"
    else:
        name = tree.domain_name(where.depth, where.domain)
        place, best = (
            f"{', all' if where.unit == 'group' else ''} in one {level}",
            (f"the best {level} ({name})"),
        )
    text = f"needs {what}{place}; {best} has room for {where.best}"
    if where.unit == "replica" and role.spread is None:
        text += _scattered(snapshot, part.suits, role, where, blocked)
    for name, label in tree.levels[:-1]:
        asked = name == level or (where.unit == "group" and name == where.level)
        if asked and name in tree.unlabelled:
            text += f"; no node has the label {label} that tells the {name}"
    return text


def _scattered(
    snapshot: Snapshot,
    suits: Eligibility,
    role: Role,
    where: Shortage,
    blocked: Mapping[str, int],
) -> str:
    """Why it does not fit although enough is free in total; empty if it is not."""
    nodes = snapshot.nodes
    part = nodes.tree.nodes_of(where.depth, where.domain)
    mask = suits.mask[part]
    if not mask.any():
        return ""
    if not blocked:
        if role.host_ports:
            ports = ", ".join(str(port) for _, _, port in role.host_ports)
            return f", one to a node since each takes host port {ports}"
        return "; no node has enough of everything"
    ranked = sorted(blocked, key=lambda r: ("/" not in r, r))
    totals = []
    for resource in ranked:
        free = np.maximum(snapshot.free[part, nodes.columns[resource]][mask], 0)
        amount = role.requests.get(resource, 1)
        totals.append(int((free // amount).sum()))
        if int(free.sum()) >= where.need * amount and totals[-1] < where.need:
            return (
                f"; {show(resource, int(free.sum()))} {resource} are free there, "
                f"but scattered: at most {show(resource, int(free.max()))} on one node"
            )
    if min(totals) >= where.need:
        return f"; where the rest is free there is too little {' or '.join(ranked)}"
    return ""


def _plural(word: str, n: int) -> str:
    return word if n == 1 else f"{word}s"
