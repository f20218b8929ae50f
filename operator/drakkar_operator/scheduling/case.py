"""A case: all that the decisions of one cycle follow from, as plain data."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from drakkar_operator.model import QueueView
from drakkar_operator.scheduling.decision import Eviction, Hold, Placed, Unplaced
from drakkar_operator.scheduling.defrag import defragment
from drakkar_operator.scheduling.placement import place
from drakkar_operator.scheduling.queueing import Decision, schedule
from drakkar_operator.scheduling.repair import from_spares, smallest_part
from drakkar_operator.scheduling.request import Key
from drakkar_operator.scheduling.snapshot import Snapshot
from drakkar_operator.scheduling.turns import Recent
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
    holds: tuple[Hold, ...] = ()
    """Room that is kept for gangs since an earlier cycle."""
    known: Mapping[Key, Unplaced] = field(default_factory=dict)
    """Verdicts of earlier cycles that hold still, each by one of the gangs that it is on."""
    recent: Recent = field(default_factory=dict)
    """What the queues used lately, as a fading average."""
    moves: bool = False
    """Whether gangs may be moved to make room in one piece."""

    def decide(self) -> list[Decision]:
        """The decision on every pending gang, in the order in which they were judged."""
        repaired, rest = self._repaired()
        settled = {each.key for each in rest.pending}
        decisions = schedule(
            rest.snapshot,
            rest.pending,
            rest.queues,
            rest.running,
            others=[p for p in self.pending if p.key not in settled and not p.extra],
            holds=rest.holds,
            known=rest.known,
            recent=rest.recent,
            now=rest.now,
        )
        if self.moves:
            decisions = rest._with_moves(decisions)
        decided = [*repaired, *decisions, *self._more_spares([*repaired, *decisions])]
        return [*decided, *self._grown(decided)]

    def _repaired(self) -> tuple[list[Decision], "Case"]:
        """Repairs from spares, and the case without them, in which the others ask for their part."""
        snapshot, decisions = self.snapshot, []
        pending: list[Pending] = []
        for each in sorted(self.pending, key=lambda one: one.key):
            if each.extra:
                continue
            if each.request.repair:
                found = each.spares and from_spares(snapshot, each.request, each.spares)
                if found:
                    placed, snapshot = found
                    decisions.append(Decision(each.key, placed=placed))
                    continue
                each = replace(each, request=smallest_part(snapshot, each.request))
            pending.append(each)
        return decisions, replace(self, snapshot=snapshot, pending=tuple(pending))

    def _more_spares(self, decisions: Sequence[Decision]) -> list[Decision]:
        """Spares in the place of used ones, while nobody waits for room."""
        lacking = [each for each in self.pending if each.extra and not each.request.sizes]
        if any(decision.placed is None for decision in decisions):
            return [Decision(each.key) for each in lacking]
        snapshot = self._after(decisions)
        found: list[Decision] = []
        for each in lacking:
            placed = place(snapshot, each.request)
            if isinstance(placed, Placed):
                snapshot = snapshot.assume(placed)
                found.append(Decision(each.key, placed=placed))
            else:
                found.append(Decision(each.key, unplaced=placed))
        return found

    def _grown(self, decisions: Sequence[Decision]) -> list[Decision]:
        """Stop an elastic gang that would get a larger size, one at a time, while nobody waits."""
        small = [each for each in self.pending if each.extra and each.request.sizes]
        busy = any(each.leaving for each in self.running)
        if busy or any(decision.placed is None or decision.evictions for decision in decisions):
            return [Decision(each.key) for each in small]
        found = [Decision(each.key) for each in small]
        for at, each in enumerate(small):
            grown = self._larger(each, decisions)
            if grown is not None:
                found[at] = replace(found[at], evictions=(grown,))
                break
        return found

    def _larger(self, gang: Pending, decisions: Sequence[Decision]) -> Eviction | None:
        """What happens to the gang if it were not there now and asked for its larger sizes."""
        now = next((each for each in self.running if each.key == gang.key), None)
        if now is None:
            return None
        (answer,) = schedule(
            self._after(decisions).release(now.reservations),
            [replace(gang, extra=False, charged=False)],
            self.queues,
            [each for each in self.running if each is not now],
            recent=self.recent,
            now=self.now,
        )
        if answer.placed is None:
            return None
        before, after = now.request.replicas, answer.placed.request.replicas
        message = f"there is room for {after} replicas in place of {before}: it goes on with these"
        return Eviction(gang.key, "Grown", gang.key, message)

    def _after(self, decisions: Iterable[Decision]) -> Snapshot:
        """What is free once the placed gangs are in place."""
        snapshot = self.snapshot
        for decision in decisions:
            if decision.placed is not None:
                snapshot = snapshot.assume(decision.placed)
        return snapshot

    def _with_moves(self, decisions: list[Decision]) -> list[Decision]:
        """Move gangs for one that would wait, if nobody is on the way out already."""
        if any(each.leaving for each in self.running) or any(d.evictions for d in decisions):
            return decisions
        snapshot = self._after(decisions)
        kept = [each.hold for each in decisions if each.hold is not None]
        pending = {each.key: each for each in self.pending}
        waiting = [at for at, d in enumerate(decisions) if d.placed is None and d.unplaced]
        for at in waiting[:MOST_WAITING]:
            others = [hold for hold in kept if hold.key != decisions[at].key]
            free = snapshot.assume(rank for hold in others for rank in hold.placed.reservations)
            way = defragment(free, pending[decisions[at].key], self.running, self.now)
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
