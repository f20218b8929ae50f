"""Whom to evict so that a waiting gang fits for certain, at the least cost.

The caller says who may be evicted and asks about the quota; this module says which of them. Gangs
go as a whole, and the choice is proved by placing the request on a snapshot without them. Of all
choices it prefers, counted from the highest priority down:

1. Nobody of that priority goes.
2. The least work is lost: minutes since the last checkpoint, times devices.
3. The fewest earlier restarts are behind those who go.
4. The fewest gangs, then the fewest devices.

Then the next lower priority is looked at in the same way. Last, gangs that were placed lately go
before older ones. Nobody goes who need not: without any one of them the request would not fit.

A request with a ``required`` level gets its room inside one domain: how few of the cheapest gangs
would have to go is found for all domains at once by bisection over sums, and only the best domains
are looked at closely. Up to ``choice.MOST_EXACT`` gangs per domain the choice is the best there is;
beyond that, two greedy choices are made and the better one is taken.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from drakkar_operator.scheduling.choice import Choice, Cost, FitsQuota, by_cost, cost
from drakkar_operator.scheduling.decision import Placed, Unplaced
from drakkar_operator.scheduling.placement import place
from drakkar_operator.scheduling.release import Rooms
from drakkar_operator.scheduling.request import GangRequest, Key
from drakkar_operator.scheduling.snapshot import Snapshot
from drakkar_operator.scheduling.workload import Running

__all__ = ["Cost", "FitsQuota", "Preemption", "choose", "cost"]


@dataclass(frozen=True, slots=True)
class Preemption:
    """Gangs whose eviction makes the request fit."""

    victims: tuple[Running, ...]
    """By key. None: it fits as it is."""
    placed: Placed
    """Where it fits once they are gone."""


def _any_quota(_: frozenset[Key]) -> bool:
    return True


def choose(
    snapshot: Snapshot,
    request: GangRequest,
    candidates: Sequence[Running],
    fits_quota: FitsQuota = _any_quota,
    now: float = 0.0,
) -> Preemption | Unplaced:
    """The gangs to evict for a request, or why that would not help.

    ``snapshot`` is what is free once the gangs that leave already are gone; they are passed over
    among the ``candidates``, as the request itself is. ``now`` is in epoch seconds. The answer
    depends on nothing but the arguments, not on the candidates' order.
    """
    answer = place(snapshot, request)
    if isinstance(answer, Placed) and fits_quota(frozenset()):
        return Preemption((), answer)
    gangs = by_cost(
        (each for each in candidates if not each.leaving and each.key != request.key), now
    )
    try:
        rooms = Rooms.of(snapshot, request, gangs)
    except ValueError:
        # Nothing that anybody gives up would help.
        return _hopeless(answer, 0)
    for victims in Choice(rooms, gangs, fits_quota, now).choices():
        freed = snapshot.release(rank for each in victims for rank in each.reservations)
        placed = place(freed, request)
        if isinstance(placed, Placed):
            return Preemption(tuple(sorted(victims, key=lambda each: each.key)), placed)
    return _hopeless(answer, len(gangs))


def _hopeless(answer: Placed | Unplaced, gangs: int) -> Unplaced:
    if isinstance(answer, Placed):
        return Unplaced("there is room, but no gang may be evicted that would free enough quota")
    if not gangs:
        return answer
    many = "the one gang" if gangs == 1 else f"all {gangs} gangs"
    return replace(answer, reason=f"{answer.reason}; evicting {many} that may go would not do")
