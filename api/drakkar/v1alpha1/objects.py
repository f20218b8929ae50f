"""Whole objects of each kind, and what the API server must know of the kind (names, scope)."""

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, Final

from pydantic import Field
from pydantic.config import JsonDict

from drakkar.constants import API_VERSION, GROUP
from drakkar.v1alpha1.inferenceservice import InferenceServiceSpec, InferenceServiceStatus
from drakkar.v1alpha1.meta import Condition, Model, rule
from drakkar.v1alpha1.queue import QueueSpec, QueueStatus
from drakkar.v1alpha1.topology import TopologySpec, TopologyStatus
from drakkar.v1alpha1.trainingjob import TrainingJobSpec, TrainingJobStatus


class ObjectMeta(Model):
    """The part of Kubernetes object metadata that programs here use."""

    name: str
    namespace: str | None = None
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None


@dataclass(frozen=True, slots=True)
class Column:
    """A printer column of ``kubectl get``; with wide it shows only in ``-o wide``."""

    name: str
    type: str
    path: str
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Kind:
    """Names, scope, columns and cross-field rules of a kind."""

    name: str
    plural: str
    short_names: tuple[str, ...]
    namespaced: bool
    columns: tuple[Column, ...]
    rules: tuple[JsonDict, ...]
    """CEL rules on the whole object."""
    scale: JsonDict | None = None
    """Paths of the scale subresource, if the kind has one."""

    @property
    def resource(self) -> str:
        """Name of the CustomResourceDefinition, such as queues.drakkar.dev."""
        return f"{self.plural}.{GROUP}"


class KubernetesObject(Model):
    """An object of one of the kinds of drakkar.dev/v1alpha1."""

    KIND: ClassVar[Kind]

    api_version: str = API_VERSION
    kind: str
    metadata: ObjectMeta

    @property
    def name(self) -> str:
        """metadata.name."""
        return self.metadata.name


_MUTABLE: Final = frozenset(
    {
        "suspend",
        "priorityClassName",
        "faultTolerance",
        "movable",
        "activeDeadlineSeconds",
        "ttlSecondsAfterFinished",
    }
)
"""Fields of a TrainingJob's spec that may change while its pods exist."""


def _unchanged(field: str) -> str:
    old, new = f"oldSelf.spec.{field}", f"self.spec.{field}"
    return f"(has({new}) ? has({old}) && {new} == {old} : !has({old}))"


_SUSPENDED: Final = (
    "(has(oldSelf.status) && has(oldSelf.status.conditions) && oldSelf.status.conditions"
    ".exists(c, c.type == 'Suspended' && c.status == 'True'))"
)


_MOVES_ON: Final = (
    "(has(self.status) && has(self.status.phase) && (!has(oldSelf.status) "
    "|| !has(oldSelf.status.phase) || self.status.phase != oldSelf.status.phase))"
)
"""True only of a write to the status, which can't change the spec, as a write of the spec can't change
the status. To compare the specs would be a tenth of what such a write costs the API server."""


def _immutable_while_pods_exist() -> JsonDict:
    names = [info.alias or name for name, info in TrainingJobSpec.model_fields.items()]
    frozen = [name for name in names if name not in _MUTABLE | {"queue"}]
    return rule(
        f"{_MOVES_ON} || {_SUSPENDED} || ("
        + " && ".join(_unchanged(name) for name in frozen)
        + ")",
        f"unless a job is suspended only {', '.join(sorted(_MUTABLE))} of its spec may change: suspend "
        "it first and wait for its condition Suspended, or delete and create it again",
    )


class TrainingJob(KubernetesObject):
    """A gang of pods that train together."""

    KIND: ClassVar[Kind] = Kind(
        name="TrainingJob",
        plural="trainingjobs",
        short_names=("tj",),
        namespaced=True,
        columns=(
            Column("Phase", "string", ".status.phase"),
            Column("Step", "integer", ".status.progress.step"),
            Column("Of", "integer", ".status.progress.totalSteps"),
            Column("Loss", "number", ".status.progress.loss"),
            Column("Tokens/s", "integer", ".status.progress.tokensPerSecond"),
            Column("Ready", "integer", ".status.readyReplicas"),
            Column("Replicas", "integer", ".status.replicas"),
            Column("Restarts", "integer", ".status.restartCount"),
            Column("Domain", "string", ".status.placement.domain"),
            Column("Age", "date", ".metadata.creationTimestamp"),
            Column("Queue", "string", ".spec.queue", wide=True),
            Column("Held-out", "number", ".status.progress.evalLoss", wide=True),
            Column("Position", "integer", ".status.queuePosition", wide=True),
            Column("Reason", "string", ".status.pendingReason", wide=True),
        ),
        rules=(
            # Pods are named NAME-INDEX and the Service NAME (RFC 1035 label, 63 characters).
            rule(
                "self.metadata.name.size() <= 50 "
                "&& self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
                "metadata.name names the pods and their Service: write at most 50 lower-case letters, "
                "digits and '-', first a letter, last no '-'",
            ),
            _immutable_while_pods_exist(),
            rule(
                f"{_MOVES_ON} || {_unchanged('queue')} || {_SUSPENDED} "
                "|| !has(oldSelf.status) || !has(oldSelf.status.placement)",
                "a job that has its place can't change queue: suspend it first, "
                "or delete and create it again",
            ),
        ),
    )

    kind: str = "TrainingJob"
    spec: TrainingJobSpec
    status: TrainingJobStatus = TrainingJobStatus()

    @property
    def namespace(self) -> str:
        """metadata.namespace."""
        return self.metadata.namespace or "default"

    @property
    def replicas(self) -> int:
        """Size of the gang: what the operator says it has, else what it asks for."""
        return self.status.replicas or self.spec.size

    def condition(self, kind: str) -> Condition | None:
        """The condition of that type, such as Complete, if the status has it."""
        return next((item for item in self.status.conditions if item.type == kind), None)

    def is_true(self, kind: str) -> bool:
        """Whether the condition of that type is True."""
        found = self.condition(kind)
        return found is not None and found.status == "True"


class InferenceService(KubernetesObject):
    """A model that answers OpenAI requests from replicas behind a router."""

    KIND: ClassVar[Kind] = Kind(
        name="InferenceService",
        plural="inferenceservices",
        short_names=("isvc",),
        namespaced=True,
        columns=(
            Column("Ready", "string", ".status.conditions[?(@.type=='Ready')].status"),
            Column("Replicas", "integer", ".status.replicas"),
            Column("Up", "integer", ".status.readyReplicas"),
            Column("Desired", "integer", ".status.desiredReplicas"),
            Column("Traffic", "string", ".status.traffic[*].weight"),
            Column("Canary", "string", ".status.canary.state"),
            Column("Restarts", "integer", ".status.restartCount"),
            Column("URL", "string", ".status.url"),
            Column("Age", "date", ".metadata.creationTimestamp"),
            Column("Queue", "string", ".spec.queue", wide=True),
            Column("Runtime", "string", ".spec.runtime.name", wide=True),
            Column("Reason", "string", ".status.conditions[?(@.type=='Ready')].message", wide=True),
        ),
        rules=(
            # Pods are named NAME-serve-INDEX-RANK and are hostnames; the router's Service is NAME.
            rule(
                "self.metadata.name.size() <= 40 "
                "&& self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
                "metadata.name names the pods and their Service: write at most 40 lower-case letters, "
                "digits and '-', first a letter, last no '-'",
            ),
        ),
        scale={
            "specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        },
    )

    kind: str = "InferenceService"
    spec: InferenceServiceSpec
    status: InferenceServiceStatus = InferenceServiceStatus()

    @property
    def namespace(self) -> str:
        """metadata.namespace."""
        return self.metadata.namespace or "default"

    def condition(self, kind: str) -> Condition | None:
        """The condition of that type, such as Ready, if the status has it."""
        return next((item for item in self.status.conditions if item.type == kind), None)


class Queue(KubernetesObject):
    """Who may use how much."""

    KIND: ClassVar[Kind] = Kind(
        name="Queue",
        plural="queues",
        short_names=("dq",),
        namespaced=False,
        columns=(
            Column("Admitted", "integer", ".status.admitted"),
            Column("Pending", "integer", ".status.pending"),
            Column("Share", "number", ".status.share"),
            Column("Fair", "number", ".status.fairShare"),
            Column("Weight", "integer", ".spec.weight"),
            Column("Age", "date", ".metadata.creationTimestamp"),
            Column("Parent", "string", ".spec.parent", wide=True),
            Column("Binding", "string", ".spec.binding", wide=True),
        ),
        rules=(
            # The name is the value of a label of the queue's pods.
            rule(
                "self.metadata.name.size() <= 63",
                "metadata.name becomes a label of pods: write at most 63 characters",
            ),
            rule(
                "!has(self.spec.parent) || self.spec.parent != self.metadata.name",
                "a queue can't be its own parent: name another queue in spec.parent or remove it",
            ),
        ),
    )

    kind: str = "Queue"
    spec: QueueSpec
    status: QueueStatus = QueueStatus()


class Topology(KubernetesObject):
    """Which node labels say how near nodes are to each other."""

    KIND: ClassVar[Kind] = Kind(
        name="Topology",
        plural="topologies",
        short_names=("topo",),
        namespaced=False,
        columns=(
            Column("Levels", "string", ".spec.levels[*].name"),
            Column("Age", "date", ".metadata.creationTimestamp"),
            Column("Labels", "string", ".spec.levels[*].nodeLabel", wide=True),
        ),
        rules=(),
    )

    kind: str = "Topology"
    spec: TopologySpec
    status: TopologyStatus = TopologyStatus()


KINDS: Final[tuple[type[KubernetesObject], ...]] = (
    TrainingJob,
    InferenceService,
    Queue,
    Topology,
)
