"""Whether several roles fit in a domain together, and on which nodes the smaller ones go.

Replicas of one role are identical, so its room is a sum over nodes. With two roles what one takes of
a node the other lacks. This is settled exactly by dynamic programming up the tree: for every domain
and every number of replicas of the smaller roles inside it, the most units of the largest role that
still fit. Tables of sibling domains are joined two by two, all pairs of a level at once. The numbers
of all smaller roles together make one state.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from drakkar_operator.scheduling.groups import Units
from drakkar_operator.scheduling.predicates import ports_clash
from drakkar_operator.scheduling.request import Role
from drakkar_operator.scheduling.snapshot import Snapshot
from drakkar_operator.scheduling.sums import CappedSums
from drakkar_operator.scheduling.topology import BoolArray, IntArray, Tree

_MOST_WORK = 4_000_000
"""Joined states times nodes; beyond it the answer would take more than about 100 ms."""
_NEVER = -(1 << 40)


@dataclass(frozen=True, eq=False)
class Member:
    """A role as far as it needs places."""

    role: Role
    mask: BoolArray
    """Nodes that suit it."""
    units: Units
    missing: int


@dataclass(frozen=True, eq=False)
class _Layer:
    """A table per domain, and which two rows of the layer before were joined to each row."""

    table: IntArray
    left: IntArray
    right: IntArray
    """-1: the left row stands alone."""


class Split:
    """Rows are domains, columns states: how many replicas of each smaller role are inside."""

    def __init__(self, snapshot: Snapshot, big: Member, small: Sequence[Member], top: int) -> None:
        self.tree = snapshot.nodes.tree
        self.big = big
        self.small = small
        sizes = [member.missing + 1 for member in small]
        self.states = np.array(list(itertools.product(*map(range, sizes))), dtype=np.int64)
        weights = np.array([math.prod(sizes[at + 1 :]) for at in range(len(sizes))])
        one, other = np.divmod(np.arange(len(self.states) ** 2), len(self.states))
        sums = self.states[one] + self.states[other]
        valid = (sums < np.array(sizes)).all(axis=1)
        target = sums[valid] @ weights
        order = np.argsort(target, kind="stable")
        self._one, self._other = one[valid][order], other[valid][order]
        self._first = np.searchsorted(target[order], np.arange(len(self.states)))
        self._layers: dict[int, list[_Layer]] = {}
        self._tables = {self.tree.leaf: self._at_nodes(snapshot)}
        for depth in range(self.tree.leaf - 1, top - 1, -1):
            self._tables[depth] = self._join(depth)

    @staticmethod
    def affordable(tree: Tree, small: Sequence[Member]) -> bool:
        """Whether the exact answer takes a bearable time."""
        pairs = math.prod((m.missing + 1) * (m.missing + 2) // 2 for m in small)
        states = math.prod(m.missing + 1 for m in small)
        return max(pairs, states**2 // 16) * len(tree.names) <= _MOST_WORK

    def fits(self, depth: int) -> BoolArray:
        """Per domain of this depth: whether all that is missing fits into it."""
        need = len(self.big.units.homeless[self.big.units.active(depth)])
        fits: BoolArray = self._tables[depth][:, -1] >= need
        return fits

    def counts(self, depth: int, domain: int) -> list[IntArray]:
        """Per smaller role: replicas on each node, so that the largest role has its room too."""
        found = [np.zeros(len(self.tree.names), dtype=np.int64) for _ in self.small]
        todo = [(depth, domain, len(self.states) - 1)]
        while todo:
            at, row, state = todo.pop()
            if not state:
                continue
            if at == self.tree.leaf:
                for counts, number in zip(found, self.states[state].tolist(), strict=True):
                    counts[row] = number
                continue
            todo += [(at + 1, *part) for part in self._parts(at, row, state)]
        return found

    def _parts(self, depth: int, row: int, state: int) -> list[tuple[int, int]]:
        """(domain one level narrower, its state) that make up the best table entry of a domain."""
        layers = self._layers[depth]
        todo, found = [(len(layers) - 1, row, state)], []
        stop = np.append(self._first, len(self._one))
        while todo:
            at, row, state = todo.pop()
            if at == 0:
                found.append((row, state))
                continue
            layer, before = layers[at], layers[at - 1].table
            left, right = int(layer.left[row]), int(layer.right[row])
            if right < 0:
                todo.append((at - 1, left, state))
                continue
            span = slice(int(self._first[state]), int(stop[state + 1]))
            one, other = self._one[span], self._other[span]
            best = int(np.argmax(before[left, one] + before[right, other]))
            todo.append((at - 1, left, int(one[best])))
            todo.append((at - 1, right, int(other[best])))
        return found

    def _at_nodes(self, snapshot: Snapshot) -> IntArray:
        """Room of the largest role beside each number of the smaller ones on a node."""
        nodes, big = snapshot.nodes, self.big.role
        table = np.empty((len(nodes), len(self.states)), dtype=np.int64)
        rows = [nodes.row(member.role.requests) for member in self.small]
        wanted = nodes.row(big.requests)
        columns = np.flatnonzero(wanted)
        known = all(r in nodes.columns for r, amount in big.requests.items() if amount > 0)
        for at, state in enumerate(self.states.tolist()):
            taken = sum((n * row for n, row in zip(state, rows, strict=True)), 0 * wanted)
            left = snapshot.free - taken
            room = np.where(self.big.mask & known, 1 << 30, 0)
            for column in columns.tolist():
                np.minimum(room, left[:, column] // wanted[column], out=room)
            if big.host_ports:
                np.minimum(room, 1, out=room)
            here = [m for m, n in zip(self.small, state, strict=True) if n]
            if any(ports_clash(big, member.role) for member in here):
                room[:] = 0
            valid = np.ones(len(nodes), dtype=np.bool_)
            for column in np.flatnonzero(taken).tolist():
                valid &= left[:, column] >= 0
            for member in here:
                valid &= member.mask
            if not self._possible(here, state):
                valid[:] = False
            table[:, at] = np.where(valid, np.maximum(room, 0), _NEVER)
        return table

    def _possible(self, here: Sequence[Member], state: Sequence[int]) -> bool:
        """Whether one node's ports and resources are there at all for these replicas."""
        if any(n > 1 and m.role.host_ports for m, n in zip(self.small, state, strict=True)):
            return False
        return not any(ports_clash(a.role, b.role) for a, b in itertools.combinations(here, 2))

    def _join(self, depth: int) -> IntArray:
        """Tables of a depth from those of the depth below, the groups of that depth applied."""
        table = self._grouped(depth + 1)
        above = self.tree.ancestors(depth + 1, depth)
        nothing = np.arange(0)
        layers = [_Layer(table, nothing, nothing)]
        while len(above) > self.tree.count(depth):
            first = np.flatnonzero(np.diff(above, prepend=-1))
            sizes = np.diff(first, append=len(above))
            place = np.arange(len(above)) - np.repeat(first, sizes)
            left = np.flatnonzero(place % 2 == 0)
            paired = (place[left] + 1) < np.repeat(sizes, sizes)[left]
            right = np.where(paired, left + 1, -1)
            joined = table[left]
            rows = np.flatnonzero(paired)
            both = table[left[rows]][:, self._one] + table[right[rows]][:, self._other]
            if len(rows):
                joined[rows] = np.maximum.reduceat(both, self._first, axis=1)
            table = np.where(joined < 0, _NEVER, joined)
            above = above[left]
            layers.append(_Layer(table, left, right))
        self._layers[depth] = layers
        return table

    def _grouped(self, depth: int) -> IntArray:
        """The table of a depth with the rank groups that live there, whole ones only, and the limits."""
        table = self._tables[depth]
        units = self.big.units
        for at, stage in enumerate(units.stages):
            if at and stage.depth == depth:
                table = table.copy()
                for domain, parts in units.forced[at].items():
                    table[domain] -= len(parts)
                ratio = stage.size // units.stages[at - 1].size
                table = np.where(table < 0, _NEVER, table // ratio)
        joined = max(at for at, stage in enumerate(units.stages) if stage.depth >= depth)
        room = units.free[joined]
        if isinstance(room, CappedSums) and room.depth == depth:
            table = np.where(table < 0, _NEVER, np.minimum(table, room.caps[:, None]))
        for column, member in enumerate(self.small):
            if member.units.limit is not None and member.units.limit.depth == depth:
                too_many = self.states[:, column] > np.maximum(member.units.allowed, 0)[:, None]
                table = np.where(too_many, _NEVER, table)
            for at, stage in enumerate(member.units.stages):
                if at and stage.depth == depth:
                    rest = self.states[:, column] - _forced(self.tree, member.units, at)[:, None]
                    table = np.where((rest < 0) | (rest % stage.size != 0), _NEVER, table)
        return table


def _forced(tree: Tree, units: Units, stage: int) -> IntArray:
    """Per domain of a stage: missing replicas whose groups up to this stage tie them to it."""
    total = np.zeros(tree.count(units.stages[stage].depth), dtype=np.int64)
    for at in range(1, stage + 1):
        parts: Mapping[int, list[int]] = units.forced[at]
        depth = units.stages[at].depth
        for domain, own in parts.items():
            above = int(tree.ancestors(depth, units.stages[stage].depth)[domain])
            total[above] += len(own) * units.stages[at - 1].size
    return total
