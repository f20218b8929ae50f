"""The search for places on the tree: which level, which domain, how many on which node."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from drakkar_operator.scheduling.groups import Groups
from drakkar_operator.scheduling.packing import fewest
from drakkar_operator.scheduling.sums import Scores, Sums
from drakkar_operator.scheduling.topology import BoolArray, IntArray, Tree


class Search:
    """Placement of a number of replicas on the tree, below one required depth."""

    def __init__(
        self, tree: Tree, scores: Scores, top: int, group_depth: int, group_size: int
    ) -> None:
        self.tree = tree
        self.scores = scores
        self.top = top
        self.group_depth = group_depth
        self.group_size = group_size

    def level_of(self, found: Mapping[int, int]) -> int:
        """Depth of the tightest domain that holds these ranks (index -> node)."""
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
        room = Sums(tree, rooms, tree.leaf)
        groups = None
        if self.group_depth > self.top:
            groups = Groups.of(self.group_depth, self.group_size, room, missing, fixed)
        for depth in range(lowest, self.top - 1, -1):
            if groups is None or depth >= self.group_depth:
                found = self._together(room, depth, missing, held)
            else:
                found = self._by_groups(room, depth, groups, held)
            if found is not None:
                return found
        return None

    def _together(
        self, room: Sums, depth: int, missing: Sequence[int], held: IntArray
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
        self, room: Sums, depth: int, groups: Groups, held: IntArray
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
        self, room: Sums, members: Mapping[int, list[int]], held: IntArray
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
