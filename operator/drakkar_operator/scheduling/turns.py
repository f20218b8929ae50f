"""Whose turn it is: dominant-resource fair share, level by level down the tree of queues.

At each level the queue goes next whose first gang needs not borrow and, among those, whose dominant
share over its weight is smallest (Ghodsi et al., NSDI 2011). The dominant share counts the resource
of which a queue uses the largest part of the cluster, now and, fading by half-lives, before. The
jobs of a queue that has queues below it compete with those as one more queue of weight 1, and so do
the jobs without a queue at the top. Within a queue: repairs, whose other ranks hold devices and
wait, then priority, then age, then name.
"""

import heapq
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from drakkar_operator.model import Amounts
from drakkar_operator.scheduling.ledger import Ledger
from drakkar_operator.scheduling.queues import Charge
from drakkar_operator.scheduling.workload import Pending

Recent = Mapping[str, Mapping[str, float]]
"""Per queue and resource: the fading average of what it used."""
_Rank = tuple[bool, float, tuple[int, float, tuple[str, str]]]


def order(pending: Iterable[Pending]) -> list[Pending]:
    """The order of gangs within a queue."""
    return sorted(pending, key=lambda p: (not p.request.repair, -p.priority, p.created, p.key))


def faded(
    average: Mapping[str, float], used: Amounts, seconds: float, half_life: float
) -> dict[str, float]:
    """The average after so many seconds of a constant use."""
    kept = 0.5 ** (max(0.0, seconds) / half_life)
    return {
        resource: value
        for resource in {*average, *used}
        if (value := average.get(resource, 0.0) * kept + used.get(resource, 0) * (1 - kept)) > 1e-6
    }


def dominant(amounts: Mapping[str, float], capacity: Amounts) -> float:
    """The largest part of a resource of the cluster, from 0 to 1."""
    return max(
        (amount / capacity[r] for r, amount in amounts.items() if capacity.get(r, 0) > 0),
        default=0.0,
    )


def fair_shares(
    siblings: Iterable[str], weights: Mapping[str, int], whole: float
) -> dict[str, float]:
    """What each gets of a whole by weight."""
    names = list(siblings)
    total = sum(weights[name] for name in names)
    return {name: whole * weights[name] / total for name in names} if total else {}


@dataclass(slots=True)
class _Line:
    """A queue with all below it, or only the jobs of its own of a queue that has others below it."""

    queue: str | None
    weight: int
    whole: bool
    """With all below it."""
    gangs: Sequence[Pending] = ()
    """In order; none if it has children."""
    at: int = 0
    children: "list[tuple[_Rank, _Line]]" = field(default_factory=list)
    """A heap."""

    @property
    def first(self) -> Pending | None:
        """The gang whose turn it is."""
        if self.children:
            return self.children[0][1].first
        return self.gangs[self.at] if self.at < len(self.gangs) else None


class Turns:
    """All pending gangs, each when its turn comes: repairs, the others, those without a usable queue.

    Before it asks for the next, the caller notes in the ledger what the last one used.
    """

    def __init__(
        self,
        pending: Iterable[Pending],
        ledger: Ledger,
        charge: Callable[[Pending], Charge],
        capacity: Amounts,
        recent: Recent,
    ) -> None:
        self._ledger = ledger
        self._charge = charge
        self._capacity = capacity
        self._recent = recent
        self._shares: dict[tuple[str | None, bool], tuple[int, float]] = {}
        """Per queue, with those below it or not: the ledger's version, and the dominant share then."""
        self._repairs: list[Pending] = []
        self._strays: list[Pending] = []
        self._own: dict[str | None, list[Pending]] = {}
        queues = ledger.queues
        for each in order(pending):
            if each.request.repair:
                self._repairs.append(each)
            elif each.queue is None or queues.usable(each.queue):
                self._own.setdefault(each.queue, []).append(each)
            else:
                self._strays.append(each)

    def __iter__(self) -> Iterator[Pending]:
        yield from self._repairs
        root = self._below(None)
        while root is not None and root.first is not None:
            path = [root]
            while path[-1].children:
                path.append(path[-1].children[0][1])
            line = path[-1]
            line.at += 1
            yield line.gangs[line.at - 1]
            for parent, child in reversed(list(itertools.pairwise(path))):
                if child.first is None:
                    heapq.heappop(parent.children)
                else:
                    heapq.heapreplace(parent.children, (self._rank(child, child.first), child))
        yield from self._strays

    def _below(self, queue: str | None) -> _Line | None:
        """The line of a queue, or of all; None if nobody waits there."""
        views, names = self._ledger.queues.views, self._ledger.queues.children[queue]
        lines = [line for name in names if (line := self._below(name)) is not None]
        own = self._own.get(queue, [])
        weight = views[queue].weight if queue is not None else 1
        if not lines and queue is not None:
            return _Line(queue, weight, True, own) if own else None
        if own:
            lines.append(_Line(queue, 1, False, own))
        heap = [(self._rank(line, line.first), line) for line in lines if line.first]
        heapq.heapify(heap)
        return _Line(queue, weight, True, children=heap) if heap else None

    def _rank(self, line: _Line, first: Pending) -> _Rank:
        queue = line.queue
        return (
            queue is not None and line.whole and self._ledger.borrows(queue, self._charge(first)),
            self._share(queue, line.whole) / line.weight,
            (-first.priority, first.created, first.key),
        )

    def _share(self, queue: str | None, whole: bool) -> float:
        """The dominant share of a queue, with all below it or its own jobs alone.

        It changes when the ledger does: where nobody finds room, it is the same for all.
        """
        ledger = self._ledger
        known = self._shares.get((queue, whole))
        if known is not None and known[0] == ledger.version:
            return known[1]
        used = ledger.used(queue) if whole and queue is not None else ledger.own(queue)
        amounts: dict[str, float] = {r: amount for (where, r), amount in used.items() if not where}
        if whole and queue is not None:
            for resource, average in self._recent.get(queue, {}).items():
                amounts[resource] = amounts.get(resource, 0) + average
        share = dominant(amounts, self._capacity)
        self._shares[queue, whole] = ledger.version, share
        return share
