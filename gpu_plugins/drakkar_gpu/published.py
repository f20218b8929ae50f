"""What a node's object says of its devices, and what must change for it to say so. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from drakkar.constants import (
    ANNOTATION_DEVICES,
    ANNOTATION_FAULTS,
    CONDITION_DEVICES,
    LABEL_ACCELERATOR,
    LABEL_ACCELERATOR_COUNT,
    LABEL_ACCELERATOR_MEMORY,
    LABEL_FABRIC,
    TAINT_FAULT,
)
from drakkar.devices import (
    DeviceFault,
    Nic,
    NodeDevice,
    NodeDevices,
    NodeFaults,
    show_devices,
    show_faults,
)
from drakkar.fabric import cloud
from drakkar.fabric.places import label_changes, label_value
from drakkar_gpu.devices.base import Device, Severity
from drakkar_gpu.health import Health
from drakkar_gpu.links import RANKS, SAME_CHIP, LinkMatrix

MESSAGE_LIMIT = 1024

Object = Mapping[str, Any]
_KINDS = {rank: kind.value for kind, rank in RANKS.items()} | {SAME_CHIP: "chip"}


@dataclass(frozen=True, slots=True)
class Facts:
    """One vendor's devices on the node."""

    vendor: str
    resource: str
    health: Health
    matrix: LinkMatrix
    nics: tuple[Nic, ...] = ()


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the node shall say."""

    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    condition: Mapping[str, str]
    taint: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Changes:
    """Patches that make the node say so; empty where it does."""

    node: Mapping[str, Any] = field(default_factory=dict)
    """A merge patch of the node."""
    status: Mapping[str, Any] = field(default_factory=dict)
    """A strategic merge patch of its status."""


def wanted(facts: Sequence[Facts]) -> Wanted:
    """What the node shall say of its devices; labels are those of the first vendor."""
    labels: dict[str, str] = {}
    if facts and facts[0].health.devices:
        whole = [d for d in facts[0].health.devices if d.parent is None]
        labels = {
            LABEL_ACCELERATOR: label_value(whole[0].model),
            LABEL_ACCELERATOR_COUNT: str(len(whole)),
            LABEL_ACCELERATOR_MEMORY: str(round(whole[0].memory_bytes / 2**30)),
        }
        if whole[0].domain:
            labels[LABEL_FABRIC] = label_value(whole[0].domain)
    annotations: dict[str, str] = {}
    if facts:
        annotations[ANNOTATION_DEVICES] = show_devices(tuple(described(f) for f in facts))
    broken = tuple(_faults(f) for f in facts if f.health.faults)
    if broken:
        annotations[ANNOTATION_FAULTS] = show_faults(broken)
    return Wanted(labels, annotations, _condition(facts), _taint(facts))


def described(facts: Facts) -> NodeDevices:
    """A vendor's devices and their links."""
    devices, scores = facts.health.devices, facts.matrix.scores
    position = {name: i for i, name in enumerate(facts.matrix.ids)}
    links = []
    for i, a in enumerate(devices):
        for j in range(i + 1, len(devices)):
            value = int(scores[position[a.id], position[devices[j].id]])
            rank, gbps = divmod(value, 10**6)
            if rank > 0:
                links.append((i, j, _KINDS[rank], float(gbps) if gbps else None))
    return NodeDevices(
        vendor=facts.vendor,
        resource=facts.resource,
        model=devices[0].model if devices else "",
        domain=devices[0].domain if devices else "",
        devices=tuple(_device(device) for device in devices),
        links=tuple(links),
        nics=facts.nics,
    )


def _device(device: Device) -> NodeDevice:
    return NodeDevice(
        id=device.id,
        index=device.index,
        memory=device.memory_bytes,
        numa=device.numa_node,
        pci=device.pci_address,
        parent=device.parent,
        profile=device.profile,
    )


def _faults(facts: Facts) -> NodeFaults:
    return NodeFaults(
        resource=facts.resource,
        devices={
            name: DeviceFault(
                code=fault.code,
                message=fault.message[:MESSAGE_LIMIT],
                severity="fatal" if fault.severity == Severity.FATAL else "unhealthy",
            )
            for name, fault in sorted(facts.health.faults.items())
        },
    )


def _condition(facts: Sequence[Facts]) -> dict[str, str]:
    broken = [
        f"{name}: {fault.code}: {fault.message} ({fault.severity})"
        for f in facts
        for name, fault in sorted(f.health.faults.items())
    ]
    count = sum(len(f.health.devices) for f in facts)
    if not broken:
        message = f"{count} devices are well"
        return {
            "type": CONDITION_DEVICES, "status": "True", "reason": "NoFault", "message": message,
        }  # fmt: skip
    message = f"{len(broken)} of {count} devices: {'; '.join(broken)}"
    return {
        "type": CONDITION_DEVICES,
        "status": "False",
        "reason": "DeviceFault",
        "message": message[:MESSAGE_LIMIT],
    }


def _taint(facts: Sequence[Facts]) -> dict[str, str] | None:
    """Avoid a node with a broken device as long as others are well; close it when none is."""
    faults = [fault for f in facts for fault in f.health.faults.values()]
    if not faults:
        return None
    well = any(f.health.healthy(device) for f in facts for device in f.health.devices)
    worst = next((f for f in faults if f.severity == Severity.FATAL), faults[0])
    effect = "PreferNoSchedule" if well else "NoSchedule"
    return {"key": TAINT_FAULT, "value": label_value(worst.code), "effect": effect}


def changes(node: Object, want: Wanted, now: str) -> Changes:
    """How the node's object differs. ``now`` is an RFC 3339 time."""
    metadata: dict[str, Any] = {}
    labels = _difference(
        node["metadata"].get("labels") or {},
        want.labels,
        (LABEL_ACCELERATOR, LABEL_ACCELERATOR_COUNT, LABEL_ACCELERATOR_MEMORY, LABEL_FABRIC),
    )
    annotations = _difference(
        node["metadata"].get("annotations") or {},
        want.annotations,
        (ANNOTATION_DEVICES, ANNOTATION_FAULTS),
    )
    labels.update(_place(node))
    if labels:
        metadata["labels"] = labels
    if annotations:
        metadata["annotations"] = annotations
    patch: dict[str, Any] = {"metadata": metadata} if metadata else {}
    taints = with_taint(node, TAINT_FAULT, want.taint)
    if taints is not None:
        # The list is replaced as a whole: not if somebody else changed it in between.
        version = node["metadata"].get("resourceVersion")
        patch = {
            "metadata": {**metadata, "resourceVersion": version},
            "spec": {"taints": taints},
        }
    return Changes(patch, _status(node, want.condition, now))


def _place(node: Object) -> dict[str, str]:
    """Block and rack from what the cloud says; what the node says already is left as it is."""
    labels: Mapping[str, str] = node["metadata"].get("labels") or {}
    place = label_changes(labels, cloud.place(labels))
    return {key: value for key, value in place.items() if key not in labels}


def with_taint(node: Object, key: str, taint: Mapping[str, str] | None) -> list[Any] | None:
    """The node's taints with this one in place of others of the key; None if it is so already."""
    taints = list((node.get("spec") or {}).get("taints") or ())
    mine = [t for t in taints if t.get("key") == key]
    same = [{k: t.get(k) for k in taint} for t in mine] if taint is not None else mine
    if same == ([taint] if taint is not None else []):
        return None
    others = [t for t in taints if t.get("key") != key]
    return [*others, *([dict(taint)] if taint is not None else [])]


def _difference(
    there: Mapping[str, str], want: Mapping[str, str], ours: Iterable[str]
) -> dict[str, str | None]:
    changed: dict[str, str | None] = {k: v for k, v in want.items() if there.get(k) != v}
    changed.update({key: None for key in ours if key in there and key not in want})
    return changed


def _status(node: Object, condition: Mapping[str, str], now: str) -> dict[str, Any]:
    there = (node.get("status") or {}).get("conditions") or ()
    old: Object = next((c for c in there if c.get("type") == condition["type"]), {})
    if all(old.get(key) == value for key, value in condition.items()):
        return {}
    same = old.get("status") == condition["status"]
    since = old.get("lastTransitionTime", now) if same else now
    return {
        "status": {
            "conditions": [{**condition, "lastTransitionTime": since, "lastHeartbeatTime": now}]
        }
    }
