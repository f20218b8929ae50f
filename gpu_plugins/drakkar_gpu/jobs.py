"""Which job, replica and rank a device works for. Pure."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from drakkar.constants import LABEL_JOB, LABEL_QUEUE, LABEL_REPLICA
from drakkar.protocol import GANG_ENV
from drakkar_gpu.devices.base import Device
from drakkar_gpu.plugin.podresources import Held, Holder
from drakkar_gpu.plugin.slices import device_name

Object = Mapping[str, Any]
PodKey = tuple[str, str]
"""Namespace and name."""
_SHARE = "::"


@dataclass(frozen=True, slots=True)
class Work:
    """What a pod of Drakkar runs."""

    job: str
    queue: str = ""
    replica: int | None = None
    processes: int | None = None
    """Trainer processes of the pod."""


@dataclass(frozen=True, slots=True)
class Use:
    """Who has a device, and for what; all empty for a device that nobody has."""

    namespace: str = ""
    pod: str = ""
    container: str = ""
    job: str = ""
    queue: str = ""
    replica: str = ""
    rank: str = ""


def works(pods: Iterable[Object]) -> dict[PodKey, Work]:
    """What pods of the API server run, those that belong to a TrainingJob."""
    found: dict[PodKey, Work] = {}
    for pod in pods:
        metadata = pod.get("metadata", {})
        labels = metadata.get("labels") or {}
        if LABEL_JOB not in labels:
            continue
        found[metadata.get("namespace", ""), metadata.get("name", "")] = Work(
            job=labels[LABEL_JOB],
            queue=labels.get(LABEL_QUEUE, ""),
            replica=_whole(labels.get(LABEL_REPLICA)),
            processes=_processes(pod),
        )
    return found


def _processes(pod: Object) -> int | None:
    for container in pod.get("spec", {}).get("containers", ()):
        for variable in container.get("env") or ():
            if variable.get("name") == GANG_ENV:
                try:
                    return _whole(json.loads(variable.get("value", ""))["processesPerReplica"])
                except (ValueError, TypeError, KeyError):
                    return None
    return None


def _whole(value: object) -> int | None:
    text = str(value)
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None


def holders(
    held: Held, devices: Sequence[Device], *, vendor: str, driver: str
) -> dict[str, Holder]:
    """Device id -> the container that has it, through the device plugin or through a claim.

    A device that several containers share is no one's.
    """
    found: dict[str, Holder] = {}
    shared: set[str] = set()
    for (_, given), holder in held.devices.items():
        name, share, _ = given.partition(_SHARE)
        if share and found.get(name, holder) != holder:
            shared.add(name)
        found[name] = holder
    names = {device_name(vendor, device): device.id for device in devices}
    for (by, _, given), holder in held.claimed.items():
        if by == driver and given in names:
            found[names[given]] = holder
    known = {device.id for device in devices}
    return {name: holder for name, holder in found.items() if name in known - shared}


def uses(
    devices: Sequence[Device], held: Mapping[str, Holder], work: Mapping[PodKey, Work]
) -> dict[str, Use]:
    """Device id -> its use.

    The processes of a pod use its devices in order: with as many as devices each has one, with
    fewer each has several neighbours.
    """
    of_pod: dict[Holder, list[Device]] = {}
    for device in sorted(devices, key=lambda device: (device.index, device.id)):
        if device.id in held:
            of_pod.setdefault(held[device.id], []).append(device)
    found: dict[str, Use] = {}
    for holder, mine in of_pod.items():
        runs = work.get((holder.namespace, holder.pod))
        for position, device in enumerate(mine):
            found[device.id] = _use(holder, runs, position, len(mine))
    return found


def _use(holder: Holder, work: Work | None, position: int, count: int) -> Use:
    if work is None:
        return Use(holder.namespace, holder.pod, holder.container)
    rank = ""
    if work.replica is not None and work.processes is not None:
        rank = str(work.replica * work.processes + position * work.processes // count)
    return Use(
        holder.namespace,
        holder.pod,
        holder.container,
        work.job,
        work.queue,
        "" if work.replica is None else str(work.replica),
        rank,
    )
