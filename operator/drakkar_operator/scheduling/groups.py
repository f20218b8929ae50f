"""Rank groups: what each domain has room for, in whole groups, at every level that has groups.

A gang's replicas are the units of stage 0, at the nodes. Each further stage joins consecutive units
into groups that share a domain: stage 1 the smallest groups, the last stage the largest. Sizes
divide each other and domains nest, so how many groups of a stage a domain has room for is the number
of units that its own domains hold, over the ratio of the sizes: exact at every level.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from drakkar_operator.scheduling.sums import CappedSums, Sums
from drakkar_operator.scheduling.topology import IntArray, Tree


@dataclass(frozen=True, slots=True)
class Limit:
    """No domain of ``depth`` holds more than ``most`` replicas."""

    depth: int
    most: int


@dataclass(frozen=True, slots=True)
class Stage:
    """Groups of ``size`` replicas, each inside one domain of ``depth``."""

    depth: int
    size: int


def stages(tree: Tree, groups: Sequence[tuple[int, str]]) -> tuple[Stage, ...]:
    """The stages above the replicas, from (size, level) of groups, smallest first.

    A group inside another one that has the same level or a narrower one adds nothing and is left
    out. Raises ValueError for an unknown level.
    """
    kept: list[Stage] = []
    for size, level in groups:
        depth = tree.depth(level)
        while kept and kept[-1].depth <= depth:
            kept.pop()
        kept.append(Stage(depth, size))
    return tuple(kept)


class Units:
    """The units of each stage that need places, and what each domain has for them.

    A unit is known by its first index.
    """

    def __init__(
        self,
        tree: Tree,
        rooms: IntArray,
        above: Sequence[Stage],
        first: int,
        missing: Sequence[int],
        fixed: Mapping[int, int],
        limit: Limit | None = None,
    ) -> None:
        """``missing`` (ascending) of a role that begins at index ``first`` need places in ``rooms``.

        ``fixed`` has the node of its other replicas.
        """
        self.tree = tree
        self.limit = limit
        self.stages = (Stage(tree.leaf, 1), *above)
        self.free = [Sums(tree, rooms, tree.leaf)]
        """Per stage: units that each domain of its depth has room for besides the forced ones."""
        self.homeless: list[list[int]] = [list(missing)]
        """Per stage: units none of whose replicas has a node."""
        self.forced: list[dict[int, list[int]]] = [{}]
        """Per stage: domain -> units of the stage below whose group has replicas in it."""
        self._torn: list[str | None] = [None]
        if limit is not None:
            held = np.array([*fixed.values()], dtype=np.int64)
            count = tree.count(limit.depth)
            here = np.bincount(tree.ids[limit.depth][held], minlength=count).astype(np.int64)
            self.allowed = limit.most - here
            """Per domain of the limit: replicas that it may get besides those that stay."""
            self._left = self.allowed.copy()
            """Per domain of the limit: replicas that it may get besides those that stay and those
            that their groups tie to it."""
        self.free[0] = self._limited(0, self.free[0])
        for at in range(1, len(self.stages)):
            self._join(at, first, fixed)

    def _join(self, at: int, first: int, fixed: Mapping[int, int]) -> None:
        tree, stage, inner = self.tree, self.stages[at], self.stages[at - 1]
        homes: dict[int, set[int]] = {}
        for replica, node in fixed.items():
            unit = replica - (replica - first) % stage.size
            homes.setdefault(unit, set()).add(int(tree.ids[stage.depth][node]))
        values = self.free[at - 1].at(stage.depth)
        homeless: list[int] = []
        forced: dict[int, list[int]] = {}
        # Also groups whose parts all have their places: those need not be near to each other.
        wanting = {each - (each - first) % stage.size for each in self.homeless[0]} if homes else ()
        torn = self._torn[at - 1] or next(
            (
                f"{_span(group, stage.size)} must share one {tree.level(stage.depth)} "
                f"but run in {len(homes[group])}"
                for group in sorted(wanting)
                if len(homes.get(group, ())) > 1
            ),
            None,
        )
        for unit in self.homeless[at - 1]:
            group = unit - (unit - first) % stage.size
            home = homes.get(group)
            if home is None:
                if group == unit:
                    homeless.append(group)
            elif len(home) == 1:
                forced.setdefault(next(iter(home)), []).append(unit)
        if forced:
            values = values.copy()
            for domain, units in forced.items():
                room = int(values[domain])
                values[domain] -= len(units)
                if room < len(units):
                    group = units[0] - (units[0] - first) % stage.size
                    torn = torn or (
                        f"{_span(units[0], inner.size)} must be in {tree.level(stage.depth)} "
                        f"{tree.domain_name(stage.depth, domain)} like the rest of "
                        f"{_span(group, stage.size)}; it has room for {room}"
                    )
        ratio = stage.size // inner.size
        self.homeless.append(homeless)
        self.forced.append(forced)
        torn = self._tie(at) or torn
        self._torn.append(torn)
        sums = Sums(tree, np.maximum(values, 0) // ratio, stage.depth)
        self.free.append(self._limited(at, sums))

    def _tie(self, at: int) -> str | None:
        """Count what a stage's groups tie to the limit's domains; what is wrong if it is too much."""
        limit, stage, size = self.limit, self.stages[at], self.stages[at - 1].size
        if limit is None or stage.depth < limit.depth:
            return None
        above = self.tree.ancestors(stage.depth, limit.depth)
        for domain, units in self.forced[at].items():
            self._left[above[domain]] -= len(units) * size
            if self._left[above[domain]] < 0:
                level = self.tree.level(limit.depth)
                name = self.tree.domain_name(limit.depth, int(above[domain]))
                return (
                    f"{_span(units[0], size)} must be with the rest of its group in {level} {name}, "
                    f"which would then hold more than {limit.most} replicas"
                )
        return None

    def _limited(self, at: int, sums: Sums) -> Sums:
        """The room of a stage within the limit, where the stage's domains lie in the limit's."""
        limit, stage = self.limit, self.stages[at]
        if limit is None or stage.depth < limit.depth:
            return sums
        caps = np.maximum(self._left, 0) // stage.size
        return CappedSums(self.tree, sums.at(stage.depth), stage.depth, limit.depth, caps)

    def active(self, depth: int) -> int:
        """The last stage whose groups a domain of this depth may hold apart from each other."""
        return max(at for at, stage in enumerate(self.stages) if at == 0 or stage.depth > depth)

    def torn(self, stage: int) -> str | None:
        """Why no placement keeps the groups up to this stage whole, if none does."""
        return self._torn[stage]

    def inside(self, stage: int, domain: int, units: Sequence[int]) -> list[int]:
        """Units of the stage below that a domain with these units gets, in order."""
        size, step = self.stages[stage].size, self.stages[stage - 1].size
        inner = [part for unit in units for part in range(unit, unit + size, step)]
        forced = self.forced[stage].get(domain)
        return sorted([*inner, *forced]) if forced else inner


def _span(unit: int, size: int) -> str:
    return f"replica {unit}" if size == 1 else f"replicas {unit}-{unit + size - 1}"
