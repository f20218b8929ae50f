"""Plain data that decisions are made on: what informers project Kubernetes objects to.

Amounts are integers: CPU in millicores, memory and storage in bytes, devices and pods as counts.
Times are seconds since the epoch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from drakkar.devices import DeviceFault
from drakkar.v1alpha1.inferenceservice import InferenceServiceSpec, InferenceServiceStatus
from drakkar.v1alpha1.trainingjob import TrainingJobSpec, TrainingJobStatus

Amounts = Mapping[str, int]
Share = tuple[str, int, int]
"""(resource, device, thousandths of it)."""
UNSCHEDULABLE = "Unschedulable"
"""Waiting reason of a pod that kube-scheduler refuses to bind."""
NO_LIMIT = 1 << 60
"""An amount that nothing reaches."""


@dataclass(frozen=True, slots=True)
class Taint:
    """A taint of a node; effect is NoSchedule, PreferNoSchedule or NoExecute."""

    key: str
    value: str
    effect: str


@dataclass(frozen=True, slots=True)
class NodeView:
    """What placement needs of a node."""

    name: str
    labels: Mapping[str, str]
    allocatable: Amounts
    ready: bool = True
    unschedulable: bool = False
    taints: tuple[Taint, ...] = ()
    faults: Mapping[str, DeviceFault] = field(default_factory=dict)
    """What is wrong with its accelerators, by the device's id."""
    devices: Mapping[str, int] = field(default_factory=dict)
    """Resources that are shared out by thousandths of a device -> how many devices there are."""


@dataclass(frozen=True, slots=True)
class ServingView:
    """What a pod is to its InferenceService."""

    service: str
    uid: str
    """Of the InferenceService."""
    member: str | None = None
    """The replica that it belongs to; None: it is a router."""
    revision: str = ""
    ready: bool = False
    """As its kubelet says."""
    restarts: int = 0
    """Of its containers."""


@dataclass(frozen=True, slots=True)
class PodView:
    """What decisions need of a pod, Drakkar's own or another's."""

    namespace: str
    name: str
    uid: str
    node: str | None
    """Node it is bound to, or None while it waits for kube-scheduler."""
    phase: str
    """Pending, Running, Succeeded, Failed or Unknown."""
    requests: Amounts
    host_ports: tuple[tuple[str, str, int], ...] = ()
    """(host IP, protocol, port) that it occupies on its node."""
    deleting: bool = False
    deletion_time: float | None = None
    """When its graceful deletion must be over."""
    grace: float = 30.0
    """Seconds that its deletion gives it."""
    created: float = 0.0
    ip: str | None = None
    job: str | None = None
    """Name of its gang: of its TrainingJob, from the label, or "service/member"."""
    job_uid: str | None = None
    replica: int | None = None
    running: bool = False
    """Its trainer container runs."""
    reason: str = ""
    """The pod's status.reason: Evicted, OutOfcpu, NodeAffinity, UnexpectedAdmissionError, ..."""
    message: str = ""
    exit_code: int | None = None
    termination_message: str = ""
    broken_devices: tuple[str, ...] = ()
    """Ids of the devices it holds that its kubelet calls unhealthy."""
    shares: tuple[Share, ...] = ()
    """What it holds of which devices, where they are shared."""
    waiting_reason: str = ""
    """Why the container does not start: ImagePullBackOff, CreateContainerConfigError, ..."""
    serving: ServingView | None = None

    @property
    def finished(self) -> bool:
        """It runs no more and holds nothing of its node."""
        return self.phase in ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True)
class JobView:
    """A TrainingJob."""

    namespace: str
    name: str
    uid: str
    generation: int
    created: float
    spec: TrainingJobSpec
    status: TrainingJobStatus
    priority: int = 0
    """Value of its PriorityClass."""
    deleting: bool = False
    problem: str | None = None
    """Why the spec can't be used, if it can't: the fields above then hold defaults."""
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def key(self) -> tuple[str, str]:
        """(namespace, name)."""
        return self.namespace, self.name

    @property
    def replicas(self) -> int:
        """Size of the gang: what it was given places for or, without a place, what it asks for."""
        placement = self.status.placement
        return len(placement.nodes) if placement is not None else self.spec.size


def member_uid(uid: str, member: str, revision: str) -> str:
    """What tells the gang of a service's replica from all others, also those of its namesakes."""
    return f"{uid}/{member}/{revision}"


@dataclass(frozen=True, slots=True)
class ServiceView:
    """An InferenceService."""

    namespace: str
    name: str
    uid: str
    generation: int
    created: float
    spec: InferenceServiceSpec
    status: InferenceServiceStatus
    deleting: bool = False
    problem: str | None = None
    """Why the spec can't be used, if it can't: ``spec`` then holds defaults."""
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def key(self) -> str:
        """namespace/name."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Quota:
    """What a queue may use, per resource; a resource that ``quota`` does not name is unlimited."""

    quota: Amounts = field(default_factory=dict)
    borrowing: Amounts = field(default_factory=dict)
    """Most above the quota; unnamed: nothing."""
    lending: Amounts = field(default_factory=dict)
    """Most of the unused quota that others may use; unnamed: all."""


@dataclass(frozen=True, slots=True)
class Flavor:
    """A type of node, known by labels, with a quota of its own."""

    name: str
    labels: Mapping[str, str]
    limits: Quota


@dataclass(frozen=True, slots=True)
class PreemptionPolicy:
    """Which running gangs must make room for those of a queue, and its own not before when."""

    within_queue: Literal["Never", "LowerPriority"] = "LowerPriority"
    reclaim: Literal["Never", "LowerPriority", "Any"] = "Any"
    min_runtime: float = 60.0
    """Seconds that a gang of this queue has run before it may be displaced."""


@dataclass(frozen=True, slots=True)
class QueueView:
    """A Queue."""

    name: str
    quota: Amounts
    weight: int = 1
    parent: str | None = None
    pinned: bool = False
    """Its pods are bound by kube-scheduler to the node that was chosen."""
    borrowing: Amounts = field(default_factory=dict)
    """Most above the quota; unnamed: nothing."""
    lending: Amounts = field(default_factory=dict)
    """Most of the unused quota that others may use; unnamed: all."""
    flavors: tuple[Flavor, ...] = ()
    preemption: PreemptionPolicy = PreemptionPolicy()
    backfill_seconds: float = 3600.0
    """How long its first waiting gang may be passed by gangs whose end is unknown."""

    @property
    def limits(self) -> Quota:
        """What it may use over nodes of all types."""
        return Quota(self.quota, self.borrowing, self.lending)
