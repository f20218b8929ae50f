"""Kubernetes objects as JSON -> the plain data of ``model.py``. Pure."""

import json
import sys
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

from drakkar.constants import (
    ANNOTATION_FAULTS,
    DEVICES_ANNOTATION,
    LABEL_JOB,
    LABEL_JOB_UID,
    LABEL_MEMBER,
    LABEL_REPLICA,
    LABEL_REVISION,
    LABEL_SERVICE,
    LABEL_SERVICE_UID,
    SHARES_ANNOTATION,
    TRAINER_CONTAINER,
)
from drakkar.devices import NodeFaults, parse_faults
from drakkar.quantity import amount, parse
from drakkar.v1alpha1.queue import UNLIMITED
from drakkar_operator.model import (
    NO_LIMIT,
    UNSCHEDULABLE,
    Amounts,
    Flavor,
    NodeView,
    PodView,
    PreemptionPolicy,
    QueueView,
    Quota,
    ServingView,
    Share,
    Taint,
    member_uid,
)
from drakkar_operator.render import resources
from drakkar_operator.scheduling.request import host_ports
from drakkar_operator.scheduling.shares import DEVICE

Object = Mapping[str, Any]
_MOST_DEVICES = 256
"""A node has fewer: larger numbers in an annotation are mistakes."""


@lru_cache(maxsize=4096)
def _shared(items: tuple[tuple[str, int], ...]) -> Amounts:
    # Thousands of pods request the same: they share one mapping.
    return {sys.intern(name): value for name, value in items}


@lru_cache(maxsize=4096)
def epoch(text: str) -> float:
    """Seconds since the epoch of an RFC 3339 time."""
    return datetime.fromisoformat(text).timestamp()


def amounts(raw: Mapping[str, Any] | None) -> dict[str, int]:
    """Quantities as integers: millicores for cpu, bytes or counts for the rest."""
    return {name: amount(name, value) for name, value in (raw or {}).items()}


def pod_requests(raw: Object) -> Amounts:
    """What the pod takes from its node, counted by ``render.resources.pod_requests``.

    While a container is resized in place, the larger of what is asked, allocated and in use counts.
    """
    spec: Object = raw.get("spec") or {}
    status: Object = raw.get("status") or {}
    statuses = {
        s["name"]: s
        for part in ("containerStatuses", "initContainerStatuses")
        for s in status.get(part) or ()
    }
    if statuses:
        spec = {
            **spec,
            **{
                part: [_resized(c, statuses.get(c["name"])) for c in spec.get(part) or ()]
                for part in ("containers", "initContainers")
            },
        }
    return _shared(tuple(sorted(resources.pod_requests(spec).items())))


def _resized(container: Object, status: Object | None) -> Object:
    asked = (container.get("resources") or {}).get("requests") or {}
    larger: dict[str, Any] = dict(asked)
    if status:
        for other in (
            status.get("allocatedResources"),
            (status.get("resources") or {}).get("requests"),
        ):
            for name, quantity in (other or {}).items():
                if quantity != larger.get(name) and (
                    name not in larger or amount(name, quantity) > amount(name, larger[name])
                ):
                    larger[name] = quantity
    if larger == asked:
        return container
    return {**container, "resources": {**container["resources"], "requests": larger}}


def _trainer_status(spec: Object, status: Object) -> Object:
    statuses = status.get("containerStatuses") or ()
    if not statuses:
        return {}
    containers = spec.get("containers") or ()
    names = [c["name"] for c in containers]
    name = TRAINER_CONTAINER if TRAINER_CONTAINER in names else (names[0] if names else "")
    return next((s for s in statuses if s["name"] == name), {})


def _refusal(status: Object) -> str | None:
    """Why kube-scheduler does not bind the pod; None if it has not said that it can't."""
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("reason") == UNSCHEDULABLE:
            return str(condition.get("message") or UNSCHEDULABLE)
    return None


def _waiting_reason(status: Object, trainer: Object) -> str:
    waiting: Object = (trainer.get("state") or {}).get("waiting") or {}
    reason: str = waiting.get("reason") or ""
    if reason not in ("", "PodInitializing", "ContainerCreating"):
        return reason
    for init in status.get("initContainerStatuses") or ():
        stuck = ((init.get("state") or {}).get("waiting") or {}).get("reason") or ""
        if stuck not in ("", "PodInitializing", "ContainerCreating"):
            return str(stuck)
    return reason


def _broken_devices(status: Object) -> tuple[str, ...]:
    """Devices that the kubelet calls unhealthy (KEP-4680); a share counts as its device."""
    return tuple(
        sorted(
            {
                str(device["resourceID"]).partition("::")[0]
                for container in status.get("containerStatuses") or ()
                for resource in container.get("allocatedResourcesStatus") or ()
                for device in resource.get("resources") or ()
                if device.get("health") == "Unhealthy"
            }
        )
    )


def _serving(labels: Mapping[str, str], status: Object) -> ServingView | None:
    if LABEL_SERVICE not in labels or LABEL_SERVICE_UID not in labels:
        return None
    conditions = status.get("conditions") or ()
    return ServingView(
        service=sys.intern(labels[LABEL_SERVICE]),
        uid=sys.intern(labels[LABEL_SERVICE_UID]),
        member=labels.get(LABEL_MEMBER),
        revision=sys.intern(labels.get(LABEL_REVISION, "")),
        ready=any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions),
        restarts=sum(
            int(s.get("restartCount") or 0) for s in status.get("containerStatuses") or ()
        ),
    )


def _gang(labels: Mapping[str, str], serving: ServingView | None) -> tuple[str | None, str | None]:
    """(name, UID) of the gang that a pod belongs to."""
    if serving is None:
        job, uid = labels.get(LABEL_JOB), labels.get(LABEL_JOB_UID)
    elif serving.member is None:
        return None, None
    else:
        job = f"{serving.service}/{serving.member}"
        uid = member_uid(serving.uid, serving.member, serving.revision)
    return sys.intern(job) if job else None, sys.intern(uid) if uid is not None else None


def pod(raw: Object) -> PodView:
    """A pod. Raises KeyError, TypeError or ValueError if it is not one."""
    meta: Object = raw["metadata"]
    spec: Object = raw.get("spec") or {}
    status: Object = raw.get("status") or {}
    labels: Mapping[str, str] = meta.get("labels") or {}
    trainer = _trainer_status(spec, status)
    state: Object = trainer.get("state") or {}
    terminated: Object = state.get("terminated") or {}
    refusal = _refusal(status)
    deletion = meta.get("deletionTimestamp")
    replica = labels.get(LABEL_REPLICA, "")
    serving = _serving(labels, status)
    job, job_uid = _gang(labels, serving)
    node = spec.get("nodeName")
    return PodView(
        namespace=sys.intern(meta["namespace"]),
        name=meta["name"],
        uid=meta["uid"],
        node=sys.intern(node) if node else None,
        phase=sys.intern(status.get("phase") or "Pending"),
        requests=pod_requests(raw),
        host_ports=host_ports(spec),
        deleting=deletion is not None,
        deletion_time=epoch(deletion) if deletion else None,
        grace=float(meta.get("deletionGracePeriodSeconds") or 0) if deletion else 30.0,
        created=epoch(meta["creationTimestamp"]) if meta.get("creationTimestamp") else 0.0,
        ip=status.get("podIP") or None,
        job=job,
        job_uid=job_uid,
        replica=int(replica) if replica.isdecimal() and len(replica) < 10 else None,
        running="running" in state,
        reason=status.get("reason") or "",
        message=refusal or status.get("message") or terminated.get("reason") or "",
        exit_code=terminated.get("exitCode"),
        broken_devices=_broken_devices(status),
        shares=_device_shares(meta),
        termination_message=terminated.get("message") or "",
        waiting_reason=UNSCHEDULABLE if refusal else _waiting_reason(status, trainer),
        serving=serving,
    )


def _json(meta: Object, annotation: str) -> dict[str, Any]:
    """The object in an annotation; empty if there is none or if it is none."""
    text = (meta.get("annotations") or {}).get(annotation)
    try:
        found = json.loads(text) if text else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _shared_devices(meta: Object) -> dict[str, int]:
    """Devices of the node that are shared out by thousandths; what can't be read counts for none."""
    found = _json(meta, DEVICES_ANNOTATION)
    return {
        sys.intern(resource): count
        for resource, count in found.items()
        if type(count) is int and 0 < count <= _MOST_DEVICES
    }


def _device_shares(meta: Object) -> tuple[Share, ...]:
    """What the pod holds of which devices."""
    found = []
    for resource, parts in _json(meta, SHARES_ANNOTATION).items():
        for device, share in parts.items() if isinstance(parts, dict) else ():
            if device.isdecimal() and int(device) < _MOST_DEVICES and type(share) is int:
                found.append((sys.intern(resource), int(device), max(0, min(share, DEVICE))))
    return tuple(sorted(found))


def node(raw: Object) -> NodeView:
    """A node."""
    meta: Object = raw["metadata"]
    spec: Object = raw.get("spec") or {}
    status: Object = raw.get("status") or {}
    ready = any(
        c.get("type") == "Ready" and c.get("status") == "True"
        for c in status.get("conditions") or ()
    )
    faults = parse_faults((meta.get("annotations") or {}).get(ANNOTATION_FAULTS))
    return NodeView(
        name=sys.intern(meta["name"]),
        labels=dict(meta.get("labels") or {}),
        allocatable=_shared(tuple(sorted(_allocatable(status, faults).items()))),
        ready=ready,
        unschedulable=bool(spec.get("unschedulable")),
        taints=tuple(
            Taint(t["key"], t.get("value") or "", t["effect"]) for t in spec.get("taints") or ()
        ),
        devices=_shared_devices(meta),
        faults={name: fault for entry in faults for name, fault in entry.devices.items()},
    )


def _allocatable(status: Object, faults: Iterable[NodeFaults]) -> dict[str, int]:
    """What the node offers, less its broken devices: the kubelet takes them off a little later."""
    offered = amounts(status.get("allocatable"))
    capacity = amounts(status.get("capacity")) if faults else {}
    for entry in faults:
        if entry.resource in offered and entry.resource in capacity:
            left = capacity[entry.resource] - len(entry.devices)
            offered[entry.resource] = max(0, min(offered[entry.resource], left))
    return offered


def queue(raw: Object) -> QueueView:
    """A Queue. Raises ValueError if a quantity is malformed."""
    spec: Object = raw.get("spec") or {}
    preemption: Object = spec.get("preemption") or {}
    return QueueView(
        name=raw["metadata"]["name"],
        quota=amounts(spec.get("quota")),
        weight=int(spec.get("weight") or 1),
        parent=spec.get("parent"),
        pinned=spec.get("binding") == "pinned",
        borrowing=_limits(spec.get("borrowing")),
        lending=_limits(spec.get("lending")),
        flavors=tuple(
            Flavor(
                flavor["name"],
                dict(flavor["nodeLabels"]),
                Quota(
                    amounts(flavor.get("quota")),
                    _limits(flavor.get("borrowing")),
                    _limits(flavor.get("lending")),
                ),
            )
            for flavor in spec.get("flavors") or ()
        ),
        preemption=PreemptionPolicy(
            within_queue=preemption.get("withinQueue", "LowerPriority"),
            reclaim=preemption.get("reclaim", "Any"),
            min_runtime=float(preemption.get("minRuntimeSeconds", 60)),
        ),
        backfill_seconds=float(spec.get("backfillSeconds", 3600)),
    )


def recent_use(status: Object) -> tuple[dict[str, float], float | None]:
    """(what a queue used lately on average, when that was written); nothing if it is malformed."""
    try:
        at = epoch(status["recentTime"])
        return {
            resource: float(parse(value)) * _scale(resource)
            for resource, value in (status.get("recent") or {}).items()
        }, at
    except (KeyError, TypeError, ValueError):
        return {}, None


def show_recent(average: Mapping[str, float]) -> dict[str, str]:
    """An average as ``recent_use`` reads it."""
    return {r: f"{value / _scale(r):.3f}" for r, value in sorted(average.items())}


def _scale(resource: str) -> int:
    return 1000 if resource == "cpu" else 1


def _limits(items: Mapping[str, Any] | None) -> dict[str, int]:
    """Amounts, of which some may be unlimited."""
    return {
        resource: NO_LIMIT if quantity == UNLIMITED else amount(resource, quantity)
        for resource, quantity in (items or {}).items()
    }


def topology_levels(raw: Object) -> tuple[tuple[str, str], ...]:
    """(level name, node label) of a Topology, widest first."""
    return tuple((level["name"], level["nodeLabel"]) for level in raw["spec"]["levels"])


class Priority(NamedTuple):
    """A PriorityClass."""

    value: int
    default: bool = False
    """Of pods that name none."""
    preempts: bool = True


def priority(raw: Object) -> Priority:
    """A PriorityClass."""
    return Priority(
        int(raw.get("value") or 0),
        bool(raw.get("globalDefault")),
        raw.get("preemptionPolicy") != "Never",
    )
