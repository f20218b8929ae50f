"""TrainingJob: a gang of pods that train together, start together and survive losses."""

from datetime import datetime
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from drakkar.v1alpha1.gang import (
    DEVICES_TWICE,
    NODE_NAME,
    Accelerators,
    Elastic,
    ResourcesByKind,
    Role,
    Template,
    TopologyRequest,
)
from drakkar.v1alpha1.meta import (
    PATTERN_MESSAGE,
    Condition,
    Model,
    Name,
    Opaque,
    RelativePath,
    rule,
    rules,
)


class Recipe(Model):
    """One of Drakkar's own trainers with its settings."""

    name: Literal["pretrain"] = Field(description="Which trainer runs.")
    config: Opaque = Field(
        default_factory=dict,
        description="Settings of the recipe; docs/reference/recipes.md lists them.",
    )


class ClaimReference(Model):
    """A PersistentVolumeClaim in the job's namespace."""

    claim_name: Name = Field(description="Name of the claim; its volume must be writable.")
    sub_path: RelativePath | None = Field(
        default=None, description="Folder in the volume; the job's name unless set."
    )


class ObjectStore(Model):
    """A bucket, or a part of one, in an object store."""

    url: Annotated[
        str,
        Field(
            min_length=6,
            max_length=512,
            pattern=r"^(s3|gs)://[^/@?#\s]+(/[^@?#\s]*)?$",
            json_schema_extra={
                PATTERN_MESSAGE: "write s3://BUCKET/PREFIX or gs://BUCKET/PREFIX, without credentials"
            },
        ),
    ] = Field(
        description="Bucket and prefix, such as s3://bucket/runs; checkpoints go to "
        "NAMESPACE/NAME below it."
    )
    endpoint: (
        Annotated[
            str,
            Field(
                max_length=512,
                pattern=r"^https?://[^/@?#\s]+(/[^@?#\s]*)?$",
                json_schema_extra={
                    PATTERN_MESSAGE: "write a URL such as https://minio.storage:9000"
                },
            ),
        ]
        | None
    ) = Field(
        default=None, description="Of a store that speaks S3 but is not Amazon's; needs s3://."
    )
    secret_name: Name | None = Field(
        default=None,
        description="Secret in the job's namespace whose keys are the store's environment variables, "
        "such as AWS_ACCESS_KEY_ID. Without it pods use the rights of their node or service account.",
    )


class CheckpointStorage(Model):
    """Where checkpoints are kept."""

    model_config: ClassVar[ConfigDict] = rules(
        rule(
            "has(self.persistentVolumeClaim) != has(self.objectStore)",
            "write either persistentVolumeClaim or objectStore",
        ),
        rule(
            "!has(self.objectStore) || !has(self.objectStore.endpoint) "
            "|| self.objectStore.url.startsWith('s3://')",
            "objectStore.endpoint is for s3:// alone: remove it",
        ),
    )

    persistent_volume_claim: ClaimReference | None = Field(
        default=None, description="A volume that all pods of the gang can write."
    )
    object_store: ObjectStore | None = None


class Checkpoint(Model):
    """When and where the state of the training is saved."""

    model_config: ClassVar[ConfigDict] = rules(
        rule(
            "!has(self.restoreFrom) || has(self.storage)",
            "restoreFrom is a path in the checkpoint storage: set storage too",
        ),
    )

    storage: CheckpointStorage | None = Field(
        default=None, description="Without it a lost pod starts the training from step 0."
    )
    every_steps: int = Field(
        default=50, ge=1, le=1_000_000, description="Steps between two checkpoints."
    )
    memory_every_steps: int = Field(
        default=10,
        ge=0,
        le=1_000_000,
        description="Steps between two copies of the state to memory that outlives the process; a peer "
        "on another node has them, too. They count against the memory limit. 0 for none.",
    )
    keep: int = Field(default=3, ge=1, le=100, description="Newest checkpoints that are kept.")
    restore_from: RelativePath | None = Field(
        default=None,
        description="Start from this checkpoint folder (path below the volume, or below objectStore.url) if the job "
        "has none yet.",
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
    spares: int = Field(
        default=0,
        ge=0,
        le=64,
        description="Room for so many more replicas is kept on nodes of the gang's domain, so that "
        "replicas of lost nodes go there at once. The job starts only with it, the queue pays for "
        "it, and nobody else gets it.",
    )


class TrainingJobSpec(Model):
    """What to train, on what, and how hard to try."""

    model_config: ClassVar[ConfigDict] = rules(
        rule(
            "has(self.recipe) || has(self.template) || (has(self.roles) && self.roles.size() > 0 "
            "&& self.roles.all(role, has(role.template)))",
            "write recipe (one of Drakkar's trainers) or template (your own pod template)",
        ),
        rule(
            "!has(self.template) || has(self.recipe) || (has(self.template.spec) "
            "&& has(self.template.spec.containers) && self.template.spec.containers.size() > 0)",
            "template.spec.containers is empty: write the container that trains, named trainer",
        ),
        rule(
            "has(self.recipe) || !has(self.roles) || self.roles.all(role, !has(role.template) "
            "|| (has(role.template.spec) && has(role.template.spec.containers) "
            "&& role.template.spec.containers.size() > 0))",
            "the containers of a role's template are empty: write the one that trains, named trainer",
        ),
        rule(
            NODE_NAME,
            "Drakkar chooses the nodes: remove template.spec.nodeName, use nodeSelector or topology",
        ),
        rule(
            "self.runtime != 'plain' || !has(self.recipe)",
            "recipes need Drakkar's agent: write runtime: torch or replace recipe by template",
        ),
        rule(
            "self.runtime != 'plain' || self.processesPerReplica == 1",
            "runtime plain starts one process per replica: "
            "write runtime: torch or processesPerReplica: 1",
        ),
        rule(
            "has(self.elastic) || !has(self.topology) || !has(self.topology.groups) "
            "|| self.topology.groups.all(group, self.replicas % group.size == 0)",
            "replicas must be a multiple of every size in topology.groups: change one of them",
        ),
        rule(
            "!has(self.accelerators) || self.accelerators.count % self.processesPerReplica == 0",
            "accelerators.count must be a multiple of processesPerReplica: "
            "each process has devices of its own",
        ),
        rule(DEVICES_TWICE, "devices are counted in accelerators: remove them from resources"),
        rule(
            "!has(self.roles) || self.roles.all(role, !has(role.accelerators) "
            "|| role.accelerators.count % self.processesPerReplica == 0)",
            "the count of a role's accelerators must be a multiple of processesPerReplica: "
            "each process has devices of its own",
        ),
        rule(
            "!has(self.elastic) || self.replicas == 1 || self.replicas == self.elastic.max",
            "with elastic leave replicas out: the gang has elastic.min to elastic.max of them",
        ),
        rule(
            "!has(self.elastic) || !has(self.roles) || self.roles.size() == 0",
            "a gang with roles has a fixed size: remove elastic",
        ),
        rule(
            "!has(self.elastic) || !has(self.faultTolerance) || self.faultTolerance.spares == 0",
            "an elastic gang has no use for spares: remove faultTolerance.spares or elastic",
        ),
        rule(
            "!has(self.elastic) || !has(self.topology) || !has(self.topology.groups) "
            "|| self.topology.groups.all(group, self.elastic.min % group.size == 0 "
            "&& self.elastic.max % group.size == 0)",
            "elastic.min and elastic.max must be multiples of every size in topology.groups",
        ),
        rule(
            "!has(self.roles) || self.roles.size() == 0 "
            "|| self.replicas == self.roles.map(role, role.replicas).sum()",
            "replicas must be the sum of the roles' replicas: change one of them",
        ),
        rule(
            "!has(self.roles) || self.roles.size() == 0 || (!has(self.accelerators) && !has(self.resources) "
            "&& (!has(self.topology) || !has(self.topology.groups) || self.topology.groups.size() == 0))",
            "with roles write accelerators, resources and groups in each role",
        ),
    )

    queue: Name | None = Field(default=None, description="Queue whose quota the job uses.")
    priority_class_name: Name | None = Field(
        default=None, description="PriorityClass of the job and its pods."
    )
    suspend: bool = Field(default=False, description="Checkpoint and give up all pods until unset.")
    replicas: int = Field(default=1, ge=1, le=4096, description="Pods in the gang.")
    processes_per_replica: int = Field(
        default=1, ge=1, le=64, description="Trainer processes (ranks) per pod."
    )
    accelerators: Accelerators | None = None
    resources: ResourcesByKind | None = Field(
        default=None, description="CPU and memory of each replica's trainer container."
    )
    elastic: Elastic | None = Field(
        default=None,
        description="The gang takes as many replicas as there is room for. Its size may change "
        "whenever the whole gang is placed anew.",
    )
    roles: list[Role] = Field(
        default_factory=list,
        max_length=8,
        description="Parts of the gang with pods of their own. All are placed together or not at "
        "all; replicas are numbered in this order.",
        json_schema_extra={
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
        },
    )
    recipe: Recipe | None = None
    template: Template | None = Field(
        default=None,
        description="Pod template; the container named 'trainer' (or the first) runs the training.",
    )
    runtime: Literal["torch", "plain"] = Field(
        default="torch",
        description="torch: Drakkar's agent runs the command and restarts it in place. "
        "plain: the container runs as it is, with RANK, WORLD_SIZE and MASTER_ADDR set.",
    )
    image: str | None = Field(
        default=None,
        min_length=1,
        max_length=512,
        pattern=r"^[^\s]+$",
        description="Image of the trainer container.",
        json_schema_extra={
            PATTERN_MESSAGE: "write an image reference without spaces, such as example.com/team/trainer:1.0"
        },
    )
    topology: TopologyRequest = TopologyRequest()
    checkpoint: Checkpoint = Checkpoint()
    fault_tolerance: FaultTolerance = FaultTolerance()
    movable: bool = Field(
        default=True,
        description="The job may be moved to other nodes, from its newest checkpoint, where that "
        "lets a waiting job start and costs less than the wait.",
    )
    active_deadline_seconds: int | None = Field(
        default=None, ge=1, le=31_536_000, description="The job fails when it has run this long."
    )
    ttl_seconds_after_finished: int | None = Field(
        default=None, ge=0, le=31_536_000, description="The job is deleted this long after its end."
    )

    @property
    def size(self) -> int:
        """Replicas that the gang asks for: the most that an elastic one takes."""
        return self.elastic.max if self.elastic else self.replicas

    @property
    def world_size(self) -> int:
        """Ranks in the gang at the size that it asks for."""
        return self.size * self.processes_per_replica

    @property
    def sizes(self) -> range:
        """Numbers of replicas that the gang may have, falling."""
        if self.elastic is None:
            return range(self.replicas, self.replicas - 1, -1)
        step = self.topology.groups[-1].size if self.topology.groups else 1
        return range(self.elastic.max, self.elastic.min - 1, -step)

    def role_of(self, replica: int) -> Role | None:
        """The role of a replica; None in a job without roles."""
        for role in self.roles:
            if replica < role.replicas:
                return role
            replica -= role.replicas
        return None


class DeviceShare(Model):
    """What a replica has of one device of its node."""

    replica: int = Field(ge=0)
    resource: str = Field(max_length=253)
    device: int = Field(ge=0, description="Number of the device, from 0 in the plugin's order.")
    thousandths: int = Field(ge=1, le=1000)


class Placement(Model):
    """Where the gang runs; written before its first pod is created."""

    level: str = Field(
        max_length=63,
        description="Tightest topology level that holds the whole gang, or 'cluster'.",
    )
    domain: str = Field(max_length=2048, description="Name of that domain, widest label first.")
    nodes: list[Annotated[str, Field(max_length=253)]] = Field(
        max_length=4096, description="Node of each replica, in order of index."
    )
    spares: list[Annotated[str, Field(max_length=253)]] = Field(
        default_factory=list,
        max_length=64,
        description="Nodes where room for one more replica each is kept for repairs.",
    )
    shares: list[DeviceShare] = Field(
        default_factory=list,
        max_length=8192,
        description="Devices of each replica, on nodes whose devices are shared out by thousandths.",
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
        default=None, description="Time in steps that count over time since the job was created."
    )
    eta_seconds: int | None = None
    sample: str | None = Field(default=None, max_length=2048, description="Text the model wrote.")


class Goodput(Model):
    """Where the job's time went since it was created. The parts add up to wallSeconds."""

    ratio: float = Field(description="productiveSeconds / wallSeconds, 0 to 1.")
    wall_seconds: float
    productive_seconds: float = Field(default=0, description="In steps that count.")
    queue_seconds: float = Field(default=0, description="Until the gang had a place.")
    start_seconds: float = Field(default=0, description="From there to the first step.")
    compile_seconds: float = 0
    checkpoint_seconds: float = Field(default=0, description="The training waited for a save.")
    lost_seconds: float = Field(default=0, description="In steps that were done again.")
    recovery_seconds: float = Field(default=0, description="From a fault to the next step.")
    other_seconds: float = Field(default=0, description="Between steps: data, logs, the end.")
    books_since: float = Field(
        description="When the newest gang's books begin, seconds since the epoch."
    )
    earlier: dict[str, float] = Field(
        max_length=16, description="Sums in seconds from before these books."
    )


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
    evidence: list[Annotated[str, Field(max_length=512)]] = Field(
        default_factory=list,
        max_length=8,
        description="What shows the cause: how a process ended, what the node and the kubelet say, "
        "where each rank of a gang that hangs was, with its stack.",
    )
    replica: int | None = None
    node: str | None = Field(default=None, max_length=253)
    seconds_lost: float | None = Field(
        default=None,
        description="From the last step before to the next one, and in steps done again.",
    )
    steps_lost: int | None = Field(default=None, description="Steps that were done again.")
    resumed_from: str | None = Field(
        default=None, max_length=64, description="memory, storage or start."
    )
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
    replicas: int | None = Field(
        default=None, description="Replicas that the gang has or, without a place, asks for."
    )
    ready_replicas: int | None = Field(default=None, description="Replicas whose container runs.")
    start_time: datetime | None = Field(default=None, description="When the whole gang first ran.")
    completion_time: datetime | None = None
    placement: Placement | None = None
    progress: Progress | None = None
    goodput: Goodput | None = None
    stragglers: list[Annotated[str, Field(max_length=512)]] = Field(
        default_factory=list, max_length=8, description="Ranks that are slow by now, with figures."
    )
    restart_count: int = Field(default=0, description="Restarts that counted against maxRestarts.")
    restarts: list[Restart] = Field(
        default_factory=list, max_length=50, description="Newest interruptions, oldest first."
    )
    checkpoints: list[CheckpointRecord] = Field(default_factory=list, max_length=100)
    pending_reason: str | None = Field(
        default=None, max_length=2048, description="Why the gang has no place yet, with numbers."
    )
    queue_position: int | None = Field(
        default=None, description="Place among the waiting jobs of its queue, from 1; about."
    )
    expected_start: datetime | None = Field(
        default=None,
        description="When running jobs are expected to have made room, if no other job takes it.",
    )
