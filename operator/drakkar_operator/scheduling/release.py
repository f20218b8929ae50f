"""What a request would have room for if running gangs gave up theirs.

A gang's ranks are rows (gang, node, amounts). What a set of gangs frees is a sum over its rows, so
a question about any set, or about another set for each domain, costs a few passes over arrays and
no snapshot. Room is counted as ``placement`` counts it: an answer here is an answer there.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from drakkar_operator.scheduling.nodes import PODS
from drakkar_operator.scheduling.predicates import capacity, eligible
from drakkar_operator.scheduling.request import ANY_ADDRESS, GangRequest
from drakkar_operator.scheduling.search import Search
from drakkar_operator.scheduling.snapshot import Snapshot, port_key
from drakkar_operator.scheduling.sums import Scores
from drakkar_operator.scheduling.topology import BoolArray, IntArray
from drakkar_operator.scheduling.workload import Running

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Rows:
    """What gangs hold on nodes that suit the request, sorted by node."""

    gang: IntArray
    node: IntArray
    amounts: IntArray
    """rows x resources of the request."""
    touched: IntArray
    """The nodes, each once."""
    first: IntArray
    """First row of each."""

    @classmethod
    def of(cls, gang: IntArray, node: IntArray, amounts: IntArray) -> "Rows":
        """From rows that are sorted by node."""
        first = np.flatnonzero(np.diff(node, prepend=-1))
        return cls(gang, node, amounts, node[first], first)


@dataclass(frozen=True, eq=False)
class Rooms:
    """Room per domain of the level that the request requires, for any set of released gangs.

    Raises ValueError if the request names an unknown level, or needs what is nowhere.
    """

    request: GangRequest
    search: Search
    asks: IntArray
    """What one replica takes of each resource, the pod itself and its ports included."""
    free: IntArray
    """nodes x resources."""
    base: IntArray
    """Replicas per node with no gang released."""
    rows: Rows

    @classmethod
    def of(cls, snapshot: Snapshot, request: GangRequest, gangs: Sequence[Running]) -> "Rooms":
        """Gangs are numbered in the order given."""
        nodes = snapshot.nodes
        tree, topology = nodes.tree, request.topology
        top = tree.depth(topology.required) if topology.required else 0
        grouped = topology.group_size and topology.group_level
        group_depth = tree.depth(topology.group_level) if grouped and topology.group_level else 0
        named = [r for r, amount in request.requests.items() if amount > 0 and r != PODS]
        if unknown := [r for r in named if r not in nodes.columns]:
            raise ValueError(f"no node has {unknown[0]}")
        if gone := [node for node in request.fixed.values() if node not in tree.index]:
            raise ValueError(f"node {gone[0]} is gone")
        if request.host_ports:
            # A port that a gang holds is one more thing that it can give up.
            snapshot = snapshot.release(rank for gang in gangs for rank in gang.reservations)
        suits = eligible(snapshot, request).mask
        columns = [nodes.columns[resource] for resource in (PODS, *named)]
        asks = np.array([1, *(request.requests[r] for r in named)], dtype=np.int64)
        free = snapshot.free[:, columns]
        if request.host_ports:
            asks = np.append(asks, 1)
            free = np.append(free, np.ones((len(nodes), 1), dtype=np.int64), axis=1)
        rows = _rows(snapshot, request, gangs, columns, suits)
        if request.host_ports:
            np.subtract.at(free, rows.node, rows.amounts)
        base = capacity(snapshot, request, suits)
        search = Search(
            tree, Scores.of(snapshot, request, base), top, group_depth, topology.group_size or 1
        )
        rooms = cls(request, search, asks, free, base, rows)
        base[rows.touched] = rooms._capacity(free[rows.touched])
        return rooms

    def within(self, domain: int) -> "Rooms":
        """The same for one domain alone, at less cost."""
        nodes = self.search.tree.nodes_of(self.search.top, domain)
        inside = (self.rows.node >= nodes.start) & (self.rows.node < nodes.stop)
        rows = Rows.of(self.rows.gang[inside], self.rows.node[inside], self.rows.amounts[inside])
        base = np.zeros_like(self.base)
        base[nodes] = self.base[nodes]
        return replace(self, base=base, rows=rows)

    @property
    def exact(self) -> bool:
        """Whether enough room for whole groups is enough: no rank in place, no group of odd size."""
        grouped = self.search.group_depth > self.search.top
        odd = len(self.request.missing) % self.search.group_size
        return not (grouped and (self.request.fixed or odd))

    @property
    def homes(self) -> BoolArray:
        """Domains that may be used: all, or the one of the ranks in place."""
        tree, top = self.search.tree, self.search.top
        used = {int(tree.ids[top][tree.index[node]]) for node in self.request.fixed.values()}
        homes = np.full(tree.count(top), not used)
        if len(used) == 1:
            homes[used.pop()] = True
        return homes

    def enough(self, rows: BoolArray) -> BoolArray:
        """Per domain: whether it has room once these rows are released. Necessary, and ``exact``."""
        search = self.search
        tree, depth, size = search.tree, search.tree.leaf, 1
        values = self.rooms(rows)
        if self.exact and search.group_depth > search.top:
            depth, size = search.group_depth, search.group_size
            values = tree.roll_up(values, tree.leaf, depth) // size
        units = tree.roll_up(values, depth, search.top)
        enough: BoolArray = (units * size >= len(self.request.missing)) & self.homes
        return enough

    def fits(self, gangs: BoolArray) -> bool:
        """Whether the request has a place once these gangs are released."""
        rows = gangs[self.rows.gang]
        if not self.enough(rows).any():
            return False
        if self.exact:
            return True
        index = self.search.tree.index
        found = self.search.arrange(
            self.rooms(rows),
            sorted(self.request.missing),
            {at: index[node] for at, node in self.request.fixed.items()},
        )
        return found is not None

    def rooms(self, rows: BoolArray) -> IntArray:
        """Replicas that fit per node once these rows are released."""
        held, rooms = self.rows, self.base.copy()
        if len(held.first):
            freed = np.add.reduceat(held.amounts * rows[:, None], held.first)
            rooms[held.touched] = self._capacity(self.free[held.touched] + freed)
        return rooms

    def share(self, gangs: int) -> FloatArray:
        """Per gang: about how many replicas its room holds; several may be needed for one."""
        each = (self.rows.amounts / self.asks).min(axis=1)
        shares: FloatArray = np.bincount(self.rows.gang, each, minlength=gangs).astype(np.float64)
        return shares

    def _capacity(self, free: IntArray) -> IntArray:
        rooms = (free // self.asks).min(axis=1)
        if self.request.host_ports:
            np.minimum(rooms, 1, out=rooms)
        capped: IntArray = np.maximum(rooms, 0)
        return capped


def _rows(
    snapshot: Snapshot,
    request: GangRequest,
    gangs: Sequence[Running],
    columns: Sequence[int],
    suits: BoolArray,
) -> Rows:
    """Where the gangs hold what."""
    nodes = snapshot.nodes
    who: list[int] = []
    where: list[int] = []
    counts: list[int] = []
    amounts = np.zeros((len(gangs), len(columns) + bool(request.host_ports)), dtype=np.int64)
    for at, gang in enumerate(gangs):
        amounts[at, : len(columns)] = nodes.row(gang.request.requests)[columns]
        if request.host_ports:
            amounts[at, -1] = clash(gang.request, request)
        for name, count in Counter(gang.request.fixed.values()).items():
            node = nodes.tree.index.get(name)
            if node is not None and suits[node]:
                who.append(at)
                where.append(node)
                counts.append(count)
    order = np.argsort(np.array(where, dtype=np.int64), kind="stable")
    gang_of = np.array(who, dtype=np.int64)[order]
    held = amounts[gang_of] * np.array(counts, dtype=np.int64)[order][:, None]
    return Rows.of(gang_of, np.array(where, dtype=np.int64)[order], held)


def clash(one: GangRequest, other: GangRequest) -> bool:
    """Whether ranks of the two can't share a node because of their ports."""
    for mine in one.host_ports:
        key, address = port_key(mine)
        for theirs in other.host_ports:
            same, at = port_key(theirs)
            if key == same and (address == at or ANY_ADDRESS in (address, at)):
                return True
    return False
