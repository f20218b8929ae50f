"""ResourceSlices: what kube-scheduler may give to ResourceClaims on this node. Pure."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from drakkar.quantity import parse
from drakkar_gpu.devices.base import Device, LinkKind, Severity
from drakkar_gpu.health import Health
from drakkar_gpu.links import LinkMatrix, groups

TAINT = "drakkar.dev/device-fault"
_STRING_LIMIT = 64

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Pool:
    """A vendor's devices as claims see them."""

    vendor: str
    health: Health
    matrix: LinkMatrix
    offered: frozenset[str]
    """Ids of devices that are handed out as a whole or as a partition."""
    taken: frozenset[str]
    """Ids of devices that containers hold through the device plugin."""
    claimed: frozenset[str]
    """Ids of devices that claims hold."""


def device_name(vendor: str, device: Device) -> str:
    """A device's name in the slice, a DNS label: nvidia-3, nvidia-3-1g-10gb-<end of its id>."""
    if device.parent is None:
        return f"{vendor}-{device.index}"
    rest = re.sub(r"[^a-z0-9]+", "-", f"{device.profile}-{device.id[-12:]}".lower()).strip("-")
    return f"{vendor}-{device.index}-{rest}"[:63].strip("-")


def slice_devices(pool: Pool) -> list[Object]:
    """The devices of a slice.

    A device that is broken, or that the device plugin gave away, is left out, so that it is given
    to no claim. One that a claim holds stays in; if it is broken, with a taint: for a fatal fault
    one that makes Kubernetes evict its pods (NoExecute).
    """
    islands = {
        name: number
        for number, group in enumerate(groups(pool.matrix, LinkKind.FABRIC))
        for name in group
    }
    found = []
    for device in pool.health.devices:
        held = device.id in pool.claimed
        usable = pool.health.healthy(device) and device.id not in pool.taken
        if device.id in pool.offered and (held or usable):
            found.append(_device(pool, device, islands))
    return found


def _device(pool: Pool, device: Device, islands: Mapping[str, int]) -> Object:
    attributes: Object = {
        "vendor": _string(pool.vendor),
        "model": _string(device.model),
        "uuid": _string(device.id),
        "index": {"int": device.index},
        "fabricIsland": {"int": islands[device.id]},
    }
    optional = {
        "domain": device.domain,
        "profile": device.profile,
        "parentUUID": device.parent or "",
        "pciAddress": device.pci_address,
    }
    attributes.update({name: _string(text) for name, text in optional.items() if text})
    if device.numa_node is not None:
        attributes["numaNode"] = {"int": device.numa_node}
    made: Object = {
        "name": device_name(pool.vendor, device),
        "attributes": attributes,
        "capacity": {"memory": {"value": str(device.memory_bytes)}},
    }
    fault = pool.health.faults.get(device.id) or pool.health.faults.get(device.parent or "")
    if fault is not None:
        effect = "NoExecute" if fault.severity == Severity.FATAL else "NoSchedule"
        made["taints"] = [{"key": TAINT, "value": fault.code, "effect": effect}]
    return made


def _string(text: str) -> Object:
    return {"string": text[:_STRING_LIMIT]}


def resource_slice(
    driver: str, node: str, node_uid: str, devices: Sequence[Object], generation: int
) -> Object:
    """The node's ResourceSlice. It goes with the node."""
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceSlice",
        "metadata": {
            "name": f"{node}-{driver}",
            "ownerReferences": [
                {
                    "apiVersion": "v1",
                    "kind": "Node",
                    "name": node,
                    "uid": node_uid,
                    "controller": True,
                }
            ],
        },
        "spec": {
            "driver": driver,
            "nodeName": node,
            "pool": {"name": node, "generation": generation, "resourceSliceCount": 1},
            "devices": list(devices),
        },
    }


def same_devices(there: Object, devices: Collection[Object]) -> bool:
    """Whether a slice lists just these devices, whatever the server added to them."""
    old = (there.get("spec") or {}).get("devices") or ()
    return [_comparable(device) for device in old] == [_comparable(d) for d in devices]


def _comparable(device: Object) -> Object:
    """The server writes quantities its own way, and adds times to taints."""
    capacity = device.get("capacity") or {}
    return {
        "name": device["name"],
        "attributes": device.get("attributes"),
        "capacity": {name: parse(value["value"]) for name, value in capacity.items()},
        "taints": [
            {key: taint.get(key) for key in ("key", "value", "effect")}
            for taint in device.get("taints") or ()
        ],
    }
