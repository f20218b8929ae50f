"""Who is placed first, and what a queue's quota allows: one scheduling cycle over all gangs.

Repairs go before fresh gangs, since their other ranks already hold devices and wait. Then higher
priority, then older, then by key. A gang that can't be placed does not hold up the ones behind it.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from drakkar.quantity import show
from drakkar_operator.model import Amounts, QueueView
from drakkar_operator.scheduling.decision import Eviction, Placed, Unplaced
from drakkar_operator.scheduling.placement import place
from drakkar_operator.scheduling.request import Key
from drakkar_operator.scheduling.snapshot import Snapshot
from drakkar_operator.scheduling.workload import Pending, Running

AHEAD = 8
"""As many gangs before it in the line a decision names."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of a pending gang in this cycle: ``placed``, or ``reason`` says why not."""

    key: Key
    placed: Placed | None = None
    reason: str | None = None
    unplaced: Unplaced | None = None
    """The verdict with its numbers, if it was room (not quota) that was lacking."""
    position: int = 0
    """Place in the line of its queue, from 1, in the order in which its gangs are judged."""
    ahead: tuple[Key, ...] = ()
    """The gangs before it in that line that wait still, nearest to the head first; at most 8."""
    evictions: tuple[Eviction, ...] = ()
    """Running gangs that must leave so that it fits; it is placed when they are gone."""


def order(pending: Iterable[Pending]) -> list[Pending]:
    """The order in which gangs are placed."""
    return sorted(pending, key=lambda p: (not p.request.repair, -p.priority, p.created, p.key))


def quota_problem(
    queue: QueueView, used: Amounts, request_total: Amounts, jobs: int | None = None
) -> str | None:
    """Why the queue can't take this much more; None if it can. ``jobs`` is how many use it."""
    for resource in sorted(queue.quota, key=lambda r: ("/" not in r, r)):
        limit, need = queue.quota[resource], request_total.get(resource, 0)
        in_use = used.get(resource, 0)
        if need <= 0 or in_use + need <= limit:
            continue
        by = "" if jobs is None or not in_use else f" by {jobs} job{'' if jobs == 1 else 's'}"
        are = "is" if in_use == 1 else "are"
        return (
            f"queue '{queue.name}' allows {show(resource, limit)} {resource}; "
            f"{show(resource, in_use)} {are} used{by}, this job needs {show(resource, need)}"
        )
    return None


def schedule(
    snapshot: Snapshot,
    pending: Sequence[Pending],
    queues: Mapping[str, QueueView],
    running: Iterable[Running] = (),
) -> list[Decision]:
    """Decide on every pending gang, in order; each sees the room that those before it left.

    What running gangs request in total, and those that lost ranks, counts for their queue and its
    parents: a repair is not charged again. Requests of the same shape are judged once: what did
    not fit still doesn't.
    """
    ledger = _Ledger(queues, [*running, *(each for each in pending if not charge_of(each))])
    verdicts: dict[tuple[object, ...], Unplaced] = {}
    lines: dict[str | None, list[Key]] = {}
    positions: Counter[str | None] = Counter()
    decisions: list[Decision] = []
    for each in order(pending):
        line = lines.setdefault(each.queue, [])
        positions[each.queue] += 1
        decision = replace(
            _decide(snapshot, each, ledger, verdicts),
            position=positions[each.queue],
            ahead=tuple(line[:AHEAD]),
        )
        decisions.append(decision)
        if decision.placed is None:
            line.append(each.key)
        else:
            # An elastic gang is charged for the size that it was given.
            ledger.charge(each.queue, charge_of(replace(each, request=decision.placed.request)))
            snapshot = snapshot.assume(decision.placed)
    return decisions


def charge_of(gang: Pending) -> Amounts:
    """What it adds to the use of its queue once it is placed."""
    request = gang.request
    return {} if request.repair or gang.charged else {**request.total, "pods": request.replicas}


def _decide(
    snapshot: Snapshot,
    gang: Pending,
    ledger: "_Ledger",
    verdicts: dict[tuple[object, ...], Unplaced],
) -> Decision:
    request = gang.request
    problem = ledger.problem(gang.queue, charge_of(gang))
    for size in request.sizes if problem is not None else ():
        smaller = replace(gang, request=request.resized(size))
        if ledger.problem(gang.queue, charge_of(smaller)) is None:
            problem, request = None, smaller.request
            break
    if problem is not None:
        return Decision(gang.key, reason=problem)
    try:
        shape = request.shape
        verdict = verdicts.get(shape) or place(snapshot, request)
    except (TypeError, ValueError, ArithmeticError) as error:
        # One gang's strange request must not keep the others from being placed.
        return Decision(gang.key, reason=f"the request can't be judged: {error}")
    if isinstance(verdict, Unplaced):
        verdicts[shape] = verdict
        return Decision(gang.key, reason=verdict.reason, unplaced=verdict)
    return Decision(gang.key, placed=verdict)


class _Ledger:
    """What the queues use while a cycle goes on, parents included."""

    def __init__(
        self,
        queues: Mapping[str, QueueView],
        holders: Iterable[Running | Pending],
    ) -> None:
        self._queues = queues
        self._used: dict[str, dict[str, int]] = {}
        self._jobs: dict[str, int] = {}
        for gang in holders:
            if gang.queue is not None:
                request = gang.request
                self._add(gang.queue, {**request.total, "pods": request.replicas}, 1)

    def problem(self, queue: str | None, charge: Amounts) -> str | None:
        """Why this can't be charged to the queue."""
        if queue is None:
            return None
        if queue not in self._queues:
            return f"queue '{queue}' does not exist"
        for each in self._line(queue):
            found = quota_problem(
                each, self._used.get(each.name, {}), charge, self._jobs.get(each.name)
            )
            if found is not None:
                return found
        return None

    def charge(self, queue: str | None, charge: Amounts) -> None:
        """Count a placed gang."""
        if queue is not None and charge:
            self._add(queue, charge, 1)

    def _add(self, queue: str, amounts: Amounts, jobs: int) -> None:
        for each in self._line(queue):
            into = self._used.setdefault(each.name, {})
            for resource, amount in amounts.items():
                into[resource] = into.get(resource, 0) + amount
            self._jobs[each.name] = self._jobs.get(each.name, 0) + jobs

    def _line(self, queue: str) -> list[QueueView]:
        """The queue and its parents; a circle or a missing parent ends the line."""
        line: list[QueueView] = []
        name: str | None = queue
        while name is not None and name in self._queues:
            if any(name == each.name for each in line):
                break
            line.append(self._queues[name])
            name = line[-1].parent
        return line
