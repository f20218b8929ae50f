"""What is known of a service at one moment, and the plan that is made of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from drakkar.routing import RouteTable
from drakkar.v1alpha1.inferenceservice import InferenceServiceStatus
from drakkar_operator.model import NodeView, PodView, ServiceView
from drakkar_operator.reconcile.actions import DeletePod, RecordEvent
from drakkar_operator.reconcile.observed import CreationError
from drakkar_operator.reconcile.serving.autoscale import Load, Memory
from drakkar_operator.reconcile.serving.canary import Outcomes
from drakkar_operator.scheduling.request import GangRequest


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """Where the model lies that a new revision serves."""

    claim: str | None = None
    """Of a TrainingJob's checkpoints; None: the spec says it itself."""
    path: str | None = None
    problem: str | None = None
    """Why there is nothing to serve yet."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What the service's routers say, all together."""

    routers: int = 0
    """Router pods that exist."""
    ready: int = 0
    heard: int = 0
    """Those that answered lately."""
    table: RouteTable | None = None
    """The last table, if all of them hold it."""
    in_flight: Mapping[str, int] = field(default_factory=dict)
    """Requests per endpoint."""
    load: Load | None = None
    """None: nobody answered."""
    outcomes: Mapping[str, Outcomes] = field(default_factory=dict)
    """Per revision, since the canary got its first requests."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Facts about the service's surroundings."""

    model: ResolvedModel = ResolvedModel()
    queue_found: bool = True
    creation_error: CreationError | None = None
    url: str = ""


@dataclass(frozen=True, slots=True)
class ServiceObserved:
    """A service and what is known of it."""

    service: ServiceView
    pods: tuple[PodView, ...]
    """Its servers."""
    nodes: Mapping[str, NodeView]
    traffic: Traffic
    around: Surroundings
    memory: Memory
    now: float


@dataclass(frozen=True, slots=True)
class EnsureObjects:
    """The service's router and what belongs to it exist as its spec says."""


@dataclass(frozen=True, slots=True)
class CreateServer:
    """A pod of a replica exists on this node."""

    member: str
    rank: int
    node: str


ServiceAction = EnsureObjects | CreateServer | DeletePod | RecordEvent


@dataclass(frozen=True, slots=True)
class ServicePlan:
    """Outcome of looking at a service: the status to write first, then the rest."""

    status: InferenceServiceStatus
    actions: tuple[ServiceAction, ...] = ()
    requests: Mapping[str, GangRequest] = field(default_factory=dict)
    """Per member: what it asks of the scheduler."""
    table: RouteTable | None = None
    """What the routers are to know; its version is the sender's to count. None: as before."""
    memory: Memory = field(default_factory=Memory)
    requeue_after: float | None = None
