"""Gang placement: one node for every missing rank of a gang, or the reason why not.

``place`` is exact about whether a gang fits: replicas of a role are identical, so what a domain has
room for is a sum over its nodes; rank groups of several levels nest; several roles are settled by
``split`` (see ``together`` for the bound). An elastic gang gets as many replicas as fit under its
``required`` level. Among all placements ``place`` prefers, in this order:

1. The constraints hold: node rules, free resources, the ``required`` level, rank groups, spread.
2. Ranks go back to the node they ran on before (``hint``). A gang with no rank in place does so
   only if it costs no wider common level.
3. The lowest common level: the tightest domain that holds the whole gang, ranks that stay
   included. This holds with a ``preferred`` level and without one: ``preferred`` only says that
   wider is allowed.
4. Ranks near to ranks that stay: same node, then same rack, and so on.
5. The fewest domains at each finer level, the widest first.
6. Where the snapshot has a job mix: on single nodes, the expected unusable capacity over that mix
   grows least (``fragmentation``).
7. No device is stranded: nodes whose other devices nobody asked for are used last.
8. The least is left over in the domains that are used, then in those around them: what remains
   free elsewhere remains whole. Nodes that become exactly full come first, empty nodes and empty
   racks last.
9. Names in natural order. The order in which nodes were listed plays no part.

1 to 3 are met exactly, 5 exactly at the first finer level and by look-ahead below it: a level is
settled before the next finer one, with bounds of what that will cost. Ranks are given out in tree
order: consecutive indexes share a node, then a rack, then a block (as rank reordering in Kueue TAS
and Arnold, arXiv 2509.15940, ask for).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from drakkar_operator.model import Share
from drakkar_operator.scheduling.decision import Placed, Unplaced, reservations
from drakkar_operator.scheduling.groups import Limit, stages
from drakkar_operator.scheduling.predicates import capacity, eligible
from drakkar_operator.scheduling.reasons import explain_shortage
from drakkar_operator.scheduling.request import GangRequest
from drakkar_operator.scheduling.search import Search
from drakkar_operator.scheduling.shares import bind
from drakkar_operator.scheduling.snapshot import Snapshot
from drakkar_operator.scheduling.sums import Scores
from drakkar_operator.scheduling.together import Part, Together

__all__ = ["Placed", "Unplaced", "parts_of", "place"]


def place(snapshot: Snapshot, request: GangRequest) -> Placed | Unplaced:
    """Nodes for all missing ranks at once, or why there are none. Never a part of them.

    The request in the answer has the size that an elastic gang was given.
    """
    nodes = snapshot.nodes
    tree = nodes.tree
    try:
        parts = parts_of(snapshot, request)
    except ValueError as error:
        return Unplaced(str(error))
    need, level = len(request.missing), tree.level(parts[0].search.top)
    if not len(nodes):
        return Unplaced("the cluster has no nodes", need=need, level=level)
    lost = sorted(at for at, node in request.fixed.items() if node not in tree.index)
    if lost:
        return Unplaced(
            f"replica {lost[0]} is to stay on node {request.fixed[lost[0]]}, which is gone",
            need=need,
            level=level,
        )
    if request.sizes and not request.fixed:
        granted = _granted(request, parts[0])
        if granted != request.replicas:
            request = request.resized(granted)
            parts = [replace(parts[0], role=request.roles[0])]
    fixed = {at: tree.index[node] for at, node in request.fixed.items()}
    found = _with_hints(snapshot, request, parts, fixed) if request.hint else None
    if found is None:
        found = _arrange(snapshot, request, parts, request.missing, fixed)
    if found is None:
        return explain_shortage(snapshot, request, parts, fixed)
    used = np.array([*fixed.values(), *found.values()], dtype=np.int64)
    depth = tree.common_depth(used) if len(used) else 0
    domain = int(tree.ids[depth][used[0]]) if len(used) else 0
    return Placed(
        request=request,
        nodes={at: tree.names[node] for at, node in sorted(found.items())},
        level=tree.level(depth),
        domain=tree.domain_name(depth, domain),
        shares=_shares(snapshot, request, found) if snapshot.devices else {},
    )


def _shares(
    snapshot: Snapshot, request: GangRequest, found: Mapping[int, int]
) -> dict[int, tuple[Share, ...]]:
    """Devices for the ranks on nodes that share theirs out."""
    devices = {resource: free.copy() for resource, free in snapshot.devices.items()}
    taken = {
        at: bind(devices, node, request.role_of(at).requests) for at, node in sorted(found.items())
    }
    return {at: shares for at, shares in taken.items() if shares}


def parts_of(snapshot: Snapshot, request: GangRequest) -> list[Part]:
    """The roles with ranks that need nodes. Raises ValueError for an unknown level."""
    parts = []
    tree = snapshot.nodes.tree
    if request.topology.preferred:
        tree.depth(request.topology.preferred)
    top = tree.depth(request.topology.required) if request.topology.required else 0
    for first, role in request.spans:
        above = stages(tree, [(group.size, group.level) for group in role.groups])
        indexes = range(first, first + role.replicas)
        if request.missing and not any(at in indexes for at in request.missing):
            continue
        suits = eligible(snapshot, role, request.avoid)
        rooms = capacity(snapshot, role, suits.mask)
        scores = Scores.of(snapshot, role, rooms)
        limit = None
        if role.spread is not None:
            limit = Limit(tree.depth(role.spread.level), role.spread.max_per_domain)
        search = Search(tree, scores, top, above, first, limit)
        parts.append(Part(role, first, suits, rooms, snapshot, search))
    return parts


def _granted(request: GangRequest, part: Part) -> int:
    """The size at which an elastic gang is to be placed: the largest that fits, or the least."""
    search = part.search
    units = search.units(part.rooms, request.missing, {})
    stage = units.active(search.top)
    most = int(units.free[stage].at(search.top).max()) * units.stages[stage].size
    return next((size for size in request.sizes if size <= most), request.sizes[-1])


def _arrange(
    snapshot: Snapshot,
    request: GangRequest,
    parts: Sequence[Part],
    missing: Sequence[int],
    fixed: Mapping[int, int],
) -> dict[int, int] | None:
    """A node for each of the missing indexes, as if the others had those of ``fixed``."""
    missing = sorted(missing)
    waiting = [part for part in parts if part.own(missing)] or list(parts[:1])
    if len(waiting) > 1:
        together = Together(snapshot, request, waiting, missing, fixed)
        return together.arrange(waiting[0].search.top)
    part = waiting[0]
    return part.search.arrange(part.rooms_in(snapshot, request), missing, fixed)


def _with_hints(
    snapshot: Snapshot, request: GangRequest, parts: Sequence[Part], fixed: Mapping[int, int]
) -> dict[int, int] | None:
    """A placement that takes the hints that still fit; None if that is impossible or too wide."""
    left = snapshot
    back: dict[int, int] = {}
    for part in parts:
        own: dict[int, int] = {}
        rooms = part.rooms_in(left, request).copy()
        for at in part.own(sorted(request.missing)):
            node = snapshot.nodes.tree.index.get(request.hint.get(at, ""))
            if node is not None and rooms[node] > 0:
                own[at] = node
                rooms[node] -= 1
        if part.search.tears(own, fixed):
            return None
        back |= own
        left = left.assume(reservations(request, _names(left, own)))
    if not back:
        return None
    rest = [at for at in request.missing if at not in back]
    found = _arrange(left, request, parts, rest, {**fixed, **back})
    if found is None:
        return None
    found |= back
    if not fixed:
        fresh = _arrange(snapshot, request, parts, request.missing, fixed)
        search = parts[0].search
        if fresh is not None and search.level_of(fresh) > search.level_of(found):
            return None
    return found


def _names(snapshot: Snapshot, found: Mapping[int, int]) -> dict[int, str]:
    return {at: snapshot.nodes.tree.names[node] for at, node in found.items()}
