"""What a waiting gang may use of the free room while other room is kept for gangs that wait longer.

Verdicts are kept by shape: gangs that ask for the same are judged once per cycle, and a verdict of
an earlier cycle counts as long as nothing that could help has changed.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from drakkar_operator.scheduling import backfill
from drakkar_operator.scheduling.decision import Hold, Placed, Unplaced
from drakkar_operator.scheduling.placement import place
from drakkar_operator.scheduling.request import GangRequest, Key
from drakkar_operator.scheduling.snapshot import Snapshot
from drakkar_operator.scheduling.topology import IntArray
from drakkar_operator.scheduling.workload import Pending, Running

MOST_HOLDS = 16
"""Gangs for which room is kept at the same time: of each queue the first, by turns."""
Shape = tuple[object, ...]
_NOBODY = ""
"""No queue has this name."""
_Owners = frozenset[str | None]
"""Queues by whose holds the room is less."""


class Room:
    """The free room of a cycle, and who holds what of it."""

    def __init__(self, snapshot: Snapshot, running: Mapping[Key, Running]) -> None:
        self.snapshot = snapshot
        """What is free, holds or not."""
        self.holds: dict[str | None, Hold] = {}
        """By queue."""
        self._running = running
        self._owners: dict[str | None, _Owners] = {}
        self._shortages: dict[_Owners, IntArray] = {}
        self._views: dict[_Owners, Snapshot] = {}
        self._verdicts: dict[Shape, list[tuple[_Owners, Unplaced]]] = {}

    def renew(self, holds: Iterable[Hold], pending: Mapping[Key, Pending], now: float) -> None:
        """Take over the holds of the last cycle that can still come true."""
        for hold in holds:
            gang = pending.get(hold.key)
            if gang is None or gang.queue != hold.queue or len(self.holds) == MOST_HOLDS:
                continue
            room = self.without(hold.queue)
            kept = backfill.renewed(hold, gang, room, self._running, now)
            if kept is not None:
                self.keep(kept)

    def others(self, gang: Pending, ends: float | None, first: bool) -> _Owners:
        """Queues whose holds the gang must respect.

        ``ends`` is when it is over at the latest, if that is known. ``first``: nobody before it in
        its queue waits for room.
        """
        held = self.holds.get(gang.queue)
        mine = held is not None and (first or held.key == gang.key)
        if ends is None:
            return self._but(gang.queue) if mine else self._but(_NOBODY)
        return frozenset(
            queue
            for queue, hold in self.holds.items()
            if not hold.open_to(ends) and not (mine and queue == gang.queue)
        )

    def _but(self, queue: str | None) -> _Owners:
        """All queues with a hold but this one."""
        if queue not in self._owners:
            self._owners[queue] = frozenset(self.holds) - {queue}
        return self._owners[queue]

    def judge(self, request: GangRequest, owners: _Owners) -> Placed | Unplaced:
        """A place beside the holds of these queues, or why there is none."""
        shape = request.shape
        for less_room, verdict in self._verdicts.get(shape, ()):
            if less_room <= owners:
                return verdict
        answer = place(self.beside(owners), request)
        if isinstance(answer, Unplaced):
            if owners and isinstance(place(self.snapshot, request), Placed):
                kept = f"{self._kept_for(owners)}; beside it: {answer.reason}"
                answer = replace(answer, reason=kept)
            self._verdicts.setdefault(shape, []).append((owners, answer))
        return answer

    def _kept_for(self, owners: _Owners) -> str:
        names = sorted("/".join(self.holds[queue].key) for queue in owners)
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        return f"room is kept for {names[0]}{more}, which waits longer"

    def know(self, request: GangRequest, verdict: Unplaced) -> None:
        """Take over a verdict on what is free beside all holds."""
        known = frozenset(self.holds), verdict
        if known not in self._verdicts.setdefault(request.shape, []):
            self._verdicts[request.shape].append(known)

    def take(self, placed: Placed) -> None:
        """The gang has its place."""
        self.snapshot = self.snapshot.assume(placed)
        self._views.clear()

    def keep(self, hold: Hold) -> None:
        """Keep room for the first gang of a queue, in the place of what was kept for another."""
        before = self.holds.get(hold.queue)
        if before != hold:
            self.drop(hold.queue)
            self.holds[hold.queue] = hold
            self._owners.clear()

    def drop(self, queue: str | None) -> None:
        """Keep no room for the queue."""
        if self.holds.pop(queue, None) is not None:
            # What was judged beside it may fit without it.
            self._verdicts = {
                shape: kept
                for shape, found in self._verdicts.items()
                if (kept := [each for each in found if queue not in each[0]])
            }
            self._forget(queue)
            self._owners.clear()

    def _forget(self, queue: str | None) -> None:
        for known in (self._shortages, self._views):
            for owners in [each for each in known if queue in each]:
                del known[owners]

    def beside(self, owners: _Owners) -> Snapshot:
        """What is free beside the holds of these queues while the gangs that they await are there."""
        if not owners:
            return self.snapshot
        if owners not in self._views:
            if owners not in self._shortages:
                holds = [self.holds[queue] for queue in sorted(owners, key=str)]
                self._shortages[owners] = backfill.shortage(self.snapshot, holds, self._running)
            self._views[owners] = backfill.less(self.snapshot, self._shortages[owners])
        return self._views[owners]

    def without(self, queue: str | None) -> Snapshot:
        """What is free if all gangs that other queues hold room for were in place."""
        holds = [hold for owner, hold in self.holds.items() if owner != queue]
        return self.snapshot.assume([rank for hold in holds for rank in hold.placed.reservations])

    def ever(self, request: GangRequest) -> bool:
        """Whether the gang would fit if the cluster were empty."""
        nodes, key = self.snapshot.nodes, ("ever", request.shape)
        known = nodes.remembered(key)
        if known is None:
            empty = Snapshot(nodes, nodes.allocatable, {}, nodes.devices)
            known = isinstance(place(empty, request), Placed)
            nodes.remember(key, known)
        return bool(known)
