"""Who is placed first, and what a queue's quota allows: one scheduling cycle over all gangs.

Repairs go before fresh gangs, since their other ranks already hold devices and wait. Then higher
priority, then older, then by key. A gang that can't be placed does not hold up the ones behind it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from drakkar.quantity import show
from drakkar_operator.model import Amounts, QueueView
from drakkar_operator.scheduling.decision import Placed, Unplaced
from drakkar_operator.scheduling.placement import place
from drakkar_operator.scheduling.request import Key
from drakkar_operator.scheduling.snapshot import Snapshot
from drakkar_operator.scheduling.workload import Pending


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of a pending gang in this cycle: ``placed``, or ``reason`` says why not."""

    key: Key
    placed: Placed | None = None
    reason: str | None = None
    unplaced: Unplaced | None = None
    """The verdict with its numbers, if it was room (not quota) that was lacking."""


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
    used: Mapping[str, Amounts],
    jobs: Mapping[str, int] | None = None,
) -> list[Decision]:
    """Decide on every pending gang, in order; each sees the room that those before it left.

    ``used`` (and ``jobs``, their number) is what the admitted jobs of each queue request in total;
    it counts for the queue's parents too. A repair is part of that already and is not charged
    again. Requests of the same shape are judged once: what did not fit still doesn't.
    """
    ledger = _Ledger(queues, used, jobs or {})
    verdicts: dict[tuple[object, ...], Unplaced] = {}
    decisions: list[Decision] = []
    for each in order(pending):
        request = each.request
        charge = (
            {} if request.repair or each.charged else {**request.total, "pods": request.replicas}
        )
        problem = ledger.problem(each.queue, charge)
        if problem is not None:
            decisions.append(Decision(each.key, reason=problem))
            continue
        try:
            shape = request.shape
            verdict = verdicts.get(shape) or place(snapshot, request)
        except (TypeError, ValueError, ArithmeticError) as error:
            # One gang's strange request must not keep the others from being placed.
            decisions.append(Decision(each.key, reason=f"the request can't be judged: {error}"))
            continue
        if isinstance(verdict, Unplaced):
            verdicts[shape] = verdict
            decisions.append(Decision(each.key, reason=verdict.reason, unplaced=verdict))
            continue
        ledger.charge(each.queue, charge)
        snapshot = snapshot.assume(verdict)
        decisions.append(Decision(each.key, placed=verdict))
    return decisions


class _Ledger:
    """What the queues use while a cycle goes on, parents included."""

    def __init__(
        self,
        queues: Mapping[str, QueueView],
        used: Mapping[str, Amounts],
        jobs: Mapping[str, int],
    ) -> None:
        self._queues = queues
        self._used: dict[str, dict[str, int]] = {}
        self._jobs: dict[str, int] = {}
        for name in {*used, *jobs}:
            self._add(name, used.get(name, {}), jobs.get(name, 0))

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
