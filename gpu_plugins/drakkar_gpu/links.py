"""How well each pair of a node's devices is linked, as one matrix of integers. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from drakkar_gpu.devices.base import Device, Link, LinkKind

RANKS = {
    LinkKind.SYSTEM: 0,
    LinkKind.NUMA: 1,
    LinkKind.BRIDGE: 2,
    LinkKind.SWITCH: 3,
    LinkKind.FABRIC: 4,
}
SAME_CHIP = 5
"""Two partitions of one device."""
_KIND = 10**6
"""Weight of the kind: more than any bandwidth in Gbit/s."""

Matrix = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False, slots=True)
class LinkMatrix:
    """``scores[i, j]`` (n x n, symmetric, zero diagonal) says how good the link of two devices is.

    The kind of a link counts first, its bandwidth second. Scores are integers, so that sums of
    them are equal or not, whatever the order of adding.
    """

    ids: tuple[str, ...]
    scores: Matrix


def score(kind: LinkKind, gbps: float | None) -> int:
    """A link's score: higher is better."""
    return RANKS[kind] * _KIND + min(round(gbps or 0), _KIND - 1)


def link_matrix(devices: Sequence[Device], links: Sequence[Link]) -> LinkMatrix:
    """The matrix of devices and partitions, in their order.

    A partition has the links of the device that it is a part of. Pairs without a link reach each
    other over their NUMA node, or else across the system.
    """
    whole = [device.parent or device.id for device in devices]
    known: dict[frozenset[str], int] = {}
    for link in links:
        pair = frozenset((link.a, link.b))
        known[pair] = max(known.get(pair, 0), score(link.kind, link.gbps))
    scores = np.zeros((len(devices), len(devices)), dtype=np.int64)
    for i, first in enumerate(devices):
        for j in range(i):
            if whole[i] == whole[j]:
                value = SAME_CHIP * _KIND
            else:
                value = known.get(frozenset((whole[i], whole[j])), _default(first, devices[j]))
            scores[i, j] = scores[j, i] = value
    return LinkMatrix(tuple(device.id for device in devices), scores)


def _default(a: Device, b: Device) -> int:
    same = a.numa_node is not None and a.numa_node == b.numa_node
    return score(LinkKind.NUMA if same else LinkKind.SYSTEM, None)


def groups(matrix: LinkMatrix, at_least: LinkKind) -> list[tuple[str, ...]]:
    """Devices that reach each other by links of a kind or nearer, in order of their first."""
    floor = RANKS[at_least] * _KIND
    left = list(range(len(matrix.ids)))
    found: list[tuple[str, ...]] = []
    while left:
        group, frontier = [left[0]], [left[0]]
        while frontier:
            near = matrix.scores[frontier.pop()] >= floor
            new = [i for i in left if near[i] and i not in group]
            group += new
            frontier += new
        left = [i for i in left if i not in group]
        found.append(tuple(matrix.ids[i] for i in sorted(group)))
    return found
