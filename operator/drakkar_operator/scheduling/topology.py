"""The topology tree: which nodes share a zone, a block, a rack.

Nodes are kept in tree order, so that the nodes of every domain are neighbours in all arrays: a sum
over the domains of a level is one ``np.add.reduceat``, and ranks given out in this order are
neighbours in the fabric.

A domain is identified by its path: the same rack label in two blocks means two racks. A node
without the label of a level is in a domain of its own there, since nothing says what it is near to.
A level whose label no node carries has the domains of the next narrower level, so that a cluster
that labels racks only is a cluster with racks.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from drakkar.constants import LEVEL_HOST

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
Levels = tuple[tuple[str, str], ...]
"""(level name, node label), widest first."""

CLUSTER: Final = "cluster"
"""Name of the root, at depth 0."""

_DIGITS: Final = re.compile(r"\d+")


class Labelled(Protocol):
    """What the tree needs of a node."""

    @property
    def name(self) -> str: ...
    @property
    def labels(self) -> Mapping[str, str]: ...


def natural(text: str) -> str:
    """A sort key that puts rack-2 before rack-10."""
    return f"{_DIGITS.sub(lambda digits: digits[0].zfill(12), text)}\0{text}"


def with_host(levels: Levels) -> Levels:
    """The levels, ending in one whose domains are the nodes themselves."""
    if levels and levels[-1][1] == LEVEL_HOST:
        return levels
    name = next(n for n in ("host", "node", "machine", "leaf") if n not in dict(levels))
    return (*levels, (name, LEVEL_HOST))


@dataclass(frozen=True, eq=False)
class Tree:
    """Nodes in tree order and their domains at each depth.

    Depth 0 is the whole cluster, depth d the level ``levels[d - 1]``, the last depth the nodes.
    Domains of a depth are numbered from 0 in tree order.
    """

    levels: Levels
    names: tuple[str, ...]
    ids: tuple[IntArray, ...]
    """Per depth: the domain of each node."""
    starts: tuple[IntArray, ...]
    """Per depth: the first node of each domain."""
    paths: tuple[tuple[str | None, ...], ...]
    """Per node: its label at each level, None where it has none."""
    unlabelled: frozenset[str]
    """Levels whose label no node carries."""
    _relations: dict[tuple[int, int], IntArray] = field(default_factory=dict)

    @classmethod
    def build(cls, nodes: Iterable[Labelled], levels: Levels) -> "Tree":
        """Sort the nodes into a tree; names are unique."""
        levels = with_host(levels)
        labels = [label for _, label in levels[:-1]]
        rows: list[tuple[list[str], str, tuple[str | None, ...]]] = []
        for node in nodes:
            get = node.labels.get
            # An empty label value says as little as a missing one.
            path = (*[get(label) or None for label in labels], node.name)
            rows.append(([], node.name, path))
        width = len(levels)
        bare = [all(row[2][at] is None for row in rows) for at in range(width)]
        known: dict[str, str] = {}
        for keys, name, path in rows:
            own = known.setdefault(name, natural(name))
            key = ""
            for at in range(width - 1, -1, -1):
                value = path[at]
                if value is not None:
                    if value not in known:
                        known[value] = natural(value)
                    key = "a" + known[value]
                elif not bare[at]:
                    key = "b" + own  # after the known domains
                keys.append(key)
            keys.reverse()
        rows.sort()
        # Per node, the widest level at which it leaves the domain of the node before it.
        leaves = np.zeros(len(rows), dtype=np.int64)
        before: list[str] = []
        for at, (keys, _, _) in enumerate(rows):
            if at:
                level = 0
                while keys[level] == before[level]:
                    level += 1
                leaves[at] = level + 1
            before = keys
        starts = tuple(np.flatnonzero(leaves <= depth) for depth in range(width + 1))
        ids = tuple(np.cumsum(leaves <= depth) - 1 for depth in range(width + 1))
        return cls(
            levels=levels,
            names=tuple(row[1] for row in rows),
            ids=ids,
            starts=starts,
            paths=tuple(row[2] for row in rows),
            unlabelled=frozenset(name for (name, _), b in zip(levels, bare, strict=True) if b),
        )

    @cached_property
    def index(self) -> Mapping[str, int]:
        """Position of each node."""
        return {name: at for at, name in enumerate(self.names)}

    @property
    def leaf(self) -> int:
        """Depth of the nodes."""
        return len(self.levels)

    def depth(self, level: str) -> int:
        """Depth of a level. Raises ValueError that names the known levels."""
        if level == CLUSTER:
            return 0
        for at, (name, _) in enumerate(self.levels):
            if name == level:
                return at + 1
        known = ", ".join(name for name, _ in self.levels)
        raise ValueError(f"topology level '{level}' is unknown; known: {known}")

    def level(self, depth: int) -> str:
        """Name of the level at a depth."""
        return self.levels[depth - 1][0] if depth else CLUSTER

    def count(self, depth: int) -> int:
        """How many domains there are."""
        return len(self.starts[depth])

    def domain_name(self, depth: int, domain: int) -> str:
        """Name for people: zone-a/block-1/rack-2."""
        if not depth:
            return CLUSTER
        first = int(self.starts[depth][domain])
        parts = []
        for at, value in enumerate(self.paths[first][:depth]):
            name, _ = self.levels[at]
            if value is not None:
                parts.append(value)
            elif name not in self.unlabelled:
                parts.append(f"no-{name}")
        if not parts or self.paths[first][depth - 1] is None:
            parts.append(self.names[first])
        return "/".join(parts)

    def nodes_of(self, depth: int, domain: int) -> slice:
        """The nodes of a domain."""
        starts = self.starts[depth]
        stop = int(starts[domain + 1]) if domain + 1 < len(starts) else len(self.names)
        return slice(int(starts[domain]), stop)

    def ancestors(self, depth: int, wider: int) -> IntArray:
        """Per domain of ``depth``: the domain of the wider depth that it lies in."""
        return self._first(depth, wider)

    def inside(self, depth: int, domain: int, finer: int) -> slice:
        """The domains of a finer depth (or the same) that lie in a domain."""
        nodes = self.nodes_of(depth, domain)
        return slice(int(self.ids[finer][nodes.start]), int(self.ids[finer][nodes.stop - 1]) + 1)

    def children(self, depth: int, domains: IntArray) -> IntArray:
        """Domains one depth below the given ones, in the order of those."""
        first = self.ids[depth + 1][self.starts[depth][domains]]
        after = domains + 1
        last = after == self.count(depth)
        stop = self.ids[depth + 1][self.starts[depth][np.where(last, 0, after)]]
        sizes = np.where(last, self.count(depth + 1), stop) - first
        offsets = np.cumsum(sizes) - sizes
        below: IntArray = np.arange(int(sizes.sum())) + np.repeat(first - offsets, sizes)
        return below

    def roll_up(self, values: IntArray, depth: int, wider: int) -> IntArray:
        """Sums over the domains of ``wider`` of values given per domain of ``depth``."""
        return np.add.reduceat(values, self._first(wider, depth))

    def _first(self, depth: int, other: int) -> IntArray:
        """Per domain of ``depth``: the domain of the other depth that its first node is in."""
        key = depth, other
        if key not in self._relations:
            self._relations[key] = self.ids[other][self.starts[depth]]
        return self._relations[key]

    def common_depth(self, nodes: IntArray) -> int:
        """Depth of the tightest domain that holds all these nodes (at least one)."""
        for depth in range(self.leaf, 0, -1):
            ids = self.ids[depth][nodes]
            if (ids == ids[0]).all():
                return depth
        return 0
