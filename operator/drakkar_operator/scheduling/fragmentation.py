"""Fragmentation: free devices that the jobs which are asked for could not use.

As in Fragmentation Gradient Descent (Weng et al., USENIX ATC'23) a placement is preferred that lets
the expected unusable capacity grow least, over the roles of the job mix, weighed by how often they are
asked for. What a role can't use of a node is measured more strictly here: what is left of its free
devices when it is filled with replicas of that role. (There a node with room for one replica counts as
usable but for devices of which less is free than the replica takes.) docs/benchmarks.md compares the
two on that paper's experiment: which of them packs better depends on the workload.

What a request would do to each node is remembered with the nodes, and computed anew for nodes only
whose free amounts have changed.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from drakkar_operator.scheduling import shares
from drakkar_operator.scheduling.predicates import eligible
from drakkar_operator.scheduling.request import Role
from drakkar_operator.scheduling.shares import DEVICE
from drakkar_operator.scheduling.snapshot import Snapshot
from drakkar_operator.scheduling.topology import BoolArray, IntArray

FloatArray = NDArray[np.float64]

_KEPT_CELLS = 1 << 18
"""Nodes times requests that are remembered."""
_UNBOUND = 1 << 30


@dataclass(frozen=True, eq=False)
class _Wishes:
    """The roles of the mix that ask for one device resource, as rows."""

    resource: str
    column: int
    columns: IntArray
    asks: IntArray
    """These columns x roles: what one replica takes."""
    suits: BoolArray
    """nodes x roles: whether the role's rules allow the node."""
    weights: FloatArray
    amounts: IntArray
    """The different amounts of the device, rising."""
    which: IntArray
    """Per role: its amount among these."""


@dataclass(eq=False)
class _Known:
    """Growth by one replica of a role on each node, as it was with these free amounts."""

    free: IntArray
    devices: dict[str, IntArray]
    growth: FloatArray


class Fragmentation:
    """How much of a snapshot's free devices the mix could not use, and what a role would change."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.wishes = _wishes(snapshot)

    def unusable(self, rows: IntArray) -> FloatArray:
        """Expected amount per given node that is free and of no use."""
        free = self.snapshot.free[rows]
        return self._measure(rows, free, {n: d[rows] for n, d in self.snapshot.devices.items()})

    def growth(self, role: Role, rows: IntArray) -> FloatArray:
        """By how much it grows on each given node with room for it when one replica comes there."""
        nodes = self.snapshot.nodes
        memory = nodes.remembered("fragmentation")
        if not isinstance(memory, dict):
            memory = {}
            nodes.remember("fragmentation", memory)
        key = (self.snapshot.mix, frozenset(role.requests.items()))
        known = memory.pop(key, None)
        if known is None:
            known = _Known(
                np.full_like(self.snapshot.free, np.iinfo(np.int64).min),
                {n: np.full_like(d, -2) for n, d in self.snapshot.devices.items()},
                np.zeros(len(nodes)),
            )
        memory[key] = known
        while len(memory) > 8 and len(memory) * len(nodes) > _KEPT_CELLS:
            memory.pop(next(iter(memory)))
        changed = (known.free[rows] != self.snapshot.free[rows]).any(axis=1)
        for name, devices in self.snapshot.devices.items():
            changed |= (known.devices[name][rows] != devices[rows]).any(axis=1)
        fresh = rows[changed]
        if len(fresh):
            known.growth[fresh] = self._growth(role, fresh)
            known.free[fresh] = self.snapshot.free[fresh]
            for name, devices in self.snapshot.devices.items():
                known.devices[name][fresh] = devices[fresh]
        found: FloatArray = known.growth[rows]
        return found

    def _growth(self, role: Role, rows: IntArray) -> FloatArray:
        snapshot = self.snapshot
        free = snapshot.free[rows]
        devices = {name: free[rows] for name, free in snapshot.devices.items()}
        before = self._measure(rows, free, devices)
        free = free - snapshot.nodes.row(role.requests)
        after = {name: _taken(own, role.requests.get(name, 0)) for name, own in devices.items()}
        # Sums of floats differ in their last digits: what is equal must look equal.
        return np.round(self._measure(rows, free, after) - before, 6)

    def _measure(self, rows: IntArray, free: IntArray, devices: dict[str, IntArray]) -> FloatArray:
        total = np.zeros(len(rows))
        for wish in self.wishes:
            rooms = np.where(wish.suits[rows], _UNBOUND, 0)
            for column, asks in zip(wish.columns.tolist(), wish.asks, strict=True):
                fits = np.maximum(free[:, column, None], 0) // np.maximum(asks, 1)
                np.minimum(rooms, np.where(asks > 0, fits, _UNBOUND), out=rooms)
            own = devices.get(wish.resource)
            if own is not None:
                each = [shares.rooms(own, amount) for amount in wish.amounts.tolist()]
                np.minimum(rooms, np.array(each)[wish.which].T, out=rooms)
            left = np.maximum(free[:, wish.column], 0)
            total += (left[:, None] - rooms * wish.amounts[wish.which]) @ wish.weights
        return total


def _taken(devices: IntArray, amount: int) -> IntArray:
    """The devices of each node once a replica has taken what ``shares.choose`` gives it."""
    if amount <= 0:
        return devices
    left = devices.copy()
    if amount < DEVICE:
        fitting = np.where(devices >= amount, devices, np.iinfo(np.int64).max)
        at = np.argmin(fitting, axis=1)
        rows = np.flatnonzero(fitting[np.arange(len(devices)), at] <= DEVICE)
        left[rows, at[rows]] -= amount
        return left
    whole = devices >= DEVICE
    first = whole & (np.cumsum(whole, axis=1) <= amount // DEVICE)
    left[first] = 0
    return left


def _wishes(snapshot: Snapshot) -> list[_Wishes]:
    nodes = snapshot.nodes
    key = ("wishes", snapshot.mix)
    known = nodes.remembered(key)
    if isinstance(known, list):
        return known
    kinds: dict[str, list[tuple[Role, float]]] = {}
    for role, weight in snapshot.mix.roles:
        asked = {r for r, a in role.requests.items() if a > 0}
        device = max((r for r in asked if "/" in r), default=None)
        if device is not None and asked <= nodes.columns.keys():
            kinds.setdefault(device, []).append((role, weight))
    found = [_kind(snapshot, device, roles) for device, roles in sorted(kinds.items())]
    nodes.remember(key, found)
    return found


def _kind(snapshot: Snapshot, device: str, roles: list[tuple[Role, float]]) -> _Wishes:
    nodes = snapshot.nodes
    rows = np.array([nodes.row(role.requests) for role, _ in roles])
    columns = np.flatnonzero(rows.any(axis=0))
    amounts, which = np.unique(rows[:, nodes.columns[device]], return_inverse=True)
    weights = np.array([weight for _, weight in roles])
    suits = [eligible(snapshot, replace(role, host_ports=())).mask for role, _ in roles]
    return _Wishes(
        device,
        nodes.columns[device],
        columns,
        rows[:, columns].T.copy(),
        np.array(suits).T.copy(),
        weights / weights.sum(),
        amounts,
        which.reshape(-1),
    )
