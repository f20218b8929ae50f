"""Rank groups: what each domain has room for, in whole groups, at every level that has groups.

A gang's replicas are the units of stage 0, at the nodes. Each further stage joins consecutive units
into groups that share a domain: stage 1 the smallest groups, the last stage the largest. Sizes
divide each other and domains nest, so how many groups of a stage a domain has room for is the number
of units that its own domains hold, over the ratio of the sizes: exact at every level.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from drakkar_operator.scheduling.sums import Sums
from drakkar_operator.scheduling.topology import IntArray, Tree


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
    ) -> None:
        """``missing`` (ascending) of a role that begins at index ``first`` need places in ``rooms``.

        ``fixed`` has the node of its other replicas.
        """
        self.tree = tree
        self.stages = (Stage(tree.leaf, 1), *above)
        self.free = [Sums(tree, rooms, tree.leaf)]
        """Per stage: units that each domain of its depth has room for besides the forced ones."""
        self.homeless: list[list[int]] = [list(missing)]
        """Per stage: units none of whose replicas has a node."""
        self.forced: list[dict[int, list[int]]] = [{}]
        """Per stage: domain -> units of the stage below whose group has replicas in it."""
        self._torn: list[str | None] = [None]
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
        self.free.append(Sums(tree, np.maximum(values, 0) // ratio, stage.depth))
        self.homeless.append(homeless)
        self.forced.append(forced)
        self._torn.append(torn)

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
