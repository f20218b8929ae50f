"""Room kept for gangs that wait, so that smaller ones can pass them without delaying them.

A gang that finds no room gets a hold: nodes that will do once the gangs there that it awaits are
gone, and the time when they are expected to be (its shadow time). Until then others may use those
nodes only beside it, or if they are known to end before that time (EASY backfilling: Lifka 1995;
Mu'alem and Feitelson, IEEE TPDS 2001). If the time is not known, a hold begins only when the gang
has waited for its queue's ``backfill_seconds``. A hold stays where it is until the gang is placed,
so what is placed after it began never delays it: the gang starts at the latest when the gangs have
ended that ran at that moment.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from drakkar_operator.scheduling.decision import Hold, Placed, Reservation
from drakkar_operator.scheduling.placement import place
from drakkar_operator.scheduling.predicates import eligible
from drakkar_operator.scheduling.release import Rooms
from drakkar_operator.scheduling.request import GangRequest, Key
from drakkar_operator.scheduling.snapshot import Snapshot
from drakkar_operator.scheduling.topology import IntArray
from drakkar_operator.scheduling.workload import Pending, Running


def shortage(
    snapshot: Snapshot, holds: Collection[Hold], running: Mapping[Key, Running]
) -> IntArray:
    """What others must leave free for the holds, nodes x resources.

    It is what the holds need less what the gangs that they await will give up.
    """
    need = taken(snapshot, [rank for hold in holds for rank in hold.placed.reservations])
    leaving = {key for hold in holds for key in hold.awaits if key in running}
    gain = taken(snapshot, [r for key in sorted(leaving) for r in running[key].reservations])
    short: IntArray = np.maximum(need - gain, 0)
    return short


def less(snapshot: Snapshot, amounts: IntArray) -> Snapshot:
    """The snapshot with less free."""
    free = np.asfortranarray(snapshot.free - amounts)
    free.setflags(write=False)
    return replace(snapshot, free=free)


def taken(snapshot: Snapshot, rooms: Iterable[Reservation]) -> IntArray:
    """What the rooms add up to, nodes x resources."""
    return snapshot.free - snapshot.assume(rooms).free


def renewed(
    hold: Hold, gang: Pending, snapshot: Snapshot, running: Mapping[Key, Running], now: float
) -> Hold | None:
    """The hold as things stand now; None if the gang wants something else or it can't become true.

    ``snapshot`` is what is free beside what other gangs hold.
    """
    request = hold.placed.request
    index = snapshot.nodes.tree.index
    nodes = sorted({*hold.placed.nodes.values()})
    if any(node not in index for node in nodes) or not _same(gang.request, request):
        return None
    there = set(nodes)
    around = [e for e in running.values() if not there.isdisjoint(e.request.fixed.values())]
    # Some may have been let in because they end in time; where one of them is late, that is no
    # reason to let others in as well.
    expected = [each for each in around if each.key in hold.awaits or hold.open_to(each.ends)]
    at = [index[node] for node in nodes]
    asked = snapshot.nodes.row(request.total) > 0
    for awaits in (expected, around):
        freed = snapshot.release(rank for each in awaits for rank in each.reservations)
        if not ((freed.assume(hold.placed).free[at] < 0) & asked).any():
            break
    else:
        return None
    for first, role in request.spans:
        mine = [index[n] for i, n in hold.placed.nodes.items() if 0 <= i - first < role.replicas]
        if not eligible(freed, role, request.avoid).mask[mine].all():
            return None
    return replace(hold, awaits=_keys(awaits), until=_until(awaits, now))


def _same(wanted: GangRequest, held: GangRequest) -> bool:
    """Whether a hold's request is what the gang wants, in one of its sizes and flavors."""
    if wanted.sizes and held.replicas in wanted.sizes:
        wanted = wanted.resized(held.replicas)
    return (
        len(wanted.roles) == len(held.roles)
        and all(
            mine.node_selector.items() <= theirs.node_selector.items()
            for mine, theirs in zip(wanted.roles, held.roles, strict=True)
        )
        and _anywhere(wanted).shape == _anywhere(held).shape
    )


def _anywhere(request: GangRequest) -> GangRequest:
    return replace(request, roles=tuple(replace(r, node_selector={}) for r in request.roles))


def search(
    snapshot: Snapshot,
    gang: Pending,
    request: GangRequest,
    running: Sequence[Running],
    now: float,
    *,
    patient: bool = True,
) -> Hold | None:
    """The room that is free first for a gang, by the expected ends of those that run.

    ``snapshot`` is what is free beside what other gangs hold. While ``patient``, only gangs are
    counted on whose end is known. Those of which it is not known are taken to end in the order in
    which they began.
    """
    gangs = [each for each in running if _end(each, now) is not None or not patient]
    gangs.sort(key=lambda each: (*_when(each, now), each.placed, each.key))
    try:
        rooms = Rooms.of(snapshot, request, gangs)
    except ValueError:
        return None
    at = np.arange(len(gangs))
    if not rooms.fits(at >= 0):
        return None
    low, high = 0, len(gangs)
    while low < high:
        middle = (low + high) // 2
        if rooms.fits(at < middle):
            high = middle
        else:
            low = middle + 1
    gone = gangs[:low]
    answer = place(snapshot.release(r for each in gone for r in each.reservations), request)
    if not isinstance(answer, Placed):
        return None
    awaits = needed(snapshot, answer, gone)
    return Hold(gang.key, gang.queue, answer, _keys(awaits), _until(awaits, now))


def needed(snapshot: Snapshot, placed: Placed, gone: Iterable[Running]) -> list[Running]:
    """Those of the gangs that hold something on nodes where the placement finds too little."""
    after = snapshot.assume(placed).free
    names = snapshot.nodes.tree.names
    short = {names[at] for at in np.flatnonzero((after < 0).any(axis=1))}
    short &= {*placed.nodes.values()}
    return [each for each in gone if not short.isdisjoint(each.request.fixed.values())]


def _end(gang: Running, now: float) -> float | None:
    """When it is expected to be gone."""
    return now if gang.leaving else gang.ends


def _when(gang: Running, now: float) -> tuple[bool, float]:
    """Sorts by expected end, unknown ones last."""
    end = _end(gang, now)
    return end is None, end or 0.0


def _until(awaits: Iterable[Running], now: float) -> float | None:
    ends = [_end(each, now) for each in awaits]
    known = [end for end in ends if end is not None]
    return max(known, default=now) if len(known) == len(ends) else None


def _keys(gangs: Iterable[Running]) -> tuple[Key, ...]:
    return tuple(sorted(each.key for each in gangs))
