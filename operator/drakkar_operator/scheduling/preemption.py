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
are looked at closely. Up to ``_MOST_EXACT`` gangs per domain the choice is the best there is;
beyond that, two greedy choices are made and the better one is taken.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from drakkar_operator.scheduling.decision import Placed, Unplaced
from drakkar_operator.scheduling.placement import place
from drakkar_operator.scheduling.release import Rooms
from drakkar_operator.scheduling.request import GangRequest, Key
from drakkar_operator.scheduling.snapshot import Snapshot
from drakkar_operator.scheduling.topology import BoolArray, IntArray
from drakkar_operator.scheduling.workload import Running

FitsQuota = Callable[[frozenset[Key]], bool]
"""Whether the request is within its quota once these gangs are gone; more of them never harm."""
_Weight = tuple[int, int, int, int, int]
Cost = tuple[_Weight, ...]
"""Per priority, falling: (priority, device minutes lost, restarts, gangs, devices)."""
_Price = tuple[Cost, list[float], list[Key]]
_Test = Callable[[BoolArray], bool]

_MOST_DOMAINS = 16
"""Domains that are looked at closely."""
_MOST_EXACT = 8
"""Gangs of which all subsets may be tried."""


@dataclass(frozen=True, slots=True)
class Preemption:
    """Gangs whose eviction makes the request fit."""

    victims: tuple[Running, ...]
    """By key. None: it fits as it is."""
    placed: Placed
    """Where it fits once they are gone."""


def cost(victims: Iterable[Running], now: float) -> Cost:
    """What their eviction costs; of two choices the one with the lesser value is better."""
    return _total(_weigh(each, now) for each in victims)


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
    gangs = [each for each in candidates if not each.leaving and each.key != request.key]
    gangs.sort(key=lambda each: (_weigh(each, now), -each.placed, each.key))
    try:
        rooms = Rooms.of(snapshot, request, gangs)
    except ValueError:
        # Nothing that anybody gives up would help.
        return _hopeless(answer, 0)
    search = _Choice(rooms, gangs, fits_quota, now)
    for victims in search.choices():
        freed = snapshot.release(rank for each in victims for rank in each.reservations)
        placed = place(freed, request)
        if isinstance(placed, Placed):
            return Preemption(tuple(sorted(victims, key=lambda each: each.key)), placed)
    return _hopeless(answer, len(gangs))


def _weigh(gang: Running, now: float) -> _Weight:
    lost = int(gang.lost_seconds(now) // 60) * gang.devices
    return gang.priority, lost, gang.restarts, 1, gang.devices


def _total(weights: Iterable[_Weight]) -> Cost:
    tiers: dict[int, _Weight] = {}
    for priority, *weight in weights:
        _, *before = tiers.get(priority, (priority, 0, 0, 0, 0))
        lost, restarts, gangs, devices = map(sum, zip(before, weight, strict=True))
        tiers[priority] = priority, lost, restarts, gangs, devices
    return tuple(sorted(tiers.values(), reverse=True))


def _hopeless(answer: Placed | Unplaced, gangs: int) -> Unplaced:
    if isinstance(answer, Placed):
        return Unplaced("there is room, but no gang may be evicted that would free enough quota")
    if not gangs:
        return answer
    many = "the one gang" if gangs == 1 else f"all {gangs} gangs"
    return replace(answer, reason=f"{answer.reason}; evicting {many} that may go would not do")


@dataclass(slots=True)
class _Choice:
    """The gangs that may go, the cheapest first, and what is asked of them."""

    rooms: Rooms
    gangs: Sequence[Running]
    fits_quota: FitsQuota
    now: float
    _weights: list[_Weight] = field(init=False)
    _quota_matters: bool = field(init=False)

    def __post_init__(self) -> None:
        self._weights = [_weigh(each, self.now) for each in self.gangs]
        self._quota_matters = not self.fits_quota(frozenset())

    def choices(self) -> Iterator[list[Running]]:
        """Sets of gangs that suffice, the best first."""
        reach = self._reach()
        count = len(self.gangs)
        domains = np.flatnonzero(reach <= count)
        if not len(domains):
            return
        domains = domains[np.argsort(reach[domains], kind="stable")]
        highest = np.array([0, *(each.priority for each in self.gangs)])[reach[domains]]
        domains = domains[highest == highest[0]][:_MOST_DOMAINS]
        tier = sum(each.priority <= highest[0] for each in self.gangs)
        found = [self._in_domain(int(each), int(reach[each]), tier) for each in domains]
        known: set[bytes] = set()
        for chosen in sorted(found, key=self._price):
            best = self._spare(chosen, np.flatnonzero(chosen)[::-1], self._fits(self.rooms))
            if best.tobytes() not in known:
                known.add(best.tobytes())
                yield self._names(best)

    def _reach(self) -> IntArray:
        """Per domain: how many of the cheapest gangs suffice; one more than there are: all don't."""
        rooms, count = self.rooms, len(self.gangs)
        tree, top = rooms.search.tree, rooms.search.top
        home = tree.ids[top][rooms.rows.node]
        sufficient = rooms.enough(np.ones(len(home), dtype=np.bool_))
        low = np.where(sufficient, 0, count + 1)
        high = np.where(sufficient, count, count + 1)
        while (open_ := low < high).any():
            middle = (low + high) // 2
            enough = rooms.enough(rooms.rows.gang < middle[home])
            high = np.where(open_ & enough, middle, high)
            low = np.where(open_ & ~enough, middle + 1, low)
        if self._quota_matters:
            high = np.maximum(high, self._first(0, self._within_quota))
        if not rooms.exact:
            for each in np.flatnonzero(high <= count).tolist():
                fits = rooms.within(each).fits
                high[each] = self._first(int(high[each]), fits)
        return high

    def _first(self, low: int, suffices: _Test) -> int:
        """How many of the cheapest gangs suffice, at least ``low``."""
        at = np.arange(len(self.gangs))
        high = len(at) + 1
        while low < high:
            middle = (low + high) // 2
            if suffices(at < middle):
                high = middle
            else:
                low = middle + 1
        return high

    def _in_domain(self, domain: int, reach: int, tier: int) -> BoolArray:
        """The best choice that makes room in one domain, of the ``tier`` cheapest gangs."""
        rooms = self.rooms.within(domain)
        fits = self._fits(rooms)
        at = np.arange(len(self.gangs))
        matters = np.full(len(at), self._quota_matters)
        matters[rooms.rows.gang] = True
        cheapest = matters & (at < reach)
        best = self._spare(cheapest, np.flatnonzero(cheapest)[::-1], fits)
        pool = matters & (at < tier)
        if int(pool.sum()) <= _MOST_EXACT:
            return self._least(pool, best, fits)
        share = rooms.share(len(at))
        weights = np.array(self._weights)
        worth = (weights[:, 1] + 1) / (share + 1e-9)
        other = self._spare(pool, np.lexsort((at, worth, weights[:, 0]))[::-1], fits)
        return min(best, other, key=self._price)

    def _least(self, pool: BoolArray, best: BoolArray, fits: _Test) -> BoolArray:
        """The best of all subsets."""
        bound = self._price(best)
        members = np.flatnonzero(pool).tolist()
        better: list[tuple[_Price, frozenset[int], BoolArray]] = []
        for size in range(len(members) + 1):
            for some in itertools.combinations(members, size):
                chosen = np.zeros(len(pool), dtype=np.bool_)
                chosen[list(some)] = True
                price = self._price(chosen)
                if price < bound:
                    better.append((price, frozenset(some), chosen))
        failed: list[frozenset[int]] = []
        for _, gone, chosen in sorted(better, key=lambda each: each[0]):
            if any(gone <= other for other in failed):
                continue
            if fits(chosen):
                return chosen
            failed.append(gone)
        return best

    def _spare(self, chosen: BoolArray, order: IntArray, fits: _Test) -> BoolArray:
        """Of a choice that suffices, spare whom it can do without, in this order."""
        chosen = chosen.copy()
        order = order[chosen[order]]
        while len(order):
            # Most often the next one can't be spared, or many can: steps that double find out.
            low, high, step = 0, len(order), 1
            while low < high:
                middle = min(low + step, high)
                chosen[order[low:middle]] = False
                if fits(chosen):
                    low, step = middle, step * 2
                else:
                    chosen[order[low:middle]] = True
                    high, step = middle - 1, max((middle - 1 - low + 1) // 2, 1)
            order = order[low + 1 :]
        return chosen

    def _fits(self, rooms: Rooms) -> _Test:
        return lambda chosen: rooms.fits(chosen) and self._within_quota(chosen)

    def _within_quota(self, chosen: BoolArray) -> bool:
        if not self._quota_matters:
            return True
        return self.fits_quota(frozenset(each.key for each in self._names(chosen)))

    def _names(self, chosen: BoolArray) -> list[Running]:
        return [self.gangs[at] for at in np.flatnonzero(chosen).tolist()]

    def _price(self, chosen: BoolArray) -> _Price:
        """The cost, then what breaks ties."""
        places = np.flatnonzero(chosen).tolist()
        victims = [self.gangs[at] for at in places]
        return (
            _total(self._weights[at] for at in places),
            sorted(-each.placed for each in victims),
            [each.key for each in victims],
        )
