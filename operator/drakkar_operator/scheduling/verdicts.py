"""What one cycle leaves to the next: room that is kept, and verdicts that need not be given again.

A verdict that a gang does not fit holds as long as no node that could take a replica of it has more
free than when it was given. Its numbers are those of then.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from drakkar_operator.scheduling.decision import Decision, Hold, Unplaced
from drakkar_operator.scheduling.request import GangRequest, Key
from drakkar_operator.scheduling.room import Room, Shape
from drakkar_operator.scheduling.snapshot import Snapshot
from drakkar_operator.scheduling.workload import Pending, Running

_Kind = tuple[str | None, Shape]
"""Queue and shape: gangs of one kind get one verdict."""


@dataclass(frozen=True, eq=False)
class Memory:
    """What is left of a cycle."""

    holds: tuple[Hold, ...] = ()
    free: Snapshot | None = None
    """What was free beside the holds at its end."""
    verdicts: Mapping[_Kind, tuple[GangRequest, Unplaced]] = field(default_factory=dict)

    def recall(
        self,
        snapshot: Snapshot,
        pending: Sequence[Pending],
        running: Iterable[Running],
        now: float,
    ) -> tuple[tuple[Hold, ...], dict[Key, Unplaced]]:
        """(the holds as things stand now, verdicts that hold still by one gang that each is on)."""
        room = Room(snapshot, {each.key: each for each in running})
        room.renew(self.holds, {each.key: each for each in pending}, now)
        holds = tuple(room.holds.values())
        if not self.verdicts or self.free is None:
            return holds, {}
        valid = self._valid(room.beside(frozenset(room.holds)))
        known: dict[Key, Unplaced] = {}
        for each in pending:
            kind = kind_of(each) if valid else None
            verdict = valid.pop(kind, None) if kind is not None else None
            if verdict is not None:
                known[each.key] = verdict
        return holds, known

    def _valid(self, after: Snapshot) -> dict[_Kind, Unplaced]:
        assert self.free is not None
        before, nodes = self.free, after.nodes
        if nodes is not before.nodes:
            return {}
        rose = after.free > before.free
        changed = np.flatnonzero(rose.any(axis=1))
        rose, free = rose[changed], after.free[changed]
        same_ports = before.ports == after.ports
        valid = {}
        for kind, (request, verdict) in self.verdicts.items():
            helped = False
            for role in request.roles:
                asks = nodes.row(role.requests)
                asked = asks > 0
                room = (free[:, asked] >= asks[asked]).all(axis=1)
                helped |= bool((room & rose[:, asked].any(axis=1)).any())
                helped |= bool(role.host_ports) and not same_ports
            if not helped:
                valid[kind] = verdict
        return valid


def remember(
    snapshot: Snapshot,
    pending: Sequence[Pending],
    running: Iterable[Running],
    holds: Sequence[Hold],
    decisions: Sequence[Decision],
) -> Memory:
    """What a cycle leaves that was given these and ended with these decisions."""
    kept = tuple(each.hold for each in decisions if each.hold is not None)
    room = Room(snapshot, {each.key: each for each in running})
    for decision in decisions:
        if decision.placed is not None:
            room.take(decision.placed)
    for hold in kept:
        room.keep(hold)
    free = room.beside(frozenset(room.holds))
    if {hold.key for hold in holds} - {hold.key for hold in kept}:
        # Some may have been judged beside room that is not kept any more.
        return Memory(kept, free)
    by_key = {each.key: each for each in pending}
    verdicts: dict[_Kind, tuple[GangRequest, Unplaced]] = {}
    seen: set[tuple[str | None, int]] = set()
    for decision in decisions:
        gang = by_key[decision.key]
        if decision.unplaced is not None and decision.hold is None and not gang.request.repair:
            # Gangs of one kind were given the same object.
            if (gang.queue, id(decision.unplaced)) in seen:
                continue
            seen.add((gang.queue, id(decision.unplaced)))
            kind = kind_of(gang)
            if kind is not None:
                verdicts.setdefault(kind, (gang.request, decision.unplaced))
    return Memory(kept, free, verdicts)


def kind_of(gang: Pending) -> _Kind | None:
    """Its kind; None if the request is too strange to have one."""
    try:
        kind = gang.queue, gang.request.shape
        hash(kind)
    except (TypeError, ValueError):
        return None
    return kind
