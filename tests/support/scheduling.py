"""Small clusters in few words, and a slow judge of placements that shares no code with the fast one."""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from drakkar.constants import DEFAULT_LEVELS
from drakkar.v1alpha1.gang import TopologyRequest
from drakkar_operator.model import NodeView, PodView, Taint
from drakkar_operator.scheduling.decision import Placed
from drakkar_operator.scheduling.placement import place
from drakkar_operator.scheduling.request import GangRequest
from drakkar_operator.scheduling.snapshot import Snapshot

GPU = "nvidia.com/gpu"
LABELS = dict(DEFAULT_LEVELS)
LEVELS = ("cluster", "zone", "block", "rack", "host")
KEY = ("team", "job")


def node(name: str, where: str = "", gpus: int = 8, **rest: Any) -> NodeView:
    """A node in "zone/block/rack"; an empty part means no label."""
    labels = {"kubernetes.io/hostname": name, **rest.pop("labels", {})}
    for level, value in zip(("zone", "block", "rack"), where.split("/"), strict=False):
        if value:
            labels[LABELS[level]] = value
    allocatable = {"cpu": 64_000, "memory": 512 << 30, "pods": 110, **rest.pop("allocatable", {})}
    if gpus:
        allocatable[GPU] = gpus
    return NodeView(name=name, labels=labels, allocatable=allocatable, **rest)


def taint(key: str, effect: str = "NoSchedule", value: str = "") -> Taint:
    """A taint."""
    return Taint(key, value, effect)


def pod(uid: str, on: str | None, gpus: int = 0, phase: str = "Running", **rest: Any) -> PodView:
    """A pod that holds devices of a node."""
    requests = {**({GPU: gpus} if gpus else {}), **rest.pop("requests", {})}
    return PodView("other", uid, uid, on, phase, requests, **rest)


def snapshot(nodes: Iterable[NodeView], pods: Iterable[PodView] = ()) -> Snapshot:
    """A snapshot with the default levels."""
    return Snapshot.build(nodes, pods, (), DEFAULT_LEVELS)


def gang(
    replicas: int, gpus: int = 1, topology: Mapping[str, Any] | None = None, **rest: Any
) -> GangRequest:
    """A gang of one role of which all ranks but the fixed ones are missing."""
    return GangRequest.uniform(
        rest.pop("key", KEY),
        replicas,
        rest.pop("requests", {GPU: gpus}),
        topology=TopologyRequest(**(topology or {})),
        **rest,
    )


def placed(snap: Snapshot, request: GangRequest) -> Placed:
    """The placement of a request that fits."""
    answer = place(snap, request)
    assert isinstance(answer, Placed), answer
    return answer


def domain(nodes: Iterable[NodeView], name: str, level: str) -> tuple[object, ...]:
    """What tells a node's domain from others of the level: the path of labels down to it."""
    nodes = list(nodes)
    own = next(n for n in nodes if n.name == name)
    if level == "cluster":
        return ()
    if level == "host":
        return (name,)
    path: list[object] = []
    for each in ("zone", "block", "rack"):
        key = LABELS[each]
        value = own.labels.get(key)
        if value is not None:
            path.append(value)
        elif any(key in n.labels for n in nodes):
            path.append(("alone", name))
        else:
            # Nobody has this label: the domains are those of the next narrower level.
            narrower = LEVELS[LEVELS.index(each) + 1]
            path.append(
                (name,)
                if narrower == "host"
                else ("as", own.labels.get(LABELS[narrower]) or _below(nodes, own, narrower))
            )
        if each == level:
            break
    return tuple(path)


def _below(nodes: list[NodeView], own: NodeView, level: str) -> object:
    if level == "host" or any(LABELS[level] in n.labels for n in nodes):
        return ("alone", own.name)
    narrower = LEVELS[LEVELS.index(level) + 1]
    if narrower == "host":
        return ("alone", own.name)
    return own.labels.get(LABELS[narrower]) or _below(nodes, own, narrower)


@lru_cache(maxsize=64)
def homes_of(snap: Snapshot) -> dict[tuple[str, str], tuple[object, ...]]:
    """The domain of each (node, level)."""
    views = snap.nodes.views
    return {(v.name, level): domain(views, v.name, level) for v in views for level in LEVELS}


def faults(snap: Snapshot, request: GangRequest, where: Mapping[int, str]) -> list[str]:
    """What is wrong with a placement of the missing ranks."""
    nodes = {view.name: view for view in snap.nodes.views}
    found = []
    if set(where) != set(request.missing):
        found.append(f"placed {sorted(where)}, missing {sorted(request.missing)}")
    for name in set(where.values()):
        free = snap.free_of(name)
        here = [request.role_of(at) for at, at_node in where.items() if at_node == name]
        taken = Counter({r: 0 for role in here for r in role.requests}, pods=len(here))
        for role in here:
            taken.update({r: a for r, a in role.requests.items() if r != "pods"})
        for resource, amount in taken.items():
            if amount > free.get(resource, 0) and amount:
                found.append(f"{name}: {amount} {resource}, free {free.get(resource, 0)}")
        view = nodes[name]
        if name in request.avoid:
            found.append(f"{name} is to be avoided")
        if not view.ready or view.unschedulable:
            found.append(f"{name} is not ready or cordoned")
        for role in here:
            found += [
                f"{name} has taint {each}"
                for each in view.taints
                if each.effect != "PreferNoSchedule"
                and not any(t.tolerates(each) for t in role.tolerations)
            ]
            if any(view.labels.get(k) != v for k, v in role.node_selector.items()):
                found.append(f"{name} does not match the selector")
        ports = [port for role in here for port in role.host_ports]
        if len(set(ports)) < len(ports):
            found.append(f"{name} has a host port twice")
    whole = {**request.fixed, **where}
    if level := request.topology.required:
        homes = {homes_of(snap)[name, level] for name in whole.values()}
        if len(homes) > 1:
            found.append(f"spread over {len(homes)} {level}s")
    for first, role in request.spans:
        mine = {at: name for at, name in whole.items() if 0 <= at - first < role.replicas}
        if role.spread is not None:
            per = Counter(homes_of(snap)[name, role.spread.level] for name in mine.values())
            got = {homes_of(snap)[where[at], role.spread.level] for at in mine if at in where}
            found += [f"{per[d]} in {d}" for d in got if per[d] > role.spread.max_per_domain]
        for group in role.groups:
            domains: dict[int, set[object]] = {}
            for at, name in mine.items():
                home = homes_of(snap)[name, group.level]
                domains.setdefault((at - first) // group.size, set()).add(home)
            moved = {(at - first) // group.size for at in where if at in mine}
            found += [f"group {g} is torn" for g in moved if len(domains[g]) > 1]
    return found


def level_of(snap: Snapshot, names: Iterable[str]) -> int:
    """Index in LEVELS of the tightest level that the nodes share."""
    names, homes = set(names), homes_of(snap)
    for at in range(len(LEVELS) - 1, 0, -1):
        if len({homes[name, LEVELS[at]] for name in names}) == 1:
            return at
    return 0


def spread(snap: Snapshot, names: Iterable[str]) -> tuple[int, ...]:
    """Domains in use per level, widest first, the cluster left out."""
    names, homes = set(names), homes_of(snap)
    return tuple(len({homes[name, level] for name in names}) for level in LEVELS[1:])


def every_placement(snap: Snapshot, request: GangRequest) -> Iterator[dict[int, str]]:
    """All placements without a fault, by trying all."""
    names = [view.name for view in snap.nodes.views]
    for choice in itertools.product(names, repeat=len(request.missing)):
        where = dict(zip(request.missing, choice, strict=True))
        if not faults(snap, request, where):
            yield where
