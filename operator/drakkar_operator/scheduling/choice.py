"""Which gangs to release so that a request has room: the cheapest set that suffices.

The search of ``preemption`` and ``defrag``; what is cheapest is said in ``preemption``.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from drakkar_operator.scheduling.release import Rooms
from drakkar_operator.scheduling.request import Key
from drakkar_operator.scheduling.topology import BoolArray, IntArray
from drakkar_operator.scheduling.workload import Running

FitsQuota = Callable[[frozenset[Key]], bool]
"""Whether the request is within its quota once these gangs are gone; more of them never harm."""
_Weight = tuple[int, int, int, int, int]
Cost = tuple[_Weight, ...]
"""Per priority, falling: (priority, device minutes lost, restarts, gangs, devices)."""
_Price = tuple[Cost, list[float], list[Key]]
_Test = Callable[[BoolArray], bool]

MOST_DOMAINS = 16
"""Domains that are looked at closely."""
MOST_ASKED = 4
"""Domains that are looked at where sums can't tell for certain whether a request fits."""
MOST_EXACT = 8
"""Gangs of which all subsets may be tried."""


def cost(victims: Iterable[Running], now: float) -> Cost:
    """What their eviction costs; of two choices the one with the lesser value is better."""
    return _total(weigh(each, now) for each in victims)


def weigh(gang: Running, now: float) -> _Weight:
    lost = int(gang.lost_seconds(now) // 60) * gang.devices
    return gang.priority, lost, gang.restarts, 1, gang.devices


def _total(weights: Iterable[_Weight]) -> Cost:
    tiers: dict[int, _Weight] = {}
    for priority, *weight in weights:
        _, *before = tiers.get(priority, (priority, 0, 0, 0, 0))
        lost, restarts, gangs, devices = map(sum, zip(before, weight, strict=True))
        tiers[priority] = priority, lost, restarts, gangs, devices
    return tuple(sorted(tiers.values(), reverse=True))


def by_cost(gangs: Iterable[Running], now: float) -> list[Running]:
    """The cheapest first, of equal ones the newest."""
    return sorted(gangs, key=lambda each: (weigh(each, now), -each.placed, each.key))


@dataclass(slots=True)
class Choice:
    """The gangs that may go, the cheapest first (``by_cost``), and what is asked of them."""

    rooms: Rooms
    gangs: Sequence[Running]
    fits_quota: FitsQuota
    now: float
    _weights: list[_Weight] = field(init=False)
    _quota_matters: bool = field(init=False)

    def __post_init__(self) -> None:
        self._weights = [weigh(each, self.now) for each in self.gangs]
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
        domains = domains[highest == highest[0]][:MOST_DOMAINS]
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
            # What is enough may not be: the most promising domains are asked one by one.
            order = np.argsort(high, kind="stable")
            high[order[MOST_ASKED:]] = count + 1
            for each in order[:MOST_ASKED].tolist():
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
        if int(pool.sum()) <= MOST_EXACT:
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
