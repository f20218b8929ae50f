"""Values per domain of the topology tree, and what breaks ties between domains."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from drakkar_operator.scheduling.fragmentation import FloatArray, Fragmentation
from drakkar_operator.scheduling.nodes import NodeTable
from drakkar_operator.scheduling.request import Role
from drakkar_operator.scheduling.snapshot import Snapshot
from drakkar_operator.scheduling.topology import IntArray, Tree


class Sums:
    """Values per domain of a base depth, and their sums over the domains of wider depths."""

    def __init__(self, tree: Tree, values: IntArray, base: int) -> None:
        self.tree = tree
        self.base = base
        self._at = {base: values}
        self._spread: dict[int, IntArray] = {}

    def at(self, depth: int) -> IntArray:
        if depth not in self._at:
            self._at[depth] = self.tree.roll_up(self._at[self.base], self.base, depth)
        return self._at[depth]

    def finer(self, depth: int) -> list[int]:
        """The depths below that split domains further, down to the base."""
        count = self.tree.count
        return [d for d in range(depth + 1, self.base + 1) if count(d) > count(d - 1)]

    def spread(self, depth: int) -> IntArray:
        """Per domain, for each finer depth: domains below it with room."""
        if depth not in self._spread:
            columns = [
                self.tree.roll_up((self.at(finer) > 0).astype(np.int64), finer, depth)
                for finer in self.finer(depth)
            ]
            shape = (self.tree.count(depth), len(columns))
            self._spread[depth] = np.array(columns, dtype=np.int64).T.reshape(shape)
        return self._spread[depth]

    def least_spread(self, depth: int, domains: IntArray, need: int) -> IntArray:
        """Per given domain, for each finer depth: how few domains inside it can hold ``need``.

        Exact for each depth by itself; all depths together may not reach it.
        """
        tree = self.tree
        wanted = np.zeros(tree.count(depth), dtype=np.int64)
        wanted[domains] = need
        columns = []
        for finer in self.finer(depth):
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
        return np.array(columns, dtype=np.int64).T.reshape(len(domains), len(columns))

    def least_below(self, depth: int, domains: IntArray, need: int) -> list[int]:
        """For each finer depth: how few domains inside the given ones can hold ``need``."""
        least = []
        for finer in range(depth + 1, self.base + 1):
            domains = self.tree.children(finer - 1, domains)
            falling = -np.sort(-self.at(finer)[domains])
            least.append(int(np.searchsorted(np.cumsum(falling), need)) + 1)
        return least


class CappedSums(Sums):
    """Sums of which each domain of one depth counts only up to a cap of its own."""

    def __init__(self, tree: Tree, values: IntArray, base: int, depth: int, caps: IntArray) -> None:
        """``depth`` is that of the caps, the base or wider."""
        super().__init__(tree, values, base)
        self.depth = depth
        self.caps = caps
        self._capped: dict[int, IntArray] = {}
        self.inside = Sums(tree, values, base)
        """Without the caps: for use inside one domain that gets no more than its cap."""
        self.across = Sums(tree, np.minimum(self.inside.at(depth), caps), depth)
        """Over the domains that have caps."""

    def at(self, depth: int) -> IntArray:
        if depth <= self.depth:
            return self.across.at(depth)
        if depth not in self._capped:
            caps = self.caps[self.tree.ancestors(depth, self.depth)]
            self._capped[depth] = np.minimum(self.inside.at(depth), caps)
        return self._capped[depth]


@dataclass(frozen=True, eq=False)
class Scores:
    """What breaks ties between domains with the same room: less is used first."""

    stranded: Sums
    """Free devices that the request doesn't ask for."""
    free: Sums
    """Free amount of the resource that the request takes the largest share of."""
    growth: Callable[[IntArray], FloatArray] | None = None
    """Of fragmentation, by one replica on each given node; None without a job mix."""

    @classmethod
    def of(cls, snapshot: Snapshot, role: Role, rooms: IntArray) -> "Scores":
        nodes = snapshot.nodes
        open_ = rooms > 0
        others = [
            column
            for resource, column in nodes.columns.items()
            if "/" in resource and not role.requests.get(resource)
        ]
        stranded = np.zeros(len(nodes), dtype=np.int64)
        for column in others:
            stranded += np.where(open_, np.maximum(snapshot.free[:, column], 0), 0)
        main = nodes.columns[_main_resource(nodes, role)]
        free = np.where(open_, snapshot.free[:, main], 0)
        leaf = nodes.tree.leaf
        growth = None
        if snapshot.mix:
            fragmentation = Fragmentation(snapshot)
            growth = partial(fragmentation.growth, role)
        return cls(Sums(nodes.tree, stranded, leaf), Sums(nodes.tree, free, leaf), growth)


def _main_resource(nodes: NodeTable, role: Role) -> str:
    """The scarcest resource of a role: a device if it asks for one."""

    def share(resource: str) -> tuple[bool, float, str]:
        total = int(nodes.allocatable[:, nodes.columns[resource]].sum())
        return "/" in resource, role.requests[resource] / max(total, 1), resource

    asked = [r for r, amount in role.requests.items() if amount > 0 and r in nodes.columns]
    return max(asked, key=share, default="pods")
