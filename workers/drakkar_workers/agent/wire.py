"""What agents say to their coordinator and what it answers.

``POST /v1/heartbeat`` with a ``Heartbeat`` is answered by a ``Command`` as soon as the command
differs from the one the peer has, at the latest after the heartbeat interval. Both are whole
states, not events: a lost or repeated one does no harm.
"""

from typing import Annotated, Literal

from pydantic import Field

from drakkar.protocol import Failure, LedgerState
from drakkar.v1alpha1.meta import Model
from drakkar_workers.channel import PhaseName

HEARTBEAT_PATH = "/v1/heartbeat"
REPORT_PATH = "/v1/report"
MEMORY_PATH = "/v1/memory"
PARCEL_HEADER = "Drakkar-Parcel"
HEARTBEAT_LIMIT_BYTES = 512 * 1024

Epoch = Annotated[int, Field(ge=0, lt=1 << 31)]
Count = Annotated[int, Field(ge=0, lt=1 << 53)]


class Exit(Model):
    """How a trainer process ended."""

    code: int | None = Field(default=None, description="Exit code; None if a signal ended it.")
    signal: int | None = None
    stopped: bool = Field(default=False, description="Its agent ended it, for the gang's sake.")
    out_of_memory: bool = Field(default=False, description="The kernel's OOM killer chose it.")
    reason: str | None = Field(default=None, max_length=64, description="Told by the trainer.")
    message: str | None = Field(default=None, max_length=1024, description="Told by the trainer.")
    age_seconds: float = Field(
        default=0, ge=0, description="Since it ended; an age needs no common clock."
    )


class RankStatus(Model):
    """One trainer process in the epoch of its agent."""

    rank: int = Field(ge=0, lt=1 << 20)
    step: Count | None = None
    phase: PhaseName = "starting"
    messages: Count = Field(default=0, description="That the process has sent: each shows life.")
    process_state: str | None = Field(
        default=None,
        max_length=1,
        description="As in /proc/PID/stat; T is stopped, D waits for I/O.",
    )
    passed: Count | None = Field(default=None, description="Stages of its steps, since its start.")
    stage: str | None = Field(default=None, max_length=32, description="Where in its step it is.")
    alone_seconds: dict[str, float] = Field(
        default_factory=dict,
        max_length=8,
        description="So far in stages in which it waits for no other rank.",
    )
    stack: list[Annotated[str, Field(max_length=160)]] = Field(
        default_factory=list,
        max_length=8,
        description="Innermost frames of its main thread, once they were asked for.",
    )
    exit: Exit | None = None


class Held(Model):
    """A rank's checkpoint in an agent's memory."""

    rank: int = Field(ge=0, lt=1 << 20)
    epoch: Epoch
    step: Count
    shared: bool = Field(default=False, description="Every rank has the same tensors.")
    with_body: bool = True


class Fetch(Model):
    """A checkpoint that an agent is to take from a peer's memory before its trainers start."""

    rank: int
    epoch: int
    step: int
    host: str


class Heartbeat(Model):
    """State of one replica."""

    uid: str = Field(max_length=64, description="UID of the TrainingJob.")
    replica: int
    incarnation: str = Field(max_length=128, description="Pod UID and start of the agent.")
    started: float = Field(description="When the agent started, seconds since the epoch.")
    sequence: Count
    pod: str = Field(max_length=253)
    node: str = Field(max_length=253)
    ready: bool = Field(default=False, description="It can start trainers at once.")
    leaving: bool = Field(default=False, description="Its pod is being terminated.")
    finished: bool = Field(default=False, description="It has seen the end and exits.")
    epoch: Epoch = Field(default=0, description="In which its trainers were started; 0 is never.")
    ranks: list[RankStatus] = Field(default_factory=list, max_length=64)
    address: str | None = Field(
        default=None, max_length=64, description="Where its peers reach it, if it knows better."
    )
    memory: list[Held] = Field(
        default_factory=list, max_length=256, description="Of its ranks, while none of them runs."
    )
    copies: list[Held] = Field(
        default_factory=list, max_length=512, description="Of other ranks, while none of its runs."
    )
    copy_seconds: float | None = Field(
        default=None, ge=0, description="That its newest copies to a peer took."
    )
    ledger: LedgerState | None = Field(
        default=None, description="The newest it knows, kept for a coordinator's successor."
    )
    seen: str = Field(default="", max_length=64, description="Key of the newest command it has.")
    wait_seconds: float = Field(default=0, ge=0, le=10, description="For a newer command.")

    @property
    def alive(self) -> bool:
        """Whether any of its trainers runs."""
        return any(rank.exit is None for rank in self.ranks)


Action = Literal["wait", "start", "finish", "fail", "leave"]


class Command(Model):
    """What a replica has to do.

    wait: no trainer runs. start: the trainers of ``epoch`` run. finish: exit, the training is
    complete. fail: exit because of ``failure``. leave: exit, another pod has this replica's place.
    """

    action: Action
    epoch: Epoch
    exit_code: int = 0
    dump_stacks: bool = Field(default=False, description="Before the trainers are stopped.")
    failure: Failure | None = None
    master_address: str | None = Field(
        default=None, description="Where this peer reaches rank 0's pod."
    )
    partner: str | None = Field(default=None, description="Host that keeps copies of its memory.")
    partner_every: int = Field(default=0, description="Steps between two such copies.")
    ledger: LedgerState | None = Field(default=None, description="For the peer to keep.")
    keeps: list[int] = Field(
        default_factory=list, max_length=512, description="Ranks whose copies this peer keeps."
    )
    fetch: list[Fetch] = Field(default_factory=list, max_length=64)
    message: str = Field(default="", max_length=1024)

    @property
    def key(self) -> str:
        """Equal for equal commands, as far as the peer's doing goes."""
        return f"{self.action}-{self.epoch}-{self.exit_code}"
