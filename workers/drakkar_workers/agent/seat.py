"""What the coordinator knows of one replica."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from drakkar.protocol import Member
from drakkar_workers.agent.causes import failed, names
from drakkar_workers.agent.wire import Heartbeat


@dataclass(slots=True)
class Seat:
    """A replica's place in the gang and the pod that has it."""

    replica: int
    timeout: float
    """Silence in seconds after which the pod counts as lost."""
    beat: Heartbeat | None = None
    heard: float = float("-inf")
    busy_since: float | None = None
    """Since when it is expected to run nothing and does."""
    retired: set[str] = field(default_factory=set)
    """Incarnations that must not come back to this place."""

    @property
    def alive(self) -> bool:
        """Whether a trainer runs there, by its last words."""
        return self.beat is not None and self.beat.alive

    @property
    def leaving(self) -> bool:
        """Whether the pod is being terminated."""
        return self.beat is not None and self.beat.leaving

    def fresh(self, now: float) -> bool:
        """Whether it was heard lately."""
        return now - self.heard <= self.timeout

    def joined(self, now: float) -> bool:
        """Whether it can start trainers at once."""
        beat = self.beat
        if beat is None or not self.fresh(now):
            return False
        return beat.ready and not (beat.leaving or beat.finished or beat.alive)

    def started(self, epoch: int) -> bool:
        """Whether its trainers are those of this epoch."""
        return self.beat is not None and self.beat.epoch == epoch

    def completed(self, epoch: int) -> bool:
        """Whether all its ranks are through."""
        return (
            self.beat is not None
            and self.beat.epoch == epoch
            and bool(self.beat.ranks)
            and all(status.exit and status.exit.code == 0 for status in self.beat.ranks)
        )

    @property
    def node(self) -> str:
        """Of its pod; empty before the first word."""
        return self.beat.node if self.beat is not None else ""

    def member(self, epoch: int, now: float) -> Member:
        """As the report shows it."""
        beat = self.beat
        if beat is None:
            return Member(replica=self.replica, pod="", node="", state="missing")
        ends = [status.exit for status in beat.ranks if status.exit]
        if self.completed(epoch):
            state = "done"
        elif not self.fresh(now):
            state = "missing"
        elif beat.leaving:
            state = "leaving"
        elif self.started(epoch) and any(failed(end) for end in ends):
            state = "failed"
        else:
            state = "running" if beat.alive else "joining"
        return Member(
            replica=self.replica,
            pod=beat.pod,
            node=beat.node,
            state=state,
            step=min((s.step for s in beat.ranks if s.step is not None), default=None),
            heartbeat_age_seconds=round(max(0.0, now - self.heard), 2),
        )


def missing(seats: Sequence[Seat], now: float) -> str:
    """Who has not joined, in words."""
    absent = [seat.replica for seat in seats if not seat.joined(now)]
    if not absent:
        return "all replicas have joined"
    here = len(seats) - len(absent)
    return f"waiting for {names('replica', absent)}; {here} of {len(seats)} have joined"


def essence(beat: Heartbeat) -> tuple[object, ...]:
    """What the operator should hear of at once."""
    ended = [status.rank for status in beat.ranks if status.exit is not None]
    return beat.ready, beat.leaving, beat.finished, beat.alive, beat.epoch, ended


def signs_of_life(beat: Heartbeat) -> tuple[object, ...]:
    """What changes as long as the training goes on."""
    return beat.epoch, *(
        (s.rank, s.step, s.phase, s.messages, s.passed, s.exit is None) for s in beat.ranks
    )
