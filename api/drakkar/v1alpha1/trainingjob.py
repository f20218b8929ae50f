"""TrainingJob: a gang of pods that train together, start together and survive losses."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from drakkar.v1alpha1.meta import Condition, Model, Name, Opaque, Quantity

LevelName = Annotated[
    str, Field(min_length=1, max_length=63, pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$")
]


class Accelerators(Model):
    """Devices of each replica."""

    resource: str = Field(
        max_length=253,
        pattern=r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$",
        description="Extended resource that the device plugin advertises, such as nvidia.com/gpu.",
    )
    count: int = Field(ge=1, le=64, description="Devices per replica.")


class Recipe(Model):
    """One of Drakkar's own trainers with its settings."""

    name: Literal["pretrain"] = Field(description="Which trainer runs.")
    config: Opaque = Field(
        default_factory=dict,
        description="Settings of the recipe; docs/reference/recipes.md lists them.",
    )


class TopologyRequest(Model):
    """How close together the gang must be placed."""

    required: LevelName | None = Field(
        default=None,
        description="The gang runs inside one domain of this level (zone, block, rack, host) or waits.",
    )
    preferred: LevelName | None = Field(
        default=None,
        description="The gang runs inside one domain of this level if there is room, else as close as can be.",
    )
    group_size: int | None = Field(
        default=None,
        ge=2,
        le=4096,
        description="Consecutive replicas that form a group, such as 4.",
    )
    group_level: LevelName | None = Field(
        default=None, description="Each group runs inside one domain of this level."
    )


class ClaimReference(Model):
    """A PersistentVolumeClaim in the job's namespace."""

    claim_name: Name
    sub_path: str | None = Field(
        default=None,
        max_length=512,
        pattern=r"^[^/].*$",
        description="Folder in the volume; the job's name unless set.",
    )


class CheckpointStorage(Model):
    """Where checkpoints are kept."""

    persistent_volume_claim: ClaimReference


class Checkpoint(Model):
    """When and where the state of the training is saved."""

    storage: CheckpointStorage | None = Field(
        default=None, description="Without it a lost pod starts the training from step 0."
    )
    every_steps: int = Field(default=50, ge=1, le=1_000_000)
    keep: int = Field(default=3, ge=1, le=100, description="Newest checkpoints that are kept.")
    restore_from: str | None = Field(
        default=None,
        max_length=512,
        description="Start from this checkpoint folder (path below the volume) if the job has none yet.",
    )


class FaultTolerance(Model):
    """What a failure costs and when it ends the job."""

    max_restarts: int = Field(
        default=10,
        ge=0,
        le=10_000,
        description="Failures (crashed processes or pods) that the job survives. "
        "Lost nodes, evictions and deleted pods are not counted.",
    )
    in_place_restarts: int = Field(
        default=3,
        ge=0,
        le=1000,
        description="Restarts of processes by a pod's agent before the pod fails.",
    )
    backoff_seconds: int = Field(
        default=2,
        ge=0,
        le=3600,
        description="Wait before the first restart; doubled at each further one.",
    )
    hang_timeout_seconds: int = Field(
        default=600,
        ge=5,
        le=86_400,
        description="A gang without a step for this long is restarted.",
    )


class TrainingJobSpec(Model):
    """What to train, on what, and how hard to try."""

    queue: Name | None = Field(default=None, description="Queue whose quota the job uses.")
    priority_class_name: Name | None = None
    suspend: bool = Field(default=False, description="Checkpoint and give up all pods until unset.")
    replicas: int = Field(default=1, ge=1, le=4096, description="Pods in the gang.")
    processes_per_replica: int = Field(
        default=1, ge=1, le=64, description="Trainer processes (ranks) per pod."
    )
    accelerators: Accelerators | None = None
    resources: dict[Literal["requests", "limits"], dict[str, Quantity]] | None = Field(
        default=None, description="CPU and memory of each replica's trainer container."
    )
    recipe: Recipe | None = None
    template: Opaque | None = Field(
        default=None,
        description="Pod template; the container named 'trainer' (or the first) runs the training.",
    )
    runtime: Literal["torch", "plain"] = Field(
        default="torch",
        description="torch: Drakkar's agent runs the command and restarts it in place. "
        "plain: the container runs as it is, with RANK, WORLD_SIZE and MASTER_ADDR set.",
    )
    image: str | None = Field(
        default=None, max_length=512, description="Image of the trainer container."
    )
    topology: TopologyRequest = TopologyRequest()
    checkpoint: Checkpoint = Checkpoint()
    fault_tolerance: FaultTolerance = FaultTolerance()
    active_deadline_seconds: int | None = Field(
        default=None, ge=1, le=31_536_000, description="The job fails when it has run this long."
    )
    ttl_seconds_after_finished: int | None = Field(
        default=None, ge=0, le=31_536_000, description="The job is deleted this long after its end."
    )

    @property
    def world_size(self) -> int:
        """Ranks in the gang."""
        return self.replicas * self.processes_per_replica


class Placement(Model):
    """Where the gang runs; written before its first pod is created."""

    level: str = Field(
        description="Tightest topology level that holds the whole gang, or 'cluster'."
    )
    domain: str = Field(description="Name of that domain, widest label first.")
    nodes: list[str] = Field(
        max_length=4096, description="Node of each replica, in order of index."
    )


class Progress(Model):
    """How far the training is, as rank 0 sees it."""

    step: int
    total_steps: int
    loss: float | None = Field(default=None, description="Training loss, nats per token.")
    eval_loss: float | None = Field(default=None, description="Held-out loss, nats per token.")
    tokens_per_second: float | None = None
    mfu: float | None = Field(default=None, description="Model FLOP/s utilisation, 0 to 1.")
    goodput: float | None = Field(
        default=None, description="Time in steps that counted over time since the first pod ran."
    )
    eta_seconds: int | None = None
    sample: str | None = Field(default=None, max_length=2048, description="Text the model wrote.")


RestartScope = Literal["process", "pod", "gang"]


class Restart(Model):
    """One interruption of the training."""

    id: str = Field(
        max_length=128, description="Same for the same interruption, however often reported."
    )
    time: datetime
    scope: RestartScope
    reason: str = Field(
        max_length=64,
        description="ProcessCrashed, ProcessHung, PodFailed, PodDeleted, NodeLost, Refused, ...",
    )
    message: str = Field(default="", max_length=1024)
    replica: int | None = None
    node: str | None = None
    counted: bool = Field(default=True, description="Whether it counts against maxRestarts.")


class CheckpointRecord(Model):
    """One published checkpoint."""

    step: int
    path: str = Field(max_length=512, description="Folder below the checkpoint volume.")
    time: datetime


class TrainingJobStatus(Model):
    """What the operator knows of the job."""

    observed_generation: int | None = None
    phase: (
        Literal["Pending", "Starting", "Running", "Recovering", "Suspended", "Complete", "Failed"]
        | None
    ) = Field(default=None, description="For display; programs read the conditions.")
    conditions: list[Condition] = Field(
        default_factory=list,
        max_length=16,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    replicas: int | None = Field(default=None, description="Replicas that the gang has.")
    ready_replicas: int | None = Field(default=None, description="Replicas whose container runs.")
    start_time: datetime | None = Field(default=None, description="When the whole gang first ran.")
    completion_time: datetime | None = None
    placement: Placement | None = None
    progress: Progress | None = None
    restart_count: int = Field(default=0, description="Restarts that counted against maxRestarts.")
    restarts: list[Restart] = Field(
        default_factory=list, max_length=50, description="Newest interruptions, oldest first."
    )
    checkpoints: list[CheckpointRecord] = Field(default_factory=list, max_length=100)
    pending_reason: str | None = Field(default=None, max_length=2048)
