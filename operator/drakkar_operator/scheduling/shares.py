"""Fractional devices: a resource of which a pod takes thousandths of one device, or whole ones.

Where a node lists its devices (``drakkar.constants.DEVICES_ANNOTATION``) an amount of the resource is
more than a sum: less than 1000 must be free on one device, and a multiple of 1000 means so many
devices that are wholly free. Other amounts fit on no such node. Nodes without the list, and clusters
without such nodes, are not touched by any of this.
"""

from collections.abc import Mapping

import numpy as np

from drakkar_operator.model import Amounts, Share
from drakkar_operator.scheduling.topology import IntArray

DEVICE = 1000
"""A whole device."""
_UNBOUND = 1 << 30

Devices = Mapping[str, IntArray]
"""Resource -> nodes x devices: thousandths that are free; -1 where there is no such device."""


def rooms(free: IntArray, amount: int) -> IntArray:
    """How often an amount fits on each node (rows of ``Devices``); unbound where none is listed."""
    listed = free[:, 0] >= 0
    found: IntArray = np.where(listed, _fits(np.maximum(free, 0), amount), _UNBOUND)
    return found


def _fits(free: IntArray, amount: int) -> IntArray:
    found: IntArray = np.zeros(len(free), dtype=np.int64)
    if amount < DEVICE:
        found = (free // amount).sum(axis=1)
    elif amount % DEVICE == 0:
        found = (free >= DEVICE).sum(axis=1) // (amount // DEVICE)
    return found


def choose(free: IntArray, amount: int) -> list[tuple[int, int]]:
    """(device, thousandths) for one replica on a node with this much free on each device.

    A share goes to the device on which it leaves the least, whole devices are the first free ones.
    Empty if the node lists no devices or the amount does not fit.
    """
    if free[0] < 0:
        return []
    if amount < DEVICE:
        fits = np.flatnonzero(free >= amount)
        return [(int(fits[np.argmin(free[fits])]), amount)] if len(fits) else []
    whole = np.flatnonzero(free >= DEVICE)[: amount // DEVICE].tolist()
    return [(at, DEVICE) for at in whole] if len(whole) * DEVICE == amount else []


def bind(devices: Devices, node: int, requests: Amounts) -> tuple[Share, ...]:
    """Devices for one replica; they are taken from ``devices``, which must be writable."""
    found: list[Share] = []
    for resource, free in devices.items():
        amount = requests.get(resource, 0)
        for at, share in choose(free[node], amount) if amount > 0 else ():
            free[node, at] -= share
            found.append((resource, at, share))
    return tuple(found)


def hold(
    devices: Devices,
    node: int,
    requests: Amounts,
    shares: tuple[Share, ...] | None,
    sign: int,
) -> None:
    """Take (-1) or give back (+1) what one replica holds, in place.

    A replica of which it is not known what it holds takes what suits best, and gives back nothing:
    a device must not seem to be free that is not.
    """
    if shares is None:
        if sign < 0:
            bind(devices, node, requests)
        return
    for resource, at, share in shares:
        free = devices.get(resource)
        if free is not None and at < free.shape[1] and free[node, at] >= 0:
            free[node, at] = min(DEVICE, max(0, int(free[node, at]) + sign * share))
