"""The search for places on the tree: which level, which domain, how many on which node."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from drakkar_operator.scheduling.fragmentation import FloatArray
from drakkar_operator.scheduling.groups import Limit, Stage, Units
from drakkar_operator.scheduling.packing import fewest
from drakkar_operator.scheduling.sums import CappedSums, Scores, Sums
from drakkar_operator.scheduling.topology import BoolArray, IntArray, Tree


class Search:
    """Placement of the replicas of one role on the tree, below one required depth."""

    def __init__(
        self,
        tree: Tree,
        scores: Scores,
        top: int,
        above: Sequence[Stage],
        first: int = 0,
        limit: Limit | None = None,
    ) -> None:
        """``above``: the stages of rank groups; ``first``: the role's first index.

        ``limit``: most replicas of the role in the domains of a level.
        """
        self.limit = limit
        self.tree = tree
        self.scores = scores
        self.top = top
        # All ranks share a domain of the top depth anyway.
        self.above = tuple(stage for stage in above if stage.depth > top)
        self.first = first

    def units(self, rooms: IntArray, missing: Sequence[int], fixed: Mapping[int, int]) -> Units:
        """What needs places and what each domain has for it; ``fixed`` are ranks of this role."""
        return Units(self.tree, rooms, self.above, self.first, missing, fixed, self.limit)

    def arrange(
        self, rooms: IntArray, missing: Sequence[int], fixed: Mapping[int, int]
    ) -> dict[int, int] | None:
        """A node for each missing index (ascending), given the room per node and ranks in place."""
        held = np.unique(np.array([*fixed.values()], dtype=np.int64))
        lowest = self.tree.common_depth(held) if len(held) else self.tree.leaf
        if not missing:
            return {} if lowest >= self.top else None
        units = self.units(rooms, missing, fixed)
        for depth in range(lowest, self.top - 1, -1):
            stage = units.active(depth)
            if units.torn(stage) is not None:
                continue
            need = len(units.homeless[stage])
            fits = units.free[stage].at(depth) >= need
            domain = self.domain(units.free[stage], depth, fits, need, held)
            if domain is not None:
                return self.fill(units, depth, domain, held)
        return None

    def level_of(self, found: Mapping[int, int]) -> int:
        """Depth of the tightest domain that holds these ranks (index -> node)."""
        return self.tree.common_depth(np.array([*found.values()], dtype=np.int64))

    def tears(self, back: Mapping[int, int], fixed: Mapping[int, int]) -> bool:
        """Whether with these ranks on these nodes a group would be in two domains, or the limit
        is exceeded."""
        if self.limit is not None and back:
            ids = self.tree.ids[self.limit.depth]
            nodes = np.array([*fixed.values(), *back.values()], dtype=np.int64)
            if int(np.bincount(ids[nodes]).max()) > self.limit.most:
                return True
        for stage in self.above:
            ids = self.tree.ids[stage.depth]
            homes: dict[int, set[int]] = {}
            for at, node in (*fixed.items(), *back.items()):
                homes.setdefault((at - self.first) // stage.size, set()).add(int(ids[node]))
            if any(len(homes[(at - self.first) // stage.size]) > 1 for at in back):
                return True
        return False

    def fill(self, units: Units, depth: int, domain: int, held: IntArray) -> dict[int, int]:
        """A node for each missing index, all in one domain of this depth that has the room.

        Groups go to the domains of their stage first, from the largest groups to the replicas;
        consecutive ones share a domain or are neighbours. ``held`` are nodes in use: places near to
        them come first.
        """
        stage = units.active(depth)
        at = {domain: units.homeless[stage]}
        at = self._spread_out(units.free[stage], depth, at, held)
        for outer in range(stage, 0, -1):
            for each in units.forced[outer]:
                at.setdefault(each, [])
            inner = {each: units.inside(outer, each, at[each]) for each in sorted(at)}
            at = self._spread_out(units.free[outer - 1], units.stages[outer].depth, inner, held)
        return {index: node for node, indexes in at.items() for index in indexes}

    def _spread_out(
        self, room: Sums, depth: int, units: Mapping[int, list[int]], held: IntArray
    ) -> dict[int, list[int]]:
        """Units that each domain of the room's base gets, given those of domains of ``depth``."""
        tree, base = self.tree, room.base
        if depth == base:
            return {domain: own for domain, own in units.items() if own}
        if isinstance(room, CappedSums):
            if depth < room.depth:
                units = self._spread_out(room.across, depth, units, held)
            return self._spread_out(room.inside, max(depth, room.depth), units, held)
        found: dict[int, list[int]] = {}
        for domain, own in units.items():
            if not own:
                continue
            nodes = tree.nodes_of(depth, domain)
            near = held[(held >= nodes.start) & (held < nodes.stop)]
            inside = tree.inside(depth, domain, base)
            counts = self._fill(room, depth, domain, len(own), np.unique(tree.ids[base][near]))
            part = counts[inside]
            used = np.flatnonzero(part)
            ends = np.cumsum(part[used]).tolist()
            begin = 0
            for at, end in zip((used + inside.start).tolist(), ends, strict=True):
                found[at] = own[begin:end]
                begin = end
        return found

    def domain(
        self,
        room: Sums,
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

    def _best(self, room: Sums, depth: int, candidates: IntArray, need: int) -> int:
        """Of domains that each have enough room, the one to use."""
        scores = self.scores

        def keys() -> Iterator[IntArray | FloatArray]:
            """What decides, per candidate, least first; computed only while there is a tie."""
            if depth < room.base and need:
                yield from room.least_spread(depth, candidates, need).T
            if scores.growth is not None and depth == self.tree.leaf:
                yield scores.growth(candidates)
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

    def _fill(self, room: Sums, depth: int, domain: int, need: int, held: IntArray) -> IntArray:
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
        for level in range(base if len(held) else depth, depth - 1, -1):
            around = np.unique(tree.ids[level][first]) if level > depth else np.array([domain])
            if level == base:
                pool, at = around, base
            else:
                pool, at = tree.children(level, around), level + 1
                if len(known):
                    pool = np.setdiff1d(pool, known)
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
        self, room: Sums, depth: int, domains: IntArray, need: int, counts: IntArray
    ) -> None:
        """Choose among these domains, then among those inside the chosen ones, down to the base."""
        for level in range(depth, room.base + 1):
            if level > depth:
                domains = self.tree.children(level - 1, domains)
            if level == room.base or self.tree.count(level) < self.tree.count(level + 1):
                domains = self._choose(room, level, domains, need)
        rooms = room.at(room.base)[domains]
        counts[domains] = rooms
        # No fewer would do, so what is left over is less than any of them holds.
        over = int(rooms.sum()) - need
        counts[domains[np.lexsort([-domains, rooms])[0]]] -= over

    def _choose(self, room: Sums, depth: int, domains: IntArray, need: int) -> IntArray:
        """The fewest of these domains that have the room, and of those the best."""
        rooms = room.at(depth)[domains]
        domains, rooms = domains[rooms > 0], rooms[rooms > 0]
        enough = rooms >= need
        if enough.any():
            return np.array([self._best(room, depth, domains[enough], need)])
        finer = depth < room.base
        keys: list[IntArray | FloatArray] = [
            domains,
            self.scores.free.at(depth)[domains],
            self.scores.stranded.at(depth)[domains],
        ]
        if self.scores.growth is not None and depth == self.tree.leaf:
            keys.append(self.scores.growth(domains))
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
