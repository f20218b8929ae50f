"""What each queue uses, borrows, lends and is due: for its status, and for what it used lately."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from drakkar_operator.model import Amounts, QueueView
from drakkar_operator.scheduling.ledger import Charges, Ledger
from drakkar_operator.scheduling.queues import ALL, Charge, Queues, selector_of
from drakkar_operator.scheduling.snapshot import Snapshot
from drakkar_operator.scheduling.turns import dominant, faded, fair_shares
from drakkar_operator.scheduling.workload import Pending, Running

HALF_LIFE_SECONDS = 24 * 3600.0
"""Use counts half as much after so long."""


@dataclass(frozen=True, slots=True)
class Use:
    """Amounts of one kind of node, or of all."""

    used: Amounts = field(default_factory=dict)
    borrowed: Amounts = field(default_factory=dict)
    lent: Amounts = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class QueueUse:
    """A queue with those below it."""

    use: Use
    flavors: Mapping[str, Use]
    admitted: int
    pending: int
    share: float
    """Its part of the cluster: of the resource of which it uses most; 0 to 1."""
    fair_share: float
    """The part that its weight gives it among the queues that have jobs; 0 to 1."""
    problem: str | None
    """Why it can't be used."""


def usage(
    views: Mapping[str, QueueView],
    snapshot: Snapshot,
    admitted: Iterable[Running | Pending],
    waiting: Iterable[str | None],
) -> dict[str, QueueUse]:
    """The use of every queue by the gangs that hold a place; ``waiting`` are the queues of others."""
    queues = Queues(views)
    ledger, charges = Ledger(queues), Charges(queues, snapshot)
    holding, lacking = dict.fromkeys(views, 0), dict.fromkeys(views, 0)

    def count(counts: dict[str, int], queue: str | None) -> None:
        for name in queues.lines.get(queue or "", ()):
            counts[name] += 1

    for gang in admitted:
        ledger.add(gang.queue, charges.placed(gang.request, gang.request.fixed))
        count(holding, gang.queue)
    for queue in waiting:
        count(lacking, queue)
    total = snapshot.nodes.allocatable.sum(axis=0).tolist()
    capacity = dict(zip(snapshot.nodes.resources, total, strict=True))
    busy = {name for name in views if holding[name] or lacking[name]}
    due = _due(queues, busy)
    return {
        name: QueueUse(
            use=_use(ledger, name, {}),
            flavors={f.name: _use(ledger, name, f.labels) for f in view.flavors},
            admitted=holding[name],
            pending=lacking[name],
            share=dominant(_of(ledger.used(name), {}), capacity),
            fair_share=due.get(name, 0.0),
            problem=queues.problems.get(name),
        )
        for name, view in views.items()
    }


def _due(queues: Queues, busy: set[str]) -> dict[str, float]:
    """Per queue with jobs: its part of the cluster by weight, level by level."""
    weights = {name: view.weight for name, view in queues.views.items()}
    due: dict[str, float] = {}
    levels: list[tuple[str | None, float]] = [(None, 1.0)]
    while levels:
        parent, whole = levels.pop()
        siblings = [name for name in queues.children.get(parent, ()) if name in busy]
        shares = fair_shares(siblings, weights, whole)
        due |= shares
        levels += shares.items()
    return due


def _use(ledger: Ledger, queue: str, labels: Mapping[str, str]) -> Use:
    return Use(
        _of(ledger.used(queue), labels),
        _of(ledger.borrowed(queue), labels),
        _of(ledger.lent(queue), labels),
    )


def _of(charge: Charge, labels: Mapping[str, str]) -> dict[str, int]:
    selector = selector_of(labels) if labels else ALL
    return {r: amount for (where, r), amount in charge.items() if where == selector and amount > 0}


class History:
    """What the queues used lately: averages that fade by half-lives."""

    def __init__(self) -> None:
        self._averages: dict[str, tuple[Mapping[str, float], float]] = {}
        self._used: dict[str, Amounts] = {}

    def begin(self, queue: str, average: Mapping[str, float], at: float) -> None:
        """Continue from what is known of a queue, unless more is known already."""
        self._averages.setdefault(queue, (average, at))

    def note(self, queue: str, used: Amounts, now: float) -> Mapping[str, float]:
        """The queue uses this from now on; the average up to now."""
        average = self.average(queue, now)
        self._averages[queue] = average, now
        self._used[queue] = used
        return average

    def average(self, queue: str, now: float) -> Mapping[str, float]:
        """The average of a queue up to now."""
        before, at = self._averages.get(queue, ({}, now))
        return faded(before, self._used.get(queue, {}), now - at, HALF_LIFE_SECONDS)

    def averages(self, now: float) -> dict[str, Mapping[str, float]]:
        """Those of all queues that are known."""
        return {queue: self.average(queue, now) for queue in self._averages}

    def forget(self, queues: Iterable[str]) -> None:
        """These are gone."""
        for queue in queues:
            self._averages.pop(queue, None)
            self._used.pop(queue, None)
