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

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from drakkar_operator.scheduling.decision import Placed, Unplaced
from drakkar_operator.scheduling.nodes import NodeTable
from drakkar_operator.scheduling.packing import fewest
from drakkar_operator.scheduling.predicates import Eligibility, capacity, eligible
from drakkar_operator.scheduling.reasons import Shortage, explain
from drakkar_operator.scheduling.request import GangRequest
from drakkar_operator.scheduling.snapshot import Snapshot
from drakkar_operator.scheduling.topology import BoolArray, IntArray, Tree

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
    search = _Search(
        tree, _Scores.of(snapshot, request, rooms), top, group_depth, topology.group_size or 1
    )
    found = _with_hints(search, request, rooms, fixed)
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
    search: "_Search", request: GangRequest, rooms: IntArray, fixed: Mapping[int, int]
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


class _Sums:
    """Values per domain of a base depth, and their sums over the domains of wider depths."""

    def __init__(self, tree: Tree, values: IntArray, base: int) -> None:
        self.tree = tree
        self.base = base
        self._at = {base: values}

    def at(self, depth: int) -> IntArray:
        if depth not in self._at:
            self._at[depth] = self.tree.roll_up(self._at[self.base], self.base, depth)
        return self._at[depth]

    def spread(self, depth: int) -> IntArray:
        """Per domain, for each finer depth down to the base: domains below it with room."""
        columns = [
            self.tree.roll_up((self.at(finer) > 0).astype(np.int64), finer, depth)
            for finer in range(depth + 1, self.base + 1)
        ]
        return np.stack(columns, axis=1)

    def least_spread(self, depth: int, domains: IntArray, need: int) -> IntArray:
        """Per given domain, for each finer depth: how few domains inside it can hold ``need``.

        Exact for each depth by itself; all depths together may not reach it.
        """
        tree = self.tree
        wanted = np.zeros(tree.count(depth), dtype=np.int64)
        wanted[domains] = need
        columns = []
        for finer in range(depth + 1, self.base + 1):
            values, above = self.at(finer), tree.ancestors(finer, depth)
            inside = np.flatnonzero((values > 0) & (wanted[above] > 0))
            values, above = values[inside], above[inside]
            order = np.lexsort((-values, above))
            values, above = values[order], above[order]
            before = np.cumsum(values) - values
            first = np.flatnonzero(np.diff(above, prepend=-1))
            before -= np.repeat(before[first], np.diff(first, append=len(above)))
            used = above[before < wanted[above]]
            columns.append(np.bincount(used, minlength=len(wanted))[domains])
        return np.stack(columns, axis=1).astype(np.int64)

    def least_below(self, depth: int, domains: IntArray, need: int) -> list[int]:
        """For each finer depth: how few domains inside the given ones can hold ``need``."""
        least = []
        for finer in range(depth + 1, self.base + 1):
            domains = self.tree.children(finer - 1, domains)
            falling = -np.sort(-self.at(finer)[domains])
            least.append(int(np.searchsorted(np.cumsum(falling), need)) + 1)
        return least


@dataclass(frozen=True, eq=False)
class _Scores:
    """What breaks ties between domains with the same room: less is used first."""

    stranded: _Sums
    """Free devices that the request doesn't ask for."""
    free: _Sums
    """Free amount of the resource that the request takes the largest share of."""

    @classmethod
    def of(cls, snapshot: Snapshot, request: GangRequest, rooms: IntArray) -> "_Scores":
        nodes = snapshot.nodes
        open_ = rooms > 0
        others = [
            column
            for resource, column in nodes.columns.items()
            if "/" in resource and not request.requests.get(resource)
        ]
        stranded = np.zeros(len(nodes), dtype=np.int64)
        for column in others:
            stranded += np.where(open_, np.maximum(snapshot.free[:, column], 0), 0)
        main = nodes.columns[_main_resource(nodes, request)]
        free = np.where(open_, snapshot.free[:, main], 0)
        leaf = nodes.tree.leaf
        return cls(_Sums(nodes.tree, stranded, leaf), _Sums(nodes.tree, free, leaf))


def _main_resource(nodes: NodeTable, request: GangRequest) -> str:
    """The scarcest resource of the request: a device if it asks for one."""

    def share(resource: str) -> tuple[bool, float, str]:
        total = int(nodes.allocatable[:, nodes.columns[resource]].sum())
        return "/" in resource, request.requests[resource] / max(total, 1), resource

    asked = [r for r, amount in request.requests.items() if amount > 0 and r in nodes.columns]
    return max(asked, key=share, default="pods")


class _Search:
    """Placement of a number of replicas on the tree, below one required depth."""

    def __init__(
        self, tree: Tree, scores: _Scores, top: int, group_depth: int, group_size: int
    ) -> None:
        self.tree = tree
        self.scores = scores
        self.top = top
        self.group_depth = group_depth
        self.group_size = group_size

    def level_of(self, found: Mapping[int, int]) -> int:
        return self.tree.common_depth(np.array([*found.values()], dtype=np.int64))

    def tears(self, back: Mapping[int, int], fixed: Mapping[int, int]) -> bool:
        """Whether with these ranks on these nodes a group would be in two domains."""
        ids = self.tree.ids[self.group_depth]
        homes: dict[int, set[int]] = {}
        for at, node in (*fixed.items(), *back.items()):
            homes.setdefault(at // self.group_size, set()).add(int(ids[node]))
        return any(len(homes[at // self.group_size]) > 1 for at in back)

    def arrange(
        self, rooms: IntArray, missing: Sequence[int], fixed: Mapping[int, int]
    ) -> dict[int, int] | None:
        """A node for each missing index (ascending), given the room per node and ranks in place."""
        tree = self.tree
        held = np.unique(np.array([*fixed.values()], dtype=np.int64))
        lowest = tree.common_depth(held) if len(held) else tree.leaf
        if not missing:
            return {} if lowest >= self.top else None
        room = _Sums(tree, rooms, tree.leaf)
        groups = _Groups.of(self, room, missing, fixed) if self.group_depth > self.top else None
        for depth in range(lowest, self.top - 1, -1):
            if groups is None or depth >= self.group_depth:
                found = self._together(room, depth, missing, held)
            else:
                found = self._by_groups(room, depth, groups, held)
            if found is not None:
                return found
        return None

    def _together(
        self, room: _Sums, depth: int, missing: Sequence[int], held: IntArray
    ) -> dict[int, int] | None:
        """All missing ranks in one domain of this depth."""
        need = len(missing)
        fits = room.at(depth) >= need
        domain = self._domain(room, depth, fits, need, held)
        if domain is None:
            return None
        counts = self._fill(room, depth, domain, need, held)
        slots = np.repeat(np.arange(len(counts)), counts)
        return dict(zip(missing, slots.tolist(), strict=True))

    def _by_groups(
        self, room: _Sums, depth: int, groups: "_Groups", held: IntArray
    ) -> dict[int, int] | None:
        """Every group in one domain of the group depth, all of them in one of this depth."""
        tree, at = self.tree, self.group_depth
        if groups.torn is not None:
            return None
        units = groups.units
        fits = groups.fits(depth)
        while (domain := self._domain(units, depth, fits, len(groups.whole), held)) is not None:
            counts = self._fill(units, depth, domain, len(groups.whole), tree.ids[at][held])
            members = groups.assign(depth, domain, counts, held)
            if members is not None:
                return self._within(room, members, held)
            fits[domain] = False
        return None

    def _within(
        self, room: _Sums, members: Mapping[int, list[int]], held: IntArray
    ) -> dict[int, int]:
        """Nodes for the ranks that each domain of the group depth got."""
        tree, depth = self.tree, self.group_depth
        found: dict[int, int] = {}
        for domain, indexes in members.items():
            if depth == tree.leaf:
                found |= dict.fromkeys(indexes, domain)
                continue
            nodes = tree.nodes_of(depth, domain)
            near = held[(held >= nodes.start) & (held < nodes.stop)]
            counts = self._fill(room, depth, domain, len(indexes), near)[nodes]
            slots = nodes.start + np.repeat(np.arange(len(counts)), counts)
            found |= dict(zip(indexes, slots.tolist(), strict=True))
        return found

    def _domain(
        self,
        room: _Sums,
        depth: int,
        fits: BoolArray,
        need: int,
        held: IntArray,
    ) -> int | None:
        """The best domain of those that fit; the one of the ranks in place if there are any."""
        if len(held):
            domain = int(self.tree.ids[depth][held[0]])
            return domain if fits[domain] else None
        candidates = np.flatnonzero(fits)
        return self._best(room, depth, candidates, need) if len(candidates) else None

    def _best(self, room: _Sums, depth: int, candidates: IntArray, need: int) -> int:
        """Of domains that each have enough room, the one to use."""
        scores = self.scores

        def keys() -> Iterator[IntArray]:
            """What decides, per candidate, least first; computed only while there is a tie."""
            if depth < room.base and need:
                yield from room.least_spread(depth, candidates, need).T
            yield scores.stranded.at(depth)[candidates]
            yield room.at(depth)[candidates]
            for wider in range(depth, 0, -1):
                above = self.tree.ancestors(depth, wider)[candidates]
                yield scores.free.at(wider)[above]

        left = np.arange(len(candidates))
        for key in keys() if len(left) > 1 else ():
            values = key[left]
            left = left[values == values.min()]
            if len(left) == 1:
                break
        return int(candidates[left[0]])

    def _fill(self, room: _Sums, depth: int, domain: int, need: int, held: IntArray) -> IntArray:
        """Units per domain of the room's base depth, ``need`` in total, all inside one domain.

        ``held`` are base domains in it that the gang uses already: they come first, then the
        domains around them, from the narrowest level to the widest.
        """
        tree, base = self.tree, room.base
        values = room.at(base)
        counts = np.zeros(len(values), dtype=np.int64)
        if not need:
            return counts
        if room.at(depth)[domain] == need:
            inside = tree.inside(depth, domain, base)
            counts[inside] = values[inside]
            return counts
        known = np.empty(0, dtype=np.int64)  # domains one level narrower that are used up
        first = tree.starts[base][held]
        for level in range(base, depth - 1, -1):
            around = np.unique(tree.ids[level][first]) if level > depth else np.array([domain])
            if level == base:
                pool, at = around, base
            else:
                pool, at = np.setdiff1d(tree.children(level, around), known), level + 1
            total = int(room.at(at)[pool].sum())
            if total >= need:
                self._descend(room, at, pool, need, counts)
                break
            for each in pool.tolist():
                inside = tree.inside(at, each, base)
                counts[inside] = values[inside]
            need -= total
            known = around
        return counts

    def _descend(
        self, room: _Sums, depth: int, domains: IntArray, need: int, counts: IntArray
    ) -> None:
        """Choose among these domains, then among those inside the chosen ones, down to the base."""
        for level in range(depth, room.base + 1):
            if level > depth:
                domains = self.tree.children(level - 1, domains)
            domains = self._choose(room, level, domains, need)
        rooms = room.at(room.base)[domains]
        counts[domains] = rooms
        # No fewer would do, so what is left over is less than any of them holds.
        over = int(rooms.sum()) - need
        counts[domains[np.lexsort([-domains, rooms])[0]]] -= over

    def _choose(self, room: _Sums, depth: int, domains: IntArray, need: int) -> IntArray:
        """The fewest of these domains that have the room, and of those the best."""
        rooms = room.at(depth)[domains]
        domains, rooms = domains[rooms > 0], rooms[rooms > 0]
        enough = rooms >= need
        if enough.any():
            return np.array([self._best(room, depth, domains[enough], need)])
        finer = depth < room.base
        keys = [
            domains,
            self.scores.free.at(depth)[domains],
            self.scores.stranded.at(depth)[domains],
        ]
        if finer:
            keys += list(room.spread(depth)[domains].T[::-1])
        order = np.lexsort(keys)
        domains, rooms = domains[order], rooms[order]
        tight = fewest(rooms, need)
        if not finer:
            return domains[tight]
        # Domains with more room may need fewer nodes, though they leave more over.
        roomy = np.argsort(-rooms, kind="stable")[: len(tight)]
        return min(
            (domains[tight], domains[roomy]),
            key=lambda choice: (
                room.least_below(depth, choice, need),
                int(room.at(depth)[choice].sum()),
            ),
        )


@dataclass(eq=False)
class _Groups:
    """The rank groups that need nodes, and what each domain of the group depth has for them."""

    tree: Tree
    depth: int
    size: int
    whole: list[list[int]]
    """Members of each group of full size with no rank in place."""
    odd: list[list[int]]
    """Smaller groups with no rank in place, the largest first."""
    forced: dict[int, list[list[int]]]
    """Domain -> missing members of groups that have ranks in it."""
    rooms: IntArray
    """Replicas per domain that are free after the forced ones."""
    units: _Sums
    """Groups of full size per domain."""
    torn: str | None = None
    """Why no placement keeps the groups whole, if none does."""

    @classmethod
    def of(
        cls, search: _Search, room: _Sums, missing: Sequence[int], fixed: Mapping[int, int]
    ) -> "_Groups":
        tree, depth, size = search.tree, search.group_depth, search.group_size
        rooms = room.at(depth).copy()
        homes: dict[int, set[int]] = {}
        for at, node in fixed.items():
            homes.setdefault(at // size, set()).add(int(tree.ids[depth][node]))
        members: dict[int, list[int]] = {}
        for at in missing:
            members.setdefault(at // size, []).append(at)
        whole: list[list[int]] = []
        odd: list[list[int]] = []
        forced: dict[int, list[list[int]]] = {}
        torn = None
        for group, indexes in members.items():
            home = homes.get(group, set())
            span = f"replicas {group * size}-{(group + 1) * size - 1}"
            if len(home) > 1:
                torn = f"{span} must share one {tree.level(depth)} but run in {len(home)}"
            elif home:
                (domain,) = home
                rooms[domain] -= len(indexes)
                forced.setdefault(domain, []).append(indexes)
                if rooms[domain] < 0:
                    torn = (
                        f"replica {indexes[0]} must be in {tree.level(depth)} "
                        f"{tree.domain_name(depth, domain)} like the rest of {span}; "
                        f"it has room for {int(room.at(depth)[domain])}"
                    )
            else:
                (whole if len(indexes) == size else odd).append(indexes)
        odd.sort(key=lambda indexes: (-len(indexes), indexes))
        units = _Sums(tree, np.maximum(rooms, 0) // size, depth)
        return cls(tree, depth, size, whole, odd, forced, rooms, units, torn)

    def fits(self, depth: int) -> BoolArray:
        """Per domain of this wider depth: room for all groups (necessary; exact for one odd)."""
        units = self.units.at(depth)
        need = len(self.whole)
        if not self.odd:
            return units >= need
        rests = np.where(self.rooms > 0, self.rooms % self.size, 0)
        largest = np.maximum.reduceat(rests, self.tree.ids[self.depth][self.tree.starts[depth]])
        fits: BoolArray = (units > need) | ((units == need) & (largest >= len(self.odd[0])))
        return fits

    def assign(
        self, depth: int, domain: int, counts: IntArray, held: IntArray
    ) -> dict[int, list[int]] | None:
        """Domain of the group depth -> the indexes it gets, whole groups in tree order.

        ``counts`` are whole groups per domain. None if an odd group finds no room.
        """
        tree = self.tree
        left = self.rooms - counts * self.size
        used = counts > 0
        used[tree.ids[self.depth][held]] = True
        got: dict[int, list[list[int]]] = {at: list(own) for at, own in self.forced.items()}
        groups = iter(self.whole)
        for at in np.flatnonzero(counts).tolist():
            got.setdefault(at, []).extend(next(groups) for _ in range(int(counts[at])))
        for indexes in self.odd:
            near = self._near(depth, domain, left, used, len(indexes))
            if near is None:
                return None
            left[near] -= len(indexes)
            used[near] = True
            got.setdefault(near, []).append(indexes)
        return {at: [i for indexes in sorted(own) for i in indexes] for at, own in got.items()}

    def _near(
        self,
        depth: int,
        domain: int,
        left: IntArray,
        used: BoolArray,
        need: int,
    ) -> int | None:
        """The tightest domain with room that is nearest to those in use."""
        tree = self.tree
        inside = np.zeros(len(left), dtype=np.bool_)
        inside[tree.inside(depth, domain, self.depth)] = True
        fits = inside & (left >= need)
        for level in range(self.depth, depth - 1, -1):
            above = tree.ancestors(self.depth, level)
            near = np.zeros(tree.count(level), dtype=np.bool_)
            near[above[used]] = True
            found = np.flatnonzero(fits & near[above]) if level > depth else np.flatnonzero(fits)
            if len(found):
                return int(found[np.argmin(left[found])])
        return None


def _shortage(
    snapshot: Snapshot,
    request: GangRequest,
    suits: Eligibility,
    rooms: IntArray,
    search: _Search,
    fixed: Mapping[int, int],
) -> Unplaced:
    """Where the gang comes nearest to fitting, and what is short there."""
    tree, top = search.tree, search.top
    held = np.unique(np.array([*fixed.values()], dtype=np.int64))
    room = _Sums(tree, rooms, tree.leaf)
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
        groups = _Groups.of(search, room, sorted(request.missing), fixed)
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
