"""Rank groups: which domains of the group level get which groups."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from drakkar_operator.scheduling.sums import Sums
from drakkar_operator.scheduling.topology import BoolArray, IntArray, Tree


@dataclass(eq=False)
class Groups:
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
    units: Sums
    """Groups of full size per domain."""
    torn: str | None = None
    """Why no placement keeps the groups whole, if none does."""

    @classmethod
    def of(
        cls,
        depth: int,
        size: int,
        room: Sums,
        missing: Sequence[int],
        fixed: Mapping[int, int],
    ) -> "Groups":
        """Groups of ``size`` consecutive indexes, each to be in one domain of ``depth``.

        ``missing`` (ascending) need places in ``room``, ``fixed`` has the node of the others.
        """
        tree = room.tree
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
        units = Sums(tree, np.maximum(rooms, 0) // size, depth)
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
