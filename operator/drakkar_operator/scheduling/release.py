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

from drakkar_operator.scheduling.decision import Placed
from drakkar_operator.scheduling.nodes import PODS
from drakkar_operator.scheduling.placement import parts_of, place
from drakkar_operator.scheduling.predicates import ports_clash
from drakkar_operator.scheduling.request import GangRequest
from drakkar_operator.scheduling.search import Search
from drakkar_operator.scheduling.snapshot import Snapshot
from drakkar_operator.scheduling.together import Part
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

    An elastic request is asked about at its least size. Raises ValueError if the request names an
    unknown level, or needs what is nowhere.
    """

    request: GangRequest
    snapshot: Snapshot
    gangs: Sequence[Running]
    parts: tuple[Part, ...]
    """The roles that need nodes."""
    asks: IntArray
    """roles x resources: what one replica takes, the pod itself and its ports included."""
    free: IntArray
    """nodes x resources."""
    base: IntArray
    """roles x nodes: replicas that fit with no gang released."""
    rows: Rows

    @classmethod
    def of(cls, snapshot: Snapshot, request: GangRequest, gangs: Sequence[Running]) -> "Rooms":
        """Gangs are numbered in the order given."""
        nodes = snapshot.nodes
        if request.sizes and not request.fixed:
            request = request.resized(request.sizes[-1])
        wanted = {r for role in request.roles for r, a in role.requests.items() if a > 0} - {PODS}
        if unknown := sorted(wanted - nodes.columns.keys()):
            raise ValueError(f"no node has {unknown[0]}")
        if gone := [node for node in request.fixed.values() if node not in nodes.tree.index]:
            raise ValueError(f"node {gone[0]} is gone")
        ported = any(role.host_ports for role in request.roles)
        freed = snapshot
        if ported:
            # A port that a gang holds is one more thing that it can give up.
            freed = snapshot.release(rank for gang in gangs for rank in gang.reservations)
        parts = tuple(parts_of(freed, request))
        columns = [nodes.columns[resource] for resource in (PODS, *sorted(wanted))]
        asks = np.array([nodes.row(part.role.requests)[columns] for part in parts], dtype=np.int64)
        free = freed.free[:, columns]
        if ported:
            # One more resource per role: its ports, of which a node has one set.
            own = [bool(part.role.host_ports) for part in parts]
            asks = np.append(asks, np.diag(own).astype(np.int64), axis=1)
            free = np.append(free, np.ones((len(nodes), len(parts)), dtype=np.int64), axis=1)
        rows = _rows(freed, parts, gangs, columns, ported)
        if ported:
            np.subtract.at(free, rows.node, rows.amounts)
        base = np.array([part.rooms for part in parts])
        rooms = cls(request, snapshot, gangs, parts, asks, free, base, rows)
        base[:, rows.touched] = rooms._capacity(free[rows.touched], rows.touched)
        return rooms

    @property
    def search(self) -> Search:
        """The search of the first role: tree and required depth are the same for all."""
        return self.parts[0].search

    def within(self, domain: int) -> "Rooms":
        """The same for one domain alone, at less cost."""
        nodes = self.search.tree.nodes_of(self.search.top, domain)
        inside = (self.rows.node >= nodes.start) & (self.rows.node < nodes.stop)
        rows = Rows.of(self.rows.gang[inside], self.rows.node[inside], self.rows.amounts[inside])
        base = np.zeros_like(self.base)
        base[:, nodes] = self.base[:, nodes]
        return replace(self, base=base, rows=rows)

    @property
    def exact(self) -> bool:
        """Whether room for whole groups of each role is enough: one role, no group in part, no
        limit per domain."""
        return not (
            len(self.parts) > 1
            or self.shared
            or self.search.limit is not None
            or (self.search.above and self.request.fixed)
        )

    @property
    def shared(self) -> bool:
        """Whether parts of devices are asked for: what one frees is no sum then."""
        asked = (resource for part in self.parts for resource in part.role.requests)
        return any(resource in self.snapshot.devices for resource in asked)

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
        enough = self.homes
        for part, rooms in zip(self.parts, self.rooms(rows), strict=True):
            tree, top = part.search.tree, part.search.top
            depth, size, values = tree.leaf, 1, rooms
            for stage in () if self.request.fixed else part.search.above:
                values = tree.roll_up(values, depth, stage.depth) // (stage.size // size)
                depth, size = stage.depth, stage.size
            need = len(part.own(self.request.missing))
            enough &= tree.roll_up(values, depth, top) * size >= need
        return enough

    def fits(self, gangs: BoolArray) -> bool:
        """Whether the request has a place once these gangs are released."""
        rows = gangs[self.rows.gang]
        if not self.enough(rows).any():
            return False
        if self.exact:
            return True
        if len(self.parts) > 1 or self.shared:
            chosen = (self.gangs[at] for at in np.flatnonzero(gangs).tolist())
            freed = self.snapshot.release(rank for gang in chosen for rank in gang.reservations)
            return isinstance(place(freed, self.request), Placed)
        index = self.search.tree.index
        found = self.search.arrange(
            self.rooms(rows)[0],
            sorted(self.request.missing),
            {at: index[node] for at, node in self.request.fixed.items()},
        )
        return found is not None

    def rooms(self, rows: BoolArray) -> IntArray:
        """roles x nodes: replicas that fit, each role by itself, once these rows are released."""
        held, rooms = self.rows, self.base.copy()
        if len(held.first):
            freed = np.add.reduceat(held.amounts * rows[:, None], held.first)
            rooms[:, held.touched] = self._capacity(self.free[held.touched] + freed, held.touched)
        return rooms

    def share(self, gangs: int) -> FloatArray:
        """Per gang: about how many replicas its room holds; several may be needed for one."""
        total = self.asks.max(axis=0)
        asked = total > 0
        each = (self.rows.amounts[:, asked] / total[asked]).min(axis=1)
        shares: FloatArray = np.bincount(self.rows.gang, each, minlength=gangs).astype(np.float64)
        return shares

    def _capacity(self, free: IntArray, nodes: IntArray) -> IntArray:
        """roles x these nodes."""
        found = []
        for part, asks in zip(self.parts, self.asks, strict=True):
            asked = asks > 0
            rooms = (free[:, asked] // asks[asked]).min(axis=1)
            if part.role.host_ports:
                np.minimum(rooms, 1, out=rooms)
            found.append(np.where(part.suits.mask[nodes], np.maximum(rooms, 0), 0))
        return np.array(found, dtype=np.int64)


def _rows(
    snapshot: Snapshot,
    parts: Sequence[Part],
    gangs: Sequence[Running],
    columns: Sequence[int],
    ported: bool,
) -> Rows:
    """Where the gangs hold what."""
    nodes = snapshot.nodes
    suits = np.logical_or.reduce([part.suits.mask for part in parts])
    who: list[int] = []
    where: list[int] = []
    held: list[IntArray] = []
    for at, gang in enumerate(gangs):
        for first, role in gang.request.spans:
            amounts = nodes.row(role.requests)[columns]
            if ported:
                amounts = np.append(amounts, [ports_clash(role, part.role) for part in parts])
            own = range(first, first + role.replicas)
            names = (gang.request.fixed[rank] for rank in own if rank in gang.request.fixed)
            for name, count in Counter(names).items():
                node = nodes.tree.index.get(name)
                if node is not None and suits[node]:
                    who.append(at)
                    where.append(node)
                    held.append(amounts * count)
    order = np.argsort(np.array(where, dtype=np.int64), kind="stable")
    gang_of = np.array(who, dtype=np.int64)[order]
    width = len(columns) + (len(parts) if ported else 0)
    amounts = np.array(held, dtype=np.int64).reshape(len(held), width)[order]
    return Rows.of(gang_of, np.array(where, dtype=np.int64)[order], amounts)
