"""Kubernetes objects as JSON -> the small records that lists and pages show. Pure."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple

from drakkar.constants import (
    ANNOTATION_DEVICES,
    ANNOTATION_FAULTS,
    GROUP,
    LABEL_ACCELERATOR,
    LABEL_JOB,
    LABEL_REPLICA,
)
from drakkar.devices import parse_devices, parse_faults
from drakkar.quantity import amount, parse

Object = Mapping[str, Any]
ANNOTATION_CREATED_BY: Final = f"{GROUP}/created-by"
"""On a job: the user who submitted it by this server. Whoever may write the job may write this."""
ENDED: Final = frozenset({"Complete", "Failed"})
_STANDARD: Final = frozenset({"cpu", "memory", "ephemeral-storage", "pods"})


@lru_cache(maxsize=8192)
def epoch(text: str | None) -> float | None:
    """Seconds since the epoch of an RFC 3339 time."""
    return datetime.fromisoformat(text).timestamp() if text else None


class Demand(NamedTuple):
    """So much of a resource for a whole gang: devices, or cores of cpu."""

    resource: str
    amount: float


@dataclass(frozen=True, slots=True)
class JobView:
    """A TrainingJob as lists show it. Times in seconds since the epoch."""

    namespace: str
    name: str
    uid: str
    version: int
    created: float
    phase: str
    user: str
    queue: str
    suspend: bool
    replicas: int
    ready: int
    ranks: int
    demands: tuple[Demand, ...]
    step: int | None
    total_steps: int | None
    loss: float | None
    tokens_per_second: float | None
    mfu: float | None
    goodput: float | None
    restarts: int
    reason: str
    position: int | None
    domain: str
    nodes: tuple[str, ...]
    started: float | None
    ended: float | None

    @property
    def key(self) -> str:
        """namespace/name."""
        return f"{self.namespace}/{self.name}"

    @property
    def accelerators(self) -> int:
        """Devices of the whole gang."""
        return int(sum(d.amount for d in self.demands if d.resource != "cpu"))


def demands(spec: Object) -> tuple[Demand, ...]:
    """What a gang takes at the size that its spec asks for."""
    total: dict[str, float] = {}
    roles = spec.get("roles") or [
        {
            "replicas": (spec.get("elastic") or {}).get("max") or spec.get("replicas") or 1,
            "accelerators": spec.get("accelerators"),
            "resources": spec.get("resources"),
        }
    ]
    for role in roles:
        size = int(role.get("replicas") or 1)
        devices = role.get("accelerators") or {}
        if devices.get("resource"):
            name = str(devices["resource"])
            total[name] = total.get(name, 0.0) + size * int(devices.get("count") or 0)
        resources = role.get("resources") or {}
        cpu = (resources.get("requests") or resources.get("limits") or {}).get("cpu")
        if cpu is not None:
            total["cpu"] = total.get("cpu", 0.0) + size * float(parse(cpu))
    return tuple(Demand(sys.intern(k), v) for k, v in sorted(total.items()) if v)


def _reason(status: Object) -> str:
    conditions = {c.get("type"): c for c in status.get("conditions") or ()}
    for kind in ("Failed", "Suspended"):
        found = conditions.get(kind) or {}
        if found.get("status") == "True":
            return str(found.get("message") or found.get("reason") or "")
    if status.get("pendingReason"):
        return str(status["pendingReason"])
    admitted = conditions.get("Admitted") or {}
    return str(admitted.get("message") or "") if admitted.get("status") == "False" else ""


def job(raw: Object) -> JobView:
    """A TrainingJob. Raises KeyError, TypeError or ValueError if it is not one."""
    meta: Object = raw["metadata"]
    spec: Object = raw.get("spec") or {}
    status: Object = raw.get("status") or {}
    progress: Object = status.get("progress") or {}
    placement: Object = status.get("placement") or {}
    size = int((spec.get("elastic") or {}).get("max") or spec.get("replicas") or 1)
    replicas = int(status.get("replicas") or size)
    goodput = (status.get("goodput") or {}).get("ratio", progress.get("goodput"))
    return JobView(
        namespace=sys.intern(meta["namespace"]),
        name=meta["name"],
        uid=meta["uid"],
        version=int(meta["resourceVersion"]),
        created=epoch(meta.get("creationTimestamp")) or 0.0,
        phase=sys.intern(status.get("phase") or "Pending"),
        user=sys.intern(str((meta.get("annotations") or {}).get(ANNOTATION_CREATED_BY, ""))[:253]),
        queue=sys.intern(spec.get("queue") or ""),
        suspend=bool(spec.get("suspend")),
        replicas=replicas,
        ready=int(status.get("readyReplicas") or 0),
        ranks=replicas * int(spec.get("processesPerReplica") or 1),
        demands=demands(spec),
        step=progress.get("step"),
        total_steps=progress.get("totalSteps"),
        loss=progress.get("loss"),
        tokens_per_second=progress.get("tokensPerSecond"),
        mfu=progress.get("mfu"),
        goodput=goodput,
        restarts=int(status.get("restartCount") or 0),
        reason=_reason(status),
        position=status.get("queuePosition"),
        domain=sys.intern(str(placement.get("domain") or "")),
        nodes=tuple(sys.intern(n) for n in placement.get("nodes") or ()),
        started=epoch(status.get("startTime")),
        ended=epoch(status.get("completionTime")),
    )


@dataclass(frozen=True, slots=True)
class QueueView:
    """A Queue with its books."""

    name: str
    parent: str
    weight: int
    quota: Mapping[str, str]
    borrowing: Mapping[str, str]
    used: Mapping[str, str]
    borrowed: Mapping[str, str]
    lent: Mapping[str, str]
    admitted: int
    pending: int
    share: float | None
    fair_share: float | None


def _texts(raw: Object | None) -> dict[str, str]:
    return {str(name): str(value) for name, value in (raw or {}).items()}


def queue(raw: Object) -> QueueView:
    """A Queue."""
    spec: Object = raw.get("spec") or {}
    status: Object = raw.get("status") or {}
    return QueueView(
        name=raw["metadata"]["name"],
        parent=spec.get("parent") or "",
        weight=int(spec.get("weight") or 1),
        quota=_texts(spec.get("quota")),
        borrowing=_texts(spec.get("borrowing")),
        used=_texts(status.get("used")),
        borrowed=_texts(status.get("borrowed")),
        lent=_texts(status.get("lent")),
        admitted=int(status.get("admitted") or 0),
        pending=int(status.get("pending") or 0),
        share=status.get("share"),
        fair_share=status.get("fairShare"),
    )


@dataclass(frozen=True, slots=True)
class Level:
    """One level of the topology."""

    name: str
    label: str


def topology(raw: Object) -> tuple[Level, ...]:
    """The levels of a Topology, widest first."""
    return tuple(Level(level["name"], level["nodeLabel"]) for level in raw["spec"]["levels"])


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node, and what its daemon tells of its devices."""

    name: str
    labels: Mapping[str, str]
    ready: bool
    cordoned: bool
    allocatable: Mapping[str, int]
    """Resource -> amount: millicores of cpu, bytes, or devices."""
    model: str
    devices: tuple[str, ...]
    """Ids of its accelerators, where a daemon tells them."""
    faults: tuple[tuple[str, str], ...]
    """(device, what is wrong)."""
    conditions: tuple[tuple[str, str], ...]
    """(type, message) of conditions that are not as they should be."""

    @property
    def accelerators(self) -> int:
        """Devices that pods may have."""
        return sum(n for name, n in self.allocatable.items() if is_device(name))


def is_device(resource: str) -> bool:
    """Whether a resource is an accelerator: an extended resource."""
    return "/" in resource and not resource.startswith(("hugepages-", "kubernetes.io/"))


def node(raw: Object) -> NodeView:
    """A node."""
    meta: Object = raw["metadata"]
    status: Object = raw.get("status") or {}
    labels = {sys.intern(k): sys.intern(v) for k, v in (meta.get("labels") or {}).items()}
    annotations: Mapping[str, str] = meta.get("annotations") or {}
    conditions = {c["type"]: c for c in status.get("conditions") or ()}
    wrong = []
    for kind, found in conditions.items():
        good = "True" if kind in ("Ready", "DevicesHealthy", "AcceleratorCheckPassed") else "False"
        if found.get("status") != good and not (
            kind not in ("Ready",) and found.get("status") == "Unknown"
        ):
            wrong.append((kind, str(found.get("message") or found.get("reason") or "")[:500]))
    faults = tuple(
        (device, f"{fault.code}: {fault.message}")
        for entry in parse_faults(annotations.get(ANNOTATION_FAULTS))
        for device, fault in sorted(entry.devices.items())
    )
    devices = tuple(
        device.id
        for entry in parse_devices(annotations.get(ANNOTATION_DEVICES))
        for device in entry.devices
    )
    ready = (conditions.get("Ready") or {}).get("status", "True" if not conditions else "Unknown")
    return NodeView(
        name=meta["name"],
        labels=labels,
        ready=ready == "True",
        cordoned=bool((raw.get("spec") or {}).get("unschedulable")),
        allocatable={
            sys.intern(k): amount(k, v)
            for k, v in (status.get("allocatable") or {}).items()
            if k in _STANDARD or is_device(k)
        },
        model=labels.get(LABEL_ACCELERATOR, ""),
        devices=devices,
        faults=faults,
        conditions=tuple(wrong),
    )


@dataclass(frozen=True, slots=True)
class PodView:
    """A pod that takes room on a node or belongs to a job."""

    namespace: str
    name: str
    node: str
    phase: str
    job: str
    replica: int | None
    ready: bool
    devices: tuple[tuple[str, int], ...]
    cpu: int
    """Millicores that it requests."""


def pod(raw: Object) -> PodView:
    """A pod."""
    meta: Object = raw["metadata"]
    spec: Object = raw.get("spec") or {}
    status: Object = raw.get("status") or {}
    labels: Mapping[str, str] = meta.get("labels") or {}
    devices: dict[str, int] = {}
    cpu = 0
    for container in spec.get("containers") or ():
        resources = container.get("resources") or {}
        for name, value in (resources.get("requests") or {}).items():
            if name == "cpu":
                cpu += amount("cpu", value)
            elif is_device(name):
                devices[sys.intern(name)] = devices.get(name, 0) + amount(name, value)
    replica = labels.get(LABEL_REPLICA, "")
    ready = any(
        c.get("type") == "Ready" and c.get("status") == "True"
        for c in status.get("conditions") or ()
    )
    return PodView(
        namespace=sys.intern(meta["namespace"]),
        name=meta["name"],
        node=sys.intern(spec.get("nodeName") or ""),
        phase=sys.intern(status.get("phase") or "Pending"),
        job=sys.intern(labels.get(LABEL_JOB, "")),
        replica=int(replica) if replica.isdecimal() and len(replica) < 10 else None,
        ready=ready,
        devices=tuple(sorted(devices.items())),
        cpu=cpu,
    )


@dataclass(frozen=True, slots=True)
class ServiceView:
    """An InferenceService as lists show it."""

    namespace: str
    name: str
    uid: str
    created: float
    ready: bool
    reason: str
    url: str
    replicas: int
    ready_replicas: int
    model: str
    canary: str
    """State of the revision that is tried; "" without one."""

    @property
    def key(self) -> str:
        """namespace/name."""
        return f"{self.namespace}/{self.name}"


def _source(model: Object) -> str:
    """Where a model comes from, in a few words."""
    for kind, field in (("trainingJob", "name"), ("pvc", "claimName"), ("s3", "uri"), ("hf", "repo"),
                        ("oci", "image")):  # fmt: skip
        if found := (model.get(kind) or {}).get(field):
            return f"{found} ({kind})"
    return ""


def service(raw: Object) -> ServiceView:
    """An InferenceService, of which only what all its versions have is read."""
    meta: Object = raw["metadata"]
    status: Object = raw.get("status") or {}
    conditions = {c.get("type"): c for c in status.get("conditions") or ()}
    ready: Object = conditions.get("Ready") or {}
    source = (raw.get("spec") or {}).get("model") or {}
    replicas = status.get("replicas")
    return ServiceView(
        namespace=sys.intern(meta["namespace"]),
        name=meta["name"],
        uid=meta["uid"],
        created=epoch(meta.get("creationTimestamp")) or 0.0,
        ready=ready.get("status") == "True",
        reason=str(
            ready.get("message") or ready.get("reason") or "not looked at by the operator yet"
        ),
        url=str(status.get("url") or ""),
        replicas=replicas if isinstance(replicas, int) else 0,
        ready_replicas=int(status.get("readyReplicas") or 0),
        model=str(source.get("name") or _source(source))[:200],
        canary=str((status.get("canary") or {}).get("state") or ""),
    )
