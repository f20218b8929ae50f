"""Whom to move so that a waiting gang fits: defragmentation.

A gang may wait although enough is free, only not in one piece: a few devices in each of many racks.
Then running gangs that have saved their state are moved together, if that is worth it. All of these
hold, or nothing is moved:

- Each moved gang has its new place at once, on nodes that are free now, in a domain no wider than
  the one it leaves; the waiting gang and all moved ones fit at the same time.
- Only ranks that are in the way move. All of a gang's ranks stop for it, though.
- What the moves cost, the work since the last checkpoint and ``RESTART_SECONDS``, times the devices
  of each gang that stops, is less than what the waiting gang would wait, times its devices.
- A gang moves only if it may (``Running.movable``), has a checkpoint, has been where it is for
  ``STAY_SECONDS``, and has no higher priority than the waiting one.

How long a gang would wait is read from the expected ends of those that run; where no known end
would help, ``UNKNOWN_SECONDS`` are assumed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from drakkar_operator.scheduling.choice import Choice, by_cost
from drakkar_operator.scheduling.decision import Eviction, Placed, Unplaced
from drakkar_operator.scheduling.placement import place
from drakkar_operator.scheduling.predicates import eligible, ports_clash
from drakkar_operator.scheduling.release import Rooms
from drakkar_operator.scheduling.request import GangRequest, Key
from drakkar_operator.scheduling.snapshot import Snapshot
from drakkar_operator.scheduling.workload import Pending, Running

RESTART_SECONDS = 60.0
"""From the order to move until the gang trains again."""
STAY_SECONDS = 600.0
"""A gang that came to its place later than this ago stays there."""
UNKNOWN_SECONDS = 3600.0
"""How long a gang waits for others whose end is not known."""
_ROUNDS = 4
"""So often gangs that turn out to have no other place are left out and others are tried."""


@dataclass(frozen=True, slots=True)
class Move:
    """A gang and its new place: ``to`` names the ranks that move and those that stay."""

    gang: Running
    to: Placed


@dataclass(frozen=True, slots=True)
class Defragmentation:
    """Moves that let a waiting gang start."""

    moves: tuple[Move, ...]
    """By key."""
    placed: Placed
    """Where the waiting gang fits once they are made."""
    cost: float
    """Device seconds of training that the moves cost."""
    gain: float
    """Device seconds that the waiting gang would wait else."""

    @property
    def evictions(self) -> tuple[Eviction, ...]:
        """The moves as the operator carries them out."""
        waits = self.placed.request
        beneficiary = "/".join(waits.key)
        where = f"{self.placed.level} {self.placed.domain}".strip()
        return tuple(
            Eviction(
                each.gang.key,
                "Moved",
                waits.key,
                f"moved to {each.to.level} {each.to.domain} so that {beneficiary} "
                f"({waits.replicas} replicas) fits in {where}: costs {self.cost / 60:.0f} device "
                f"minutes in all and saves it {self.gain / 60:.0f}",
                each.to,
            )
            for each in self.moves
        )


def movable(gang: Running, priority: int, now: float) -> bool:
    """Whether a gang may be moved for one of this priority."""
    return (
        gang.movable
        and gang.saved is not None
        and not gang.leaving
        and gang.priority <= priority
        and now - gang.placed >= STAY_SECONDS
    )


def defragment(
    snapshot: Snapshot, waits: Pending, running: Sequence[Running], now: float
) -> Defragmentation | None:
    """The moves that let a waiting gang start and are worth it; None if there are none.

    ``running`` are all gangs that hold nodes in the snapshot.
    """
    request = waits.request
    if isinstance(place(snapshot, request), Placed) or not _free_in_total(snapshot, request):
        return None
    gangs = [each for each in running if movable(each, waits.priority, now)]
    own = {each.key: each for each in gangs}
    # Who goes is a matter of cost here, not of rank.
    equal = by_cost((replace(each, priority=0) for each in gangs), now)
    try:
        gain = expected_wait(snapshot, request, running, now) * request.devices
        for _ in range(_ROUNDS):
            stuck: set[Key] = set()
            rooms = Rooms.of(snapshot, request, equal)
            for some in Choice(rooms, equal, lambda _: True, now).choices():
                way = _way(snapshot, request, [own[each.key] for each in some], now, stuck)
                if way is not None and way.cost < gain:
                    return replace(way, gain=gain)
            if not stuck:
                return None
            equal = [each for each in equal if each.key not in stuck]
    except ValueError:
        # An unknown level, or a resource that no node has: nothing that is moved would help.
        pass
    return None


def expected_wait(
    snapshot: Snapshot, request: GangRequest, running: Iterable[Running], now: float
) -> float:
    """Seconds until enough gangs are expected to end for the request to fit."""
    known = [each for each in running if each.ends is not None and each.key != request.key]
    known.sort(key=lambda each: (each.ends, each.key))
    rooms = Rooms.of(snapshot, request, known)
    at = np.arange(len(known))
    low, high = 0, len(known)
    if not rooms.fits(at < high):
        return UNKNOWN_SECONDS
    while low < high:
        middle = (low + high) // 2
        if rooms.fits(at < middle):
            high = middle
        else:
            low = middle + 1
    ends = known[low - 1].ends if low else None
    return max(0.0, ends - now) if ends is not None else 0.0


def _free_in_total(snapshot: Snapshot, request: GangRequest) -> bool:
    """Whether the nodes that suit have what is missing, if one doesn't ask where."""
    nodes = snapshot.nodes
    for first, role in request.spans:
        mask = eligible(snapshot, role, request.avoid).mask
        missing = sum(first <= at < first + role.replicas for at in request.missing)
        for resource, amount in {**role.requests, "pods": 1}.items():
            column = nodes.columns.get(resource)
            free = 0 if column is None else int(np.maximum(snapshot.free[mask, column], 0).sum())
            if amount > 0 and free < amount * missing:
                return False
    return True


def _way(
    snapshot: Snapshot,
    request: GangRequest,
    gangs: Sequence[Running],
    now: float,
    stuck: set[Key],
) -> Defragmentation | None:
    """Places for the waiting gang and for these, which are in its way; None if one finds none."""
    freed = snapshot.release(rank for each in gangs for rank in each.reservations)
    placed = place(freed, request)
    if isinstance(placed, Unplaced):
        return None
    # What the moved gangs leave is not free yet: they must go where nobody is.
    crowded = settled = snapshot.assume(placed)
    moves: list[Move] = []
    for each in sorted(gangs, key=lambda gang: (-gang.devices, gang.key)):
        going = _in_the_way(settled, placed, each)
        to = _other_place(crowded, each, going) if going else None
        if to is not None:
            moves.append(Move(each, to))
            left = [rank for rank in each.reservations if rank.replica in to.nodes]
            crowded, settled = crowded.assume(to), settled.assume(to).release(left)
        elif going:
            stuck.add(each.key)
            return None
    moves.sort(key=lambda move: move.gang.key)
    cost = sum((m.gang.lost_seconds(now) + RESTART_SECONDS) * m.gang.devices for m in moves)
    after = settled.release(placed)
    if not moves or isinstance(place(after, request), Unplaced):
        return None
    return Defragmentation(tuple(moves), placed, cost, 0.0)


def _in_the_way(settled: Snapshot, placed: Placed, gang: Running) -> tuple[int, ...]:
    """The gang's ranks on nodes that the waiting one is to use and that can't hold both."""
    index = settled.nodes.tree.index
    clash = any(
        ports_clash(one, other) for one in gang.request.roles for other in placed.request.roles
    )
    wanted = {
        node for node in placed.nodes.values() if (settled.free[index[node]] < 0).any() or clash
    }
    return tuple(at for at, node in gang.request.fixed.items() if node in wanted)


def _other_place(crowded: Snapshot, gang: Running, going: tuple[int, ...]) -> Placed | None:
    """Another place for these ranks, else for all, in a domain no wider than the old one."""
    tree, request = crowded.nodes.tree, gang.request
    held = [tree.index[node] for node in request.fixed.values() if node in tree.index]
    old = tree.common_depth(np.array(held, dtype=np.int64))
    for some in (going, tuple(request.fixed)):
        staying = {at: node for at, node in request.fixed.items() if at not in some}
        to = place(crowded, replace(request, missing=tuple(sorted(some)), fixed=staying))
        if isinstance(to, Placed) and tree.depth(to.level) >= old:
            return to
    return None
