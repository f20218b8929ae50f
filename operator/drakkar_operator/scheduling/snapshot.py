"""Snapshot: what is free on every node at one moment, immutable."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from drakkar_operator.model import NodeView, PodView
from drakkar_operator.scheduling.decision import Placed, Reservation
from drakkar_operator.scheduling.mix import Mix
from drakkar_operator.scheduling.nodes import NodeTable
from drakkar_operator.scheduling.request import ANY_ADDRESS, HostPort
from drakkar_operator.scheduling.shares import Devices, hold
from drakkar_operator.scheduling.topology import IntArray, Levels

Ports = Mapping[tuple[str, int], frozenset[tuple[str, str]]]
"""(protocol, port) -> the (node, host IP) pairs where it is in use."""


def port_key(port: HostPort) -> tuple[tuple[str, int], str]:
    """((protocol, port), host IP) with the defaults filled in."""
    address, protocol, number = port
    return (protocol or "TCP", number), address or ANY_ADDRESS


@dataclass(frozen=True, eq=False, repr=False)
class Snapshot:
    """Free amounts, nodes x resources, in the units of ``drakkar_operator.model``.

    Free is allocatable less the requests of every bound pod that is not finished (Drakkar's own
    and others', also while it is being deleted) and less reservations. It is negative where a node
    holds more than it offers.
    """

    nodes: NodeTable
    free: IntArray
    ports: Ports
    devices: Devices = field(default_factory=dict)
    """What is free of each device on nodes that share them out."""
    mix: Mix = field(default_factory=Mix)
    """What is asked for besides: placement leaves room for the like of it."""

    @classmethod
    def build(
        cls,
        nodes: Iterable[NodeView],
        pods: Iterable[PodView],
        reserved: Iterable[Reservation],
        levels: Levels,
    ) -> "Snapshot":
        """A snapshot from scratch. ClusterState keeps one up to date at less cost."""
        table = NodeTable.build(nodes, levels)
        taken = [
            Reservation(
                ("", pod.uid), 0, pod.node, pod.requests, pod.host_ports, pod.shares or None
            )
            for pod in pods
            if pod.node is not None and not pod.finished
        ]
        empty = cls(table, table.allocatable, {}, table.devices)
        return empty._moved([*taken, *reserved], -1)

    def assume(self, taken: Placed | Iterable[Reservation]) -> "Snapshot":
        """This snapshot with the ranks on their nodes. Unknown nodes are passed over."""
        return self._moved(_ranks(taken), -1)

    def release(self, taken: Placed | Iterable[Reservation]) -> "Snapshot":
        """This snapshot without the ranks: the inverse of ``assume``."""
        return self._moved(_ranks(taken), +1)

    def _moved(self, ranks: Iterable[Reservation], sign: int) -> "Snapshot":
        index = self.nodes.tree.index
        at: list[int] = []
        kinds: list[int] = []
        # Most pods ask for what many others ask for: each kind is turned into a row once.
        known: dict[tuple[tuple[str, int], ...], int] = {}
        used: dict[tuple[str, int], set[tuple[str, str]]] = {}
        devices = {name: free.copy() for name, free in self.devices.items()}
        for rank in ranks:
            position = index.get(rank.node)
            if position is None:
                continue
            at.append(position)
            kinds.append(known.setdefault(tuple(rank.requests.items()), len(known)))
            for port in rank.host_ports:
                key, address = port_key(port)
                used.setdefault(key, set()).add((rank.node, address))
            if devices:
                hold(devices, position, rank.requests, rank.shares, sign)
        free = self.free.copy(order="F")
        if at:
            amounts = np.array([self.nodes.row(dict(items)) for items in known])
            order = np.argsort(at, kind="stable")
            nodes = np.array(at)[order]
            first = np.flatnonzero(np.diff(nodes, prepend=-1))
            free[nodes[first]] += sign * np.add.reduceat(amounts[np.array(kinds)[order]], first)
        free.setflags(write=False)
        if not used:
            return replace(self, free=free, devices=devices)
        both = dict(self.ports)
        for key, places in used.items():
            before = both.get(key, frozenset())
            both[key] = before | places if sign < 0 else before - places
        return replace(self, free=free, ports=both, devices=devices)

    def __repr__(self) -> str:
        free = {name: self.free_of(name) for name in self.nodes.tree.names[:16]}
        return f"<Snapshot of {len(self.nodes)} nodes, free: {free}>"

    def free_of(self, node: str) -> dict[str, int]:
        """Free amounts of one node. Raises KeyError if there is no such node."""
        row = self.free[self.nodes.tree.index[node]]
        return {name: int(row[at]) for name, at in self.nodes.columns.items()}


def _ranks(taken: Placed | Iterable[Reservation]) -> Iterable[Reservation]:
    return taken.reservations if isinstance(taken, Placed) else taken
