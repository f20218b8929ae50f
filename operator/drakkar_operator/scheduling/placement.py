"""Gang placement: one node for every missing rank of a gang, or the reason why not.

``place`` is exact about whether a gang fits: replicas are identical, so what a domain has room for
is a sum over its nodes. Among all placements it prefers, in this order:

1. The constraints hold: node rules, free resources, the ``required`` level, rank groups.
2. Ranks go back to the node they ran on before (``hint``). A gang with no rank in place does so
   only if it costs no wider common level.
3. The lowest common level: the tightest domain that holds the whole gang, ranks that stay
   included. This holds with a ``preferred`` level and without one: ``preferred`` only says that
   wider is allowed.
4. Ranks near to ranks that stay: same node, then same rack, and so on.
5. The fewest domains at each finer level, the widest first.
6. No device is stranded: nodes whose other devices nobody asked for are used last.
7. The least is left over in the domains that are used, then in those around them: what remains
   free elsewhere remains whole. Nodes that become exactly full come first, empty nodes and empty
   racks last.
8. Names in natural order. The order in which nodes were listed plays no part.

1 to 3 are met exactly, 5 exactly at the first finer level and by look-ahead below it: a level is
settled before the next finer one, with bounds of what that will cost. Ranks are given out in tree
order: consecutive indexes share a node, then a rack, then a block (as rank reordering in Kueue TAS
and Arnold, arXiv 2509.15940, ask for).
"""

from collections.abc import Mapping

import numpy as np

from drakkar_operator.scheduling.decision import Placed, Unplaced
from drakkar_operator.scheduling.groups import Groups
from drakkar_operator.scheduling.predicates import Eligibility, capacity, eligible
from drakkar_operator.scheduling.reasons import Shortage, explain
from drakkar_operator.scheduling.request import GangRequest
from drakkar_operator.scheduling.search import Search
from drakkar_operator.scheduling.snapshot import Snapshot
from drakkar_operator.scheduling.sums import Scores, Sums
from drakkar_operator.scheduling.topology import IntArray

__all__ = ["Placed", "Unplaced", "place"]


def place(snapshot: Snapshot, request: GangRequest) -> Placed | Unplaced:
    """Nodes for all missing ranks at once, or why there are none. Never a part of them."""
    nodes = snapshot.nodes
    tree = nodes.tree
    topology = request.topology
    try:
        top = tree.depth(topology.required) if topology.required else 0
        if topology.preferred:
            tree.depth(topology.preferred)
        grouped = bool(topology.group_size and topology.group_level)
        group_depth = tree.depth(topology.group_level) if grouped and topology.group_level else 0
    except ValueError as error:
        return Unplaced(str(error))
    if not len(nodes):
        return Unplaced(
            "the cluster has no nodes", need=len(request.missing), level=tree.level(top)
        )
    lost = sorted(at for at, node in request.fixed.items() if node not in tree.index)
    if lost:
        return Unplaced(
            f"replica {lost[0]} is to stay on node {request.fixed[lost[0]]}, which is gone",
            need=len(request.missing),
            level=tree.level(top),
        )
    suits = eligible(snapshot, request)
    rooms = capacity(snapshot, request, suits.mask)
    fixed = {at: tree.index[node] for at, node in request.fixed.items()}
    search = Search(
        tree, Scores.of(snapshot, request, rooms), top, group_depth, topology.group_size or 1
    )
    found = _with_hints(search, request, rooms, fixed) if request.hint else None
    if found is None:
        found = search.arrange(rooms, sorted(request.missing), fixed)
    if found is None:
        return _shortage(snapshot, request, suits, rooms, search, fixed)
    used = np.array([*fixed.values(), *found.values()], dtype=np.int64)
    depth = tree.common_depth(used) if len(used) else 0
    domain = int(tree.ids[depth][used[0]]) if len(used) else 0
    return Placed(
        request=request,
        nodes={at: tree.names[node] for at, node in sorted(found.items())},
        level=tree.level(depth),
        domain=tree.domain_name(depth, domain),
    )


def _with_hints(
    search: Search, request: GangRequest, rooms: IntArray, fixed: Mapping[int, int]
) -> dict[int, int] | None:
    """A placement that takes the hints that still fit; None if that is impossible or too wide."""
    left = rooms.copy()
    back: dict[int, int] = {}
    for at in sorted(request.missing):
        node = search.tree.index.get(request.hint.get(at, ""))
        if node is not None and left[node] > 0:
            back[at] = node
            left[node] -= 1
    if not back or search.tears(back, fixed):
        return None
    rest = [at for at in sorted(request.missing) if at not in back]
    found = search.arrange(left, rest, {**fixed, **back})
    if found is None:
        return None
    found |= back
    if not fixed:
        fresh = search.arrange(rooms, sorted(request.missing), fixed)
        if fresh is not None and search.level_of(fresh) > search.level_of(found):
            return None
    return found


def _shortage(
    snapshot: Snapshot,
    request: GangRequest,
    suits: Eligibility,
    rooms: IntArray,
    search: Search,
    fixed: Mapping[int, int],
) -> Unplaced:
    """Where the gang comes nearest to fitting, and what is short there."""
    tree, top = search.tree, search.top
    held = np.unique(np.array([*fixed.values()], dtype=np.int64))
    room = Sums(tree, rooms, tree.leaf)
    need, unit, torn = len(request.missing), "replica", None
    homes = np.unique(tree.ids[top][held])
    if len(homes) > 1:
        torn = (
            f"the ranks that stay are in {len(homes)} {tree.level(top)}s, "
            f"but the job requires one {tree.level(top)}"
        )
    values = room.at(top)
    at = int(homes[0]) if len(homes) else int(np.argmax(values))
    if search.group_depth > top and int(values[at]) >= need:
        groups = Groups.of(
            search.group_depth, search.group_size, room, sorted(request.missing), fixed
        )
        torn = torn or groups.torn
        need, unit = len(groups.whole) + len(groups.odd), "group"
        values = groups.units.at(top)
        at = int(homes[0]) if len(homes) else int(np.argmax(values))
    where = Shortage(
        depth=top,
        domain=at,
        need=need,
        best=int(values[at]),
        unit=unit,
        anchored=bool(len(homes)),
        torn=torn,
    )
    return explain(snapshot, request, suits, rooms, where)
