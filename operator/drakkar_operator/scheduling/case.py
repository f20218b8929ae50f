"""A case: all that the decisions of one cycle follow from, as plain data."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from drakkar_operator.model import QueueView
from drakkar_operator.scheduling.queueing import Decision, schedule
from drakkar_operator.scheduling.snapshot import Snapshot
from drakkar_operator.scheduling.workload import Pending, Running


@dataclass(frozen=True, eq=False)
class Case:
    """What the operator's cycle, ``drakkar plan`` and a replay decide on: the same for all three."""

    snapshot: Snapshot
    pending: tuple[Pending, ...] = ()
    running: tuple[Running, ...] = ()
    """Gangs that hold their nodes; what they hold is not free in the snapshot."""
    queues: Mapping[str, QueueView] = field(default_factory=dict)
    now: float = 0.0
    """Seconds since the epoch."""

    def decide(self) -> list[Decision]:
        """The decision on every pending gang, in the order in which they were judged."""
        return schedule(self.snapshot, self.pending, self.queues, self.running)

    def asking(self, more: Pending) -> "Case":
        """The case in which this gang waits too, in the place of one with the same key."""
        others = tuple(each for each in self.pending if each.key != more.key)
        return replace(self, pending=(*others, more))
