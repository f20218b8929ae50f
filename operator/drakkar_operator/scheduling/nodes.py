"""Nodes as arrays: what stays the same while pods come and go.

A table is immutable and shared by all snapshots of the same nodes; what is computed from it (label
columns, masks of node rules) is kept in it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from drakkar_operator.model import Amounts, NodeView, Taint
from drakkar_operator.scheduling.shares import DEVICE
from drakkar_operator.scheduling.topology import BoolArray, IntArray, Levels, Tree

PODS = "pods"
"""The resource that every pod takes one of."""

_KEPT_MASKS = 256


@dataclass(frozen=True, eq=False)
class LabelColumn:
    """The values of one label: ``values[codes[node]]``, code -1 where a node lacks it."""

    values: tuple[str, ...]
    codes: IntArray

    def where(self, matches: Iterable[bool], absent: bool) -> BoolArray:
        """Per node: whether its value matches (given per value), or ``absent``."""
        # Code -1 takes the last entry.
        table = np.array([*matches, absent], dtype=np.bool_)
        return table[self.codes]


@dataclass(frozen=True, eq=False, repr=False)
class NodeTable:
    """Nodes in tree order; amounts as nodes x resources."""

    tree: Tree
    views: tuple[NodeView, ...]
    resources: tuple[str, ...]
    allocatable: IntArray
    ready: BoolArray
    unschedulable: BoolArray
    taint_sets: tuple[tuple[Taint, ...], ...]
    """The different sets of taints; most nodes share a few."""
    taint_codes: IntArray
    """Per node: its set."""
    columns: Mapping[str, int]
    """Position of each resource."""
    devices: Mapping[str, IntArray]
    """Resource -> nodes x devices, as ``shares.Devices`` with all of them free."""
    _labels: dict[str, LabelColumn] = field(default_factory=dict)
    _masks: dict[object, object] = field(default_factory=dict)

    @classmethod
    def build(cls, nodes: Iterable[NodeView], levels: Levels) -> "NodeTable":
        """Arrays from nodes; of two with the same name the later counts."""
        by_name = {node.name: node for node in nodes}
        tree = Tree.build(by_name.values(), levels)
        return cls._fill(tree, tuple(by_name[name] for name in tree.names), {})

    @classmethod
    def _fill(
        cls, tree: Tree, views: tuple[NodeView, ...], labels: dict[str, LabelColumn]
    ) -> "NodeTable":
        names: set[str] = {PODS}
        sets: dict[tuple[Taint, ...], int] = {}
        codes = []
        for view in views:
            names.update(view.allocatable)
            codes.append(sets.setdefault(view.taints, len(sets)))
        resources = tuple(sorted(names))
        rows = [[view.allocatable.get(name, 0) for name in resources] for view in views]
        amounts = np.array(rows, dtype=np.int64, order="F").reshape(len(views), len(resources))
        amounts.setflags(write=False)
        return cls(
            tree=tree,
            views=views,
            resources=resources,
            allocatable=amounts,
            ready=np.array([view.ready for view in views], dtype=np.bool_),
            unschedulable=np.array([view.unschedulable for view in views], dtype=np.bool_),
            taint_sets=tuple(sets),
            taint_codes=np.array(codes, dtype=np.int64),
            columns={name: at for at, name in enumerate(resources)},
            devices=_devices(views),
            _labels=labels,
        )

    def updated(self, changed: Iterable[NodeView]) -> "NodeTable":
        """The table with other views of some nodes, whose names and labels are as before."""
        views = list(self.views)
        for view in changed:
            views[self.tree.index[view.name]] = view
        return self._fill(self.tree, tuple(views), self._labels)

    def __len__(self) -> int:
        return len(self.views)

    def row(self, amounts: Amounts, pods: int = 1) -> IntArray:
        """Amounts as a vector over the resources, with the pod itself; others are left out."""
        row = np.zeros(len(self.resources), dtype=np.int64)
        for resource, amount in amounts.items():
            column = self.columns.get(resource)
            if column is not None:
                row[column] = amount
        row[self.columns[PODS]] = pods
        return row

    def label(self, key: str) -> LabelColumn:
        """The column of a label."""
        column = self._labels.get(key)
        if column is None:
            values: dict[str, int] = {}
            codes = [
                -1
                if (value := view.labels.get(key)) is None
                else values.setdefault(value, len(values))
                for view in self.views
            ]
            column = LabelColumn(tuple(values), np.array(codes, dtype=np.int64))
            self._labels[key] = column
        return column

    def remembered(self, key: object) -> object | None:
        """What ``remember`` kept under this key."""
        return self._masks.get(key)

    def remember(self, key: object, value: object) -> None:
        """Keep a result that depends on nothing but the nodes."""
        if len(self._masks) >= _KEPT_MASKS:
            self._masks.pop(next(iter(self._masks)))
        self._masks[key] = value


def _devices(views: Sequence[NodeView]) -> dict[str, IntArray]:
    most: dict[str, int] = {}
    for view in views:
        for resource, count in view.devices.items():
            most[resource] = max(count, most.get(resource, 0))
    found = {}
    for resource, width in most.items():
        counts = np.array([view.devices.get(resource, 0) for view in views])
        found[resource] = np.where(np.arange(width) < counts[:, None], DEVICE, -1)
    return found
