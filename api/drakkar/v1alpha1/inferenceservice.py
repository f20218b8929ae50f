"""Spec and status of an InferenceService."""

from datetime import datetime
from typing import Annotated, ClassVar, Final, Literal

from pydantic import ConfigDict, Field

from drakkar.v1alpha1.gang import (
    DEVICES_TWICE,
    NODE_NAME,
    Accelerators,
    ResourcesByKind,
    Template,
    TopologyRequest,
)
from drakkar.v1alpha1.meta import Condition, Model, Name, Opaque, rule, rules
from drakkar.v1alpha1.serving import (
    Adapters,
    Canary,
    Parallelism,
    Rollout,
    Routing,
    Runtime,
    Scaling,
    ServedModel,
)
from drakkar.v1alpha1.trainingjob import Placement, Restart

RevisionName = Annotated[str, Field(max_length=63)]
MemberName = Annotated[str, Field(max_length=16)]
REVISION_PARTS: Final = (
    "model",
    "runtime",
    "parallelism",
    "accelerators",
    "resources",
    "template",
    "topology",
    "adapters",
)
"""Fields of the spec whose change needs other pods; a change of the rest makes no revision."""


class InferenceServiceSpec(Model):
    """What to serve, on what, for how much load, and how a change goes live."""

    model_config: ClassVar[ConfigDict] = rules(
        rule(
            "!has(self.scaling) || !has(self.replicas)",
            "with scaling the operator chooses the number of replicas: remove replicas, "
            "or remove scaling to let them be set by hand, by HPA or by KEDA",
        ),
        rule(
            "!has(self.model.hf) || self.runtime.name != 'drakkar'",
            "runtime drakkar reads models from a volume: write model.trainingJob, pvc or oci, "
            "or another runtime",
        ),
        rule(
            "!has(self.model.s3) || self.runtime.name in ['vllm', 'custom']",
            "of the runtimes vllm reads S3 by itself: write it, or custom, or model.pvc",
        ),
        rule(
            "self.parallelism.pods == 1 || self.runtime.name != 'drakkar'",
            "a replica of runtime drakkar is one pod: write parallelism.pods: 1 or another runtime",
        ),
        rule(
            "!has(self.accelerators) || self.accelerators.count * self.parallelism.pods "
            "== self.parallelism.tensor * self.parallelism.pipeline",
            "accelerators.count times parallelism.pods must be tensor times pipeline: "
            "each rank has a device of its own",
        ),
        rule(NODE_NAME, "Drakkar chooses the nodes: remove template.spec.nodeName"),
        rule(DEVICES_TWICE, "devices are counted in accelerators: remove them from resources"),
        rule(
            "!has(self.adapters) || self.runtime.name != 'custom'",
            "adapters need a runtime that knows them: drakkar, vllm or sglang",
        ),
    )

    model: ServedModel
    runtime: Runtime = Runtime()
    parallelism: Parallelism = Parallelism()
    accelerators: Accelerators | None = Field(default=None, description="Devices of each pod.")
    resources: ResourcesByKind | None = Field(
        default=None, description="CPU and memory of the server in each pod."
    )
    template: Template | None = Field(
        default=None,
        description="Pod template that the pods are made from; the container named 'server' (or the "
        "first) runs the server.",
    )
    queue: Name | None = Field(default=None, description="Queue whose quota the replicas use.")
    priority_class_name: Name | None = Field(
        default=None, description="PriorityClass of the replicas and their pods."
    )
    topology: TopologyRequest = Field(
        default=TopologyRequest(), description="How close the pods of one replica must be."
    )
    replicas: int | None = Field(
        default=None,
        ge=0,
        le=1000,
        description="Replicas, without scaling; unset: 1. What kubectl scale, HPA and KEDA set.",
    )
    scaling: Scaling | None = None
    rollout: Rollout = Rollout()
    canary: Canary | None = Field(
        default=None, description="Without it a new revision takes over as soon as it is ready."
    )
    routing: Routing = Routing()
    adapters: Adapters | None = None


class Revision(Model):
    """What pods are made of: kept so that replicas of an older spec can be replaced."""

    name: RevisionName
    created: datetime
    model_claim: str | None = Field(
        default=None, max_length=253, description="Claim of the TrainingJob's checkpoints."
    )
    model_path: str | None = Field(
        default=None, max_length=1024, description="Folder of the checkpoint on it."
    )
    spec: Opaque = Field(description="The parts of the spec that pods are made from.")


MemberState = Literal["Pending", "Starting", "Ready", "NotReady", "Draining"]


class Member(Model):
    """One replica and where it is. The placement is written before its first pod is created."""

    name: MemberName = Field(description="Index among the replicas; part of the pods' names.")
    revision: RevisionName
    state: MemberState = "Pending"
    since: datetime = Field(description="When it came into this state.")
    asked: datetime = Field(description="Since when it has its place, or waits for one.")
    placement: Placement | None = None
    pending_reason: str | None = Field(
        default=None, max_length=2048, description="Why it has no place yet, with numbers."
    )
    restarts: int = Field(default=0, description="Restarts of its servers by the kubelet.")


class Traffic(Model):
    """How much of the traffic a revision gets."""

    revision: RevisionName
    weight: int = Field(description="Percent.")
    replicas: int = 0
    ready_replicas: int = 0


class CanaryStatus(Model):
    """The revision that is or was tried."""

    revision: RevisionName
    state: Literal["Starting", "Running", "Promoted", "RolledBack"]
    since: datetime | None = Field(default=None, description="When it got its first requests.")
    message: str = Field(default="", max_length=1024)


class InferenceServiceStatus(Model):
    """What the operator knows of the service."""

    observed_generation: int | None = None
    conditions: list[Condition] = Field(
        default_factory=list,
        max_length=16,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    url: str | None = Field(
        default=None, max_length=512, description="Of OpenAI's API, inside the cluster."
    )
    replicas: int | None = Field(default=None, description="Replicas that are there, ready or not.")
    ready_replicas: int | None = None
    desired_replicas: int | None = Field(default=None, description="By spec.replicas or the load.")
    selector: str | None = Field(
        default=None, max_length=512, description="Labels of the servers' pods, for HPA."
    )
    stable_revision: RevisionName | None = None
    traffic: list[Traffic] = Field(default_factory=list, max_length=8)
    canary: CanaryStatus | None = None
    members: list[Member] = Field(
        default_factory=list, max_length=1200, description="The replicas and where they are."
    )
    revisions: list[Revision] = Field(default_factory=list, max_length=8)
    restart_count: int = Field(default=0, description="Servers and pods that were restarted.")
    restarts: list[Restart] = Field(
        default_factory=list, max_length=20, description="Newest interruptions, oldest first."
    )
    scaled: datetime | None = Field(default=None, description="When desiredReplicas changed last.")
