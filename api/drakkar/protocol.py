"""What operator and agents say to each other.

The operator gives every training pod a ``GangConfig`` (environment variable ``DRAKKAR_GANG``) and
the facts that only Kubernetes knows (downward API, see ``PodFacts``). The agent of replica 0 is the
gang's coordinator: its peers send it heartbeats, and the operator long-polls its report:
``GET http://POD:8600/v1/report?after=VERSION&wait=SECONDS`` answers as soon as the report is newer
than VERSION, or with the current one after SECONDS. When the training ends the coordinator also
leaves the last report as its termination message, so that nothing is lost with the pod.
"""

from datetime import datetime
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field

from drakkar.constants import AGENT_PORT, RENDEZVOUS_PORT
from drakkar.v1alpha1.meta import Model
from drakkar.v1alpha1.trainingjob import CheckpointRecord, Progress, Restart

GANG_ENV = "DRAKKAR_GANG"
REPORT_LIMIT_BYTES = 1 << 20
"""The operator reads no more of a report than this."""


class GangConfig(Model):
    """The same for all pods of a gang, and for all its restarts."""

    job: str
    namespace: str
    uid: str
    replicas: int
    processes_per_replica: int
    coordinator: str = Field(description="DNS name of replica 0.")
    agent_port: int = AGENT_PORT
    rendezvous_port: int = RENDEZVOUS_PORT
    recipe: str | None = None
    recipe_config: dict[str, Any] = Field(default_factory=dict)
    checkpoint_dir: str | None = Field(
        default=None, description="Folder of this job's checkpoints."
    )
    checkpoint_root: str | None = Field(default=None, description="Mount point of the volume.")
    checkpoint_every: int = 50
    checkpoint_keep: int = 3
    memory_every: int = Field(
        default=0, ge=0, description="Steps between two checkpoints in memory; 0 for none."
    )
    restore_from: str | None = None
    in_place_restarts: int = 3
    backoff_seconds: float = 2.0
    same_error_limit: int = Field(
        default=3,
        description="The same exception at the same step so often in a row ends the job; 0: never.",
    )
    hang_timeout_seconds: float = 600.0

    @property
    def world_size(self) -> int:
        """Ranks in the gang."""
        return self.replicas * self.processes_per_replica


class PodFacts(Model):
    """Environment of one pod, by downward API; the field in capitals with DRAKKAR_ is the variable."""

    replica_index: int
    pod_name: str
    pod_uid: str
    node_name: str

    @classmethod
    def from_environ(cls, environ: dict[str, str]) -> Self:
        """Read DRAKKAR_REPLICA_INDEX, DRAKKAR_POD_NAME, DRAKKAR_POD_UID and DRAKKAR_NODE_NAME."""
        return cls(**{name: environ[f"DRAKKAR_{name.upper()}"] for name in cls.model_fields})


class Member(Model):
    """One pod of the gang as the coordinator sees it."""

    replica: int
    pod: str
    node: str
    state: Literal["missing", "joining", "running", "leaving", "done", "failed"]
    step: int | None = None
    heartbeat_age_seconds: float | None = None


class Failure(Model):
    """Why the gang cannot go on by itself."""

    reason: str = Field(max_length=64)
    message: str = Field(max_length=1024)
    replica: int | None = None
    retryable: bool


Book = Literal["start", "productive", "compile", "checkpoint", "lost", "recovery", "other"]
BOOKS: tuple[Book, ...] = get_args(Book)

Seconds = Annotated[float, Field(ge=0, lt=1e12)]


class LedgerState(Model):
    """Where a gang's time went; the books add up to ``at - since``."""

    since: float = Field(description="When the first coordinator started, seconds since the epoch.")
    at: float = Field(description="Until when it is accounted for, seconds since the epoch.")
    reached: int = Field(default=0, ge=0, description="Highest step that was done.")
    last_step: float = Field(default=0, description="When the last step was done.")
    start_seconds: Seconds = Field(default=0, description="Until the first step.")
    productive_seconds: Seconds = Field(
        default=0, description="In steps and evaluations that count."
    )
    compile_seconds: Seconds = 0
    checkpoint_seconds: Seconds = Field(default=0, description="The training waited for a save.")
    lost_seconds: Seconds = Field(default=0, description="In steps that were done again.")
    recovery_seconds: Seconds = Field(default=0, description="From a fault to the next step.")
    other_seconds: Seconds = 0


class Recovery(Model):
    """The training went on after an interruption."""

    since: datetime = Field(description="Of the last step before it.")
    time: datetime = Field(description="Of the first step after it.")
    seconds: float = Field(description="Between the two, without the step itself.")
    steps_lost: int = Field(description="That had to be done again.")
    seconds_lost: float = Field(description="That those steps had taken.")
    source: str | None = Field(default=None, max_length=64, description="memory, storage or start.")
    whole: bool = Field(
        default=False,
        description="Nobody of the gang was left: 'since' is when its successors met instead.",
    )


class Straggler(Model):
    """A rank that is slower than the rest of its gang in a stage in which it waits for nobody."""

    rank: int
    node: str
    stage: str = Field(max_length=32)
    ratio: float = Field(description="Its time over the gang's median.")
    message: str = Field(max_length=512)


class Report(Model):
    """State of the whole gang, told by its coordinator."""

    uid: str = Field(description="UID of the TrainingJob.")
    pod_uid: str = Field(description="UID of the coordinator's pod; versions start anew with it.")
    version: int
    epoch: int = Field(description="Counts the times the gang met and started its trainers.")
    state: Literal["meeting", "running", "recovering", "complete", "failed"]
    members: list[Member] = Field(default_factory=list)
    progress: Progress | None = None
    restarts: list[Restart] = Field(
        default_factory=list, description="Of scope process, all so far."
    )
    checkpoints: list[CheckpointRecord] = Field(default_factory=list)
    ledger: LedgerState | None = None
    recoveries: list[Recovery] = Field(default_factory=list, description="The newest.")
    stragglers: list[Straggler] = Field(default_factory=list, max_length=8)
    failure: Failure | None = None
    time: datetime
