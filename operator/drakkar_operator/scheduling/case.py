"""A case: all that the decisions of one cycle follow from, as plain data."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from drakkar_operator.model import QueueView
from drakkar_operator.scheduling.defrag import defragment
from drakkar_operator.scheduling.queueing import Decision, schedule
from drakkar_operator.scheduling.snapshot import Snapshot
from drakkar_operator.scheduling.workload import Pending, Running

MOST_WAITING = 4
"""So many waiting gangs are considered for which others may move, the first in line first."""


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
    moves: bool = False
    """Whether gangs may be moved to make room in one piece."""

    def decide(self) -> list[Decision]:
        """The decision on every pending gang, in the order in which they were judged."""
        decisions = schedule(self.snapshot, self.pending, self.queues, self.running)
        return self._with_moves(decisions) if self.moves else decisions

    def _with_moves(self, decisions: list[Decision]) -> list[Decision]:
        """Move gangs for one that would wait, if nobody is on the way out already."""
        if any(each.leaving for each in self.running) or any(d.evictions for d in decisions):
            return decisions
        snapshot = self.snapshot
        for decision in decisions:
            if decision.placed is not None:
                snapshot = snapshot.assume(decision.placed)
        pending = {each.key: each for each in self.pending}
        waiting = [at for at, d in enumerate(decisions) if d.placed is None and d.unplaced]
        for at in waiting[:MOST_WAITING]:
            way = defragment(snapshot, pending[decisions[at].key], self.running, self.now)
            if way is not None:
                who = ", ".join("/".join(each.gang.key) for each in way.moves)
                reason = f"{decisions[at].reason}; {who} moves to make room for it"
                decisions[at] = replace(decisions[at], evictions=way.evictions, reason=reason)
                break
        return decisions

    def asking(self, more: Pending) -> "Case":
        """The case in which this gang waits too, in the place of one with the same key."""
        others = tuple(each for each in self.pending if each.key != more.key)
        return replace(self, pending=(*others, more))
