"""Who may be displaced for a waiting gang, by the rules of the queues.

- Gangs of the same queue with a lower priority, if the queue says ``withinQueue: LowerPriority``.
- Gangs of queues that use more than their quota, if the gang's own queue, or one above it, stays
  within its quota with it: it takes back what it lent. ``reclaim`` of its queue limits them to lower
  priorities or rules them out.

Neither touches a gang that leaves already, nor one that has not run for its queue's
``minRuntimeSeconds``.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from drakkar_operator.model import PreemptionPolicy
from drakkar_operator.scheduling.ledger import Ledger
from drakkar_operator.scheduling.queues import Charge, Item
from drakkar_operator.scheduling.request import Key
from drakkar_operator.scheduling.workload import Pending, Running

_DEFAULT = PreemptionPolicy()
"""That of gangs without a queue."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The running gangs by queue, and what they use."""

    ledger: Ledger
    by_queue: Mapping[str | None, Sequence[Running]]
    charge: Callable[[Running], Charge]
    now: float
    chosen: dict[Key, Running] = field(default_factory=dict)
    """Gangs that were chosen to leave in this cycle; the ledger counts them still."""

    def of(self, gang: Pending, charge: Charge) -> list[Running]:
        """The gangs that may be displaced for this one, which would use ``charge``."""
        if not gang.preempts:
            return []
        policy = self._policy(gang.queue)
        found: list[Running] = []
        if policy.within_queue == "LowerPriority":
            mine = self.by_queue.get(gang.queue, ())
            found += [each for each in mine if each.priority < gang.priority and self._may(each)]
        if policy.reclaim == "Never" or gang.queue is None:
            return found
        for borrower in self._borrowers(gang.queue, charge):
            found += [
                each
                for each in self._below(borrower)
                if (policy.reclaim == "Any" or each.priority < gang.priority) and self._may(each)
            ]
        return found

    def fair(self, gang: Pending, charge: Charge, victims: Sequence[Running]) -> bool:
        """Whether each queue that gives up gangs still borrows before the last of them goes."""
        if gang.queue is None:
            return True
        for borrower in self._borrowers(gang.queue, charge):
            mine = [each for each in victims if borrower in self._line(each.queue)]
            if not self._borrows_to_the_last(borrower, mine, charge):
                return False
        return True

    def newest(self, gang: Pending, charge: Charge, candidates: Iterable[Running]) -> list[Running]:
        """Of the candidates those whose eviction is ``fair`` whichever of them go.

        Of each queue that borrows, the lowest priorities and then the newest, as far as it borrows.
        """
        if gang.queue is None:
            return list(candidates)
        borrowers = list(self._borrowers(gang.queue, charge))
        kept: list[Running] = []
        taken: dict[str, list[Running]] = {name: [] for name in borrowers}
        for each in sorted(candidates, key=lambda one: (one.priority, -one.placed, one.key)):
            line = self._line(each.queue)
            owners = [name for name in borrowers if name in line]
            if all(
                self._borrows_to_the_last(name, [*taken[name], each], charge) for name in owners
            ):
                kept.append(each)
                for name in owners:
                    taken[name].append(each)
        return kept

    def fits_quota(
        self, gang: Pending, charge: Charge, candidates: Iterable[Running]
    ) -> Callable[[frozenset[Key]], bool]:
        """Whether the gang is within its queue's limits without some of the candidates.

        Those that were chosen for others are taken to be gone.
        """
        by_key = {each.key: each for each in candidates}

        def fits(gone: frozenset[Key]) -> bool:
            without = [*self.chosen.values(), *(by_key[key] for key in sorted(gone))]
            for each in without:
                self.ledger.add(each.queue, _negative(self.charge(each)), -1)
            try:
                return self.ledger.problem(gang.queue, charge) is None
            finally:
                for each in without:
                    self.ledger.add(each.queue, self.charge(each), 1)

        return fits

    def _borrowers(self, queue: str, charge: Charge) -> Iterable[str]:
        """Queues over their quota that are next to one of the gang's line that stays within its."""
        ledger = self.ledger
        for name in ledger.queues.lines[queue]:
            parent = ledger.queues.views[name].parent
            if parent is None or not self._guaranteed(name, charge):
                continue
            for other in ledger.queues.children.get(parent, ()):
                if other != name and ledger.borrowed(other).keys() & charge.keys():
                    yield other

    def _guaranteed(self, name: str, charge: Charge) -> bool:
        """Whether the queue has a quota for something of this, and stays within all its quotas."""
        limits = self.ledger.queues.limits[name]
        return bool(limits.keys() & charge.keys()) and not self.ledger.borrows(name, charge)

    def _borrows_to_the_last(
        self, borrower: str, victims: Sequence[Running], charge: Charge
    ) -> bool:
        """Whether the queue is above its quota of something until the largest of them goes."""
        above = self.ledger.borrowed(borrower)
        for item in above.keys() & charge.keys():
            amounts = [self.charge(each).get(item, 0) for each in victims]
            if sum(amounts) - max(amounts, default=0) < above[item]:
                return True
        return not victims

    def _below(self, name: str) -> Iterable[Running]:
        yield from self.by_queue.get(name, ())
        for child in self.ledger.queues.children.get(name, ()):
            yield from self._below(child)

    def _line(self, queue: str | None) -> tuple[str, ...]:
        return self.ledger.queues.lines.get(queue or "", ())

    def _may(self, gang: Running) -> bool:
        ran = self.now - gang.placed
        return (
            not gang.leaving
            and gang.key not in self.chosen
            and ran >= self._policy(gang.queue).min_runtime
        )

    def _policy(self, queue: str | None) -> PreemptionPolicy:
        view = self.ledger.queues.views.get(queue or "")
        return view.preemption if view is not None else _DEFAULT


def _negative(charge: Charge) -> dict[Item, int]:
    return {item: -amount for item, amount in charge.items()}
