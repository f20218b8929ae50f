"""One scheduling cycle: the turns are taken, and each gang is placed, displaces others or waits."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from drakkar_operator.scheduling.candidates import Rules
from drakkar_operator.scheduling.decision import Decision, Hold, Placed, Unplaced
from drakkar_operator.scheduling.ledger import Charges, Ledger
from drakkar_operator.scheduling.options import Option, Options
from drakkar_operator.scheduling.queues import Queues
from drakkar_operator.scheduling.relief import Relief
from drakkar_operator.scheduling.request import Key
from drakkar_operator.scheduling.room import Room
from drakkar_operator.scheduling.snapshot import Snapshot
from drakkar_operator.scheduling.turns import Recent, Turns
from drakkar_operator.scheduling.workload import Pending, Running

AHEAD = 8
"""As many gangs before it in the line a decision names."""
DEFAULT_BACKFILL_SECONDS = 3600.0
"""Of gangs without a queue: how long the first may be passed by gangs whose end is unknown."""


@dataclass(frozen=True, slots=True)
class _Verdict:
    """An answer to a gang and, if room is lacking, the options that its queue's limits allow."""

    placed: Placed | None = None
    unplaced: Unplaced | None = None
    reason: str = ""
    open: tuple[Option, ...] = ()


class Cycle:
    """The state of a cycle while it goes on. ``decide`` may be called once."""

    def __init__(
        self,
        snapshot: Snapshot,
        pending: Sequence[Pending],
        queues: Queues,
        running: Sequence[Running],
        others: Sequence[Pending],
        recent: Recent,
        now: float,
    ) -> None:
        self._pending = {each.key: each for each in pending}
        self._queues = queues
        self._running = {each.key: each for each in running}
        self._now = now
        self._ledger = Ledger(queues)
        self._room = Room(snapshot, self._running)
        charges = Charges(queues, snapshot)
        self._options = Options(queues, charges, self._ledger)
        by_queue: dict[str | None, list[Running]] = {}
        for each in running:
            if not each.leaving:
                self._ledger.add(each.queue, self._options.charge_of(each))
            by_queue.setdefault(each.queue, []).append(each)
        for gang in (*pending, *others):
            if gang.charged or gang.request.repair:
                self._ledger.add(gang.queue, self._options.in_place(gang.request))
        rules = Rules(self._ledger, by_queue, self._options.charge_of, now)
        self._relief = Relief(self._room, self._ledger, rules, self._options, self._running, now)
        total = snapshot.nodes.allocatable.sum(axis=0).tolist()
        self._turns = Turns(
            pending,
            self._ledger,
            self._options.planned,
            dict(zip(snapshot.nodes.resources, total, strict=True)),
            recent,
        )
        self._heads: set[str | None] = set()
        """Queues whose first gang without room had its turn."""
        self._short: set[str | None] = set()
        """Queues whose first gang without quota had its turn."""
        self._quota_kept = False
        """A queue's quota is kept for a gang of which it is not known when it will have it."""
        self._problems: dict[tuple[object, ...], str | None] = {}

    def recall(self, holds: Iterable[Hold], known: Mapping[Key, Unplaced]) -> None:
        """Take over what earlier cycles left: room that is kept, and verdicts that hold still."""
        self._room.renew(holds, self._pending, self._now)
        for key, verdict in known.items():
            options = self._options.of(self._pending[key]) if key in self._pending else ()
            if len(options) == 1 and isinstance(options[0], Option):
                self._room.know(options[0].request, verdict)

    def decide(self) -> list[Decision]:
        """All decisions, in the order of the turns."""
        waiting: dict[str | None, list[Key]] = {}
        positions: Counter[str | None] = Counter()
        decisions = []
        for gang in self._turns:
            line = waiting.setdefault(gang.queue, [])
            positions[gang.queue] += 1
            try:
                decision = self._decide(gang)
            except (TypeError, ValueError, ArithmeticError) as error:
                # One gang's strange request must not keep the others from being placed.
                decision = Decision(gang.key, reason=f"the request can't be judged: {error}")
            decisions.append(
                replace(decision, position=positions[gang.queue], ahead=tuple(line[:AHEAD]))
            )
            if decision.placed is None:
                line.append(gang.key)
        return decisions

    def _decide(self, gang: Pending) -> Decision:
        options = self._options.of(gang)
        if isinstance(options, str):
            return Decision(gang.key, reason=options)
        if gang.request.repair:
            return self._repair(gang, options)
        first = gang.queue not in self._heads
        verdict = self._judge(gang, options, first)
        if verdict.placed is not None:
            return self._place(gang, verdict.placed)
        decision = Decision(gang.key, reason=verdict.reason, unplaced=verdict.unplaced)
        if verdict.open:
            return self._short_of_room(gang, decision, verdict.open, first)
        return self._short_of_quota(gang, decision, options)

    def _repair(self, gang: Pending, options: Sequence[Option]) -> Decision:
        """Beside what is kept for others if that is possible, else there: its other ranks wait.

        Where there is no room, others are displaced as for a gang that waits.
        """
        verdict = self._judge(gang, options, first=False)
        if verdict.placed is None and self._room.holds:
            verdict = self._judge(gang, options, first=False, anywhere=True)
        if verdict.placed is not None:
            return self._place(gang, verdict.placed)
        decision = Decision(gang.key, reason=verdict.reason, unplaced=verdict.unplaced)
        displacing = self._relief.displace(gang, decision, verdict.open)
        if displacing is None:
            return decision
        # What is kept for it is not for the first that waits.
        self._heads.add(gang.queue)
        return displacing

    def _judge(
        self, gang: Pending, options: Sequence[Option], first: bool, anywhere: bool = False
    ) -> _Verdict:
        """The first option that is within the queue's limits and has room."""
        ends = None if gang.lasts is None else self._now + gang.lasts
        owners = frozenset() if anywhere else self._room.others(gang, ends, first)
        passes = (
            ends is not None
            and not self._quota_kept
            and all(hold.open_to(ends) for hold in self._room.holds.values())
        )
        problems: list[str] = []
        open_: list[Option] = []
        for option in options:
            problem = self._problem(gang, option, passes)
            if problem is not None and option.request.sizes:
                option = self._smaller(gang, option, passes) or option
                problem = self._problem(gang, option, passes)
            if problem is None:
                open_.append(option)
            else:
                problems.append(problem)
        if len(open_) > 1 and gang.queue is not None:
            line = self._queues.lines[gang.queue]
            open_.sort(key=lambda each: any(self._ledger.borrows(q, each.charge) for q in line))
        refusals: list[Unplaced] = []
        for option in open_:
            answer = self._room.judge(option.request, owners)
            if isinstance(answer, Unplaced):
                refusals.append(answer)
                continue
            # Where it is says which flavors of queues further up it uses.
            added = self._options.added(gang, answer)
            problem = self._ledger.problem(gang.queue, added) if self._queues.selectors else None
            if problem is None:
                return _Verdict(placed=answer)
            problems.append(problem)
        if refusals:
            return _Verdict(
                unplaced=refusals[0],
                reason="; ".join(dict.fromkeys(each.reason for each in refusals)),
                open=tuple(open_),
            )
        return _Verdict(reason="; ".join(dict.fromkeys(problems)))

    def _smaller(self, gang: Pending, option: Option, passes: bool) -> Option | None:
        """The largest size of an elastic gang that its queue can take."""
        for size in option.request.sizes[1:]:
            smaller = self._options.resized(option, size)
            if self._problem(gang, smaller, passes) is None:
                return smaller
        return None

    def _problem(self, gang: Pending, option: Option, passes: bool) -> str | None:
        """Why the queue can't take it; equal gangs of a queue get the same answer for less."""
        if gang.queue is None or not option.charge:
            return None
        key = (gang.queue, tuple(option.charge.items()), passes, self._ledger.version)
        if key not in self._problems:
            problem = self._ledger.problem(gang.queue, option.charge)
            if problem is None and not passes:
                problem = self._ledger.in_the_way(gang.queue, option.charge)
            self._problems[key] = problem
        return self._problems[key]

    def _place(self, gang: Pending, placed: Placed) -> Decision:
        held = self._room.holds.get(gang.queue)
        if held is not None and held.key == gang.key:
            self._room.drop(gang.queue)
        self._room.take(placed)
        jobs = 0 if gang.charged or gang.request.repair else 1
        added = self._options.added(gang, placed)
        self._ledger.add(gang.queue, added, jobs)
        return Decision(gang.key, placed=placed)

    def _short_of_room(
        self, gang: Pending, decision: Decision, options: Sequence[Option], first: bool
    ) -> Decision:
        """The first of a queue displaces others, or what it waits for is kept for it."""
        held = self._room.holds.get(gang.queue)
        hold = held if held is not None and held.key == gang.key else None
        if not first:
            return decision if hold is None else self._relief.keep(gang, decision, hold)
        options = [each for each in options if self._room.ever(each.request)]
        if not options:
            return decision
        self._heads.add(gang.queue)
        if hold is None or not self._relief.leave(hold.awaits):
            displacing = self._relief.displace(gang, decision, options)
            if displacing is not None:
                return displacing
        if hold is None:
            hold = self._relief.search(gang, options, patient=self._patient(gang))
        return decision if hold is None else self._relief.keep(gang, decision, hold)

    def _short_of_quota(
        self, gang: Pending, decision: Decision, options: Sequence[Option]
    ) -> Decision:
        """The first of a queue displaces others, or gangs behind it must leave it the quota."""
        options = [each for each in options if self._ledger.possible(gang.queue, each.charge)]
        if gang.queue in self._short or not options:
            return decision
        self._short.add(gang.queue)
        displacing = self._relief.displace(
            gang, decision, [each for each in options if self._room.ever(each.request)]
        )
        if displacing is not None:
            return displacing
        if not self._patient(gang):
            self._ledger.keep(gang.queue, options[0].charge)
            self._quota_kept = True
        return decision

    def _patient(self, gang: Pending) -> bool:
        """Whether gangs whose end is unknown may still pass it."""
        view = self._queues.views.get(gang.queue or "")
        patience = view.backfill_seconds if view is not None else DEFAULT_BACKFILL_SECONDS
        return self._now - gang.waits_since < patience
