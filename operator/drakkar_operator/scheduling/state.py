"""ClusterState: the free amounts of every node, kept up to date one event at a time.

A snapshot costs one copy of an array while pods change, an array per changed node's table when
nodes change their state, and a new tree only when nodes come, go or change labels. Not
thread-safe: the operator's loop owns it.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from drakkar_operator.model import Amounts, NodeView, PodView, Share
from drakkar_operator.scheduling.decision import Reservation
from drakkar_operator.scheduling.nodes import NodeTable
from drakkar_operator.scheduling.request import HostPort
from drakkar_operator.scheduling.shares import Devices, hold
from drakkar_operator.scheduling.snapshot import Ports, Snapshot, port_key
from drakkar_operator.scheduling.topology import IntArray, Levels


@dataclass(frozen=True, slots=True)
class _Held:
    """What a bound pod holds."""

    node: str
    requests: Amounts
    host_ports: tuple[HostPort, ...]
    shares: tuple[Share, ...]


class ClusterState:
    """Nodes and bound pods, from informers' events in any order."""

    def __init__(self, levels: Levels) -> None:
        self._levels = levels
        self._nodes: dict[str, NodeView] = {}
        self._held: dict[str, _Held] = {}
        self._table: NodeTable | None = None
        self._changed: dict[str, NodeView] = {}
        self._free: IntArray | None = None
        self._ports: dict[tuple[str, int], Counter[tuple[str, str]]] = {}
        self._shared_ports: dict[tuple[str, int], frozenset[tuple[str, str]]] = {}

    def set_levels(self, levels: Levels) -> None:
        """Use another topology from the next snapshot on."""
        if levels != self._levels:
            self._levels = levels
            self._table = self._free = None

    def upsert_node(self, node: NodeView) -> None:
        """A node came or changed."""
        before = self._nodes.get(node.name)
        if before == node:
            return
        self._nodes[node.name] = node
        if before is None or before.labels != node.labels:
            self._table = self._free = None
        else:
            self._changed[node.name] = node

    def remove_node(self, name: str) -> None:
        """A node went; its pods count again should it come back."""
        if self._nodes.pop(name, None) is not None:
            self._changed.pop(name, None)
            self._table = self._free = None

    def upsert_pod(self, pod: PodView) -> None:
        """A pod came or changed: it counts while it is bound and not finished."""
        held = None
        if pod.node is not None and not pod.finished:
            held = _Held(pod.node, pod.requests, pod.host_ports, pod.shares)
        before = self._held.get(pod.uid)
        if before == held:
            return
        if before is not None:
            self._count(before, -1)
            del self._held[pod.uid]
        if held is not None:
            self._held[pod.uid] = held
            self._count(held, +1)

    def remove_pod(self, uid: str) -> None:
        """A pod is gone."""
        before = self._held.pop(uid, None)
        if before is not None:
            self._count(before, -1)

    def snapshot(self, reserved: Iterable[Reservation] = ()) -> Snapshot:
        """What is free now, less the reservations; later events don't change it."""
        table, free = self._current()
        copy = free.copy(order="F")
        copy.setflags(write=False)
        snapshot = Snapshot(table, copy, self._port_sets(), self._devices(table))
        reserved = list(reserved)
        return snapshot.assume(reserved) if reserved else snapshot

    def _current(self) -> tuple[NodeTable, IntArray]:
        if self._table is None:
            self._table = NodeTable.build(self._nodes.values(), self._levels)
            self._free = None
        elif self._changed:
            before = self._table
            self._table = before.updated(self._changed.values())
            if self._free is not None and self._table.resources == before.resources:
                self._free += self._table.allocatable - before.allocatable
            else:
                self._free = None
        self._changed.clear()
        if self._free is None:
            # The held rooms are reservations in all but name.
            full = Snapshot(self._table, self._table.allocatable, {})
            rooms = (
                Reservation(("", uid), 0, held.node, held.requests)
                for uid, held in self._held.items()
            )
            self._free = full.assume(rooms).free.copy(order="F")
        return self._table, self._free

    def _devices(self, table: NodeTable) -> Devices:
        """What is free of shared devices; nothing to do where no node shares its own."""
        devices = {resource: free.copy() for resource, free in table.devices.items()}
        if devices:
            # Pods that say what they hold come first.
            for held in sorted(self._held.values(), key=lambda held: not held.shares):
                node = table.tree.index.get(held.node)
                if node is not None:
                    hold(devices, node, held.requests, held.shares or None, -1)
        return devices

    def _count(self, held: _Held, sign: int) -> None:
        """Add or take away a pod."""
        for port in held.host_ports:
            key, address = port_key(port)
            places = self._ports.setdefault(key, Counter())
            places[held.node, address] += sign
            if places[held.node, address] <= 0:
                del places[held.node, address]
            if not places:
                del self._ports[key]
            self._shared_ports.pop(key, None)
        if self._table is None or self._free is None:
            return
        at = self._table.tree.index.get(held.node)
        if at is not None:
            self._free[at] -= sign * self._table.row(held.requests)

    def _port_sets(self) -> Ports:
        for key, places in self._ports.items():
            if key not in self._shared_ports:
                self._shared_ports[key] = frozenset(places)
        return dict(self._shared_ports)

    @property
    def nodes(self) -> Mapping[str, NodeView]:
        """The nodes by name."""
        return self._nodes


def equal(one: Snapshot, other: Snapshot) -> bool:
    """Whether two snapshots say the same."""
    return (
        one.nodes.tree.names == other.nodes.tree.names
        and one.nodes.views == other.nodes.views
        and one.nodes.resources == other.nodes.resources
        and np.array_equal(one.free, other.free)
        and dict(one.ports) == dict(other.ports)
        and one.devices.keys() == other.devices.keys()
        and all(np.array_equal(free, other.devices[name]) for name, free in one.devices.items())
    )
