"""One scheduling cycle: the turns are taken, and each gang is placed, displaces others or waits."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from drakkar_operator.scheduling import backfill
from drakkar_operator.scheduling.candidates import Rules
from drakkar_operator.scheduling.decision import Decision, Hold, Placed, Unplaced
from drakkar_operator.scheduling.evictions import eviction, waits_for
from drakkar_operator.scheduling.ledger import Charges, Ledger
from drakkar_operator.scheduling.preemption import Preemption, choose
from drakkar_operator.scheduling.queues import Charge, Queues, restricted, selector_of
from drakkar_operator.scheduling.request import GangRequest, Key
from drakkar_operator.scheduling.room import MOST_HOLDS, Room
from drakkar_operator.scheduling.snapshot import Snapshot
from drakkar_operator.scheduling.turns import Recent, Turns
from drakkar_operator.scheduling.workload import Pending, Running

AHEAD = 8
"""As many gangs before it in the line a decision names."""
MOST_SEARCHES = 16
"""How often victims or room for a hold are looked for in one cycle."""
DEFAULT_BACKFILL_SECONDS = 3600.0
"""Of gangs without a queue: how long the first may be passed by gangs whose end is unknown."""


@dataclass(frozen=True, slots=True)
class Option:
    """A way in which a gang may run: on nodes of one flavor, or on any."""

    request: GangRequest
    charge: Charge
    """What it adds to the use of its queue."""


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
        self._charges = Charges(queues, snapshot)
        self._room = Room(snapshot, self._running)
        self._used: dict[Key, Charge] = {}
        self._options: dict[Key, tuple[Option, ...] | str] = {}
        by_queue: dict[str | None, list[Running]] = {}
        for each in running:
            if not each.leaving:
                self._ledger.add(each.queue, self._charge_of(each))
            by_queue.setdefault(each.queue, []).append(each)
        for gang in (*pending, *others):
            if gang.charged or gang.request.repair:
                there = gang.request.fixed
                self._ledger.add(gang.queue, self._charges.placed(gang.request, there))
        self._rules = Rules(self._ledger, by_queue, self._charge_of, now)
        self._leaving = {each.key: each for each in running if each.leaving}
        """And those that were chosen to leave in this cycle."""
        total = snapshot.nodes.allocatable.sum(axis=0).tolist()
        self._turns = Turns(
            pending,
            self._ledger,
            self._planned,
            dict(zip(snapshot.nodes.resources, total, strict=True)),
            recent,
        )
        self._heads: set[str | None] = set()
        """Queues whose first gang without room had its turn."""
        self._short: set[str | None] = set()
        """Queues whose first gang without quota had its turn."""
        self._searches = 0
        self._quota_kept = False
        """A queue's quota is kept for a gang of which it is not known when it will have it."""
        self._problems: dict[tuple[object, ...], str | None] = {}

    def recall(self, holds: Iterable[Hold], known: Mapping[Key, Unplaced]) -> None:
        """Take over what earlier cycles left: room that is kept, and verdicts that hold still."""
        self._room.renew(holds, self._pending, self._now)
        for key, verdict in known.items():
            options = self._options_of(self._pending[key]) if key in self._pending else ()
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
        options = self._options_of(gang)
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
        displacing = self._displace(gang, decision, verdict.open)
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
            added = self._added(gang, answer)
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
            request = option.request.resized(size)
            smaller = Option(request, self._charges.planned(request) if option.charge else {})
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
        added = self._added(gang, placed)
        self._ledger.add(gang.queue, added, jobs)
        return Decision(gang.key, placed=placed)

    def _short_of_room(
        self, gang: Pending, decision: Decision, options: Sequence[Option], first: bool
    ) -> Decision:
        """The first of a queue displaces others, or what it waits for is kept for it."""
        held = self._room.holds.get(gang.queue)
        hold = held if held is not None and held.key == gang.key else None
        if not first:
            return decision if hold is None else self._keep(gang, decision, hold)
        options = [each for each in options if self._room.ever(each.request)]
        if not options:
            return decision
        self._heads.add(gang.queue)
        if hold is None or not self._leaving.keys() >= {*hold.awaits}:
            displacing = self._displace(gang, decision, options)
            if displacing is not None:
                return displacing
        if hold is None:
            hold = self._search(gang, options)
        return decision if hold is None else self._keep(gang, decision, hold)

    def _short_of_quota(
        self, gang: Pending, decision: Decision, options: Sequence[Option]
    ) -> Decision:
        """The first of a queue displaces others, or gangs behind it must leave it the quota."""
        options = [each for each in options if self._ledger.possible(gang.queue, each.charge)]
        if gang.queue in self._short or not options:
            return decision
        self._short.add(gang.queue)
        displacing = self._displace(
            gang, decision, [each for each in options if self._room.ever(each.request)]
        )
        if displacing is not None:
            return displacing
        if self._now - gang.waits_since >= self._patience(gang.queue):
            self._ledger.keep(gang.queue, options[0].charge)
            self._quota_kept = True
        return decision

    def _displace(
        self, gang: Pending, decision: Decision, options: Sequence[Option]
    ) -> Decision | None:
        """Evict gangs, or wait for those that leave already, if the gang is sure to fit then."""
        leaving = [self._leaving[key] for key in sorted(self._leaving)]
        by_option = [(each, self._rules.of(gang, each.charge)) for each in options]
        if not leaving and not any(candidates for _, candidates in by_option):
            return None
        room = self._room.without(gang.queue)
        freed = room.release(rank for each in leaving for rank in each.reservations)
        for option, candidates in by_option:
            if not (candidates or leaving) or self._searches >= MOST_SEARCHES:
                continue
            self._searches += 1
            fits = self._rules.fits_quota(gang, option.charge, candidates)
            found = choose(freed, option.request, candidates, fits, self._now)
            if isinstance(found, Preemption) and not self._rules.fair(
                gang, option.charge, found.victims
            ):
                candidates = self._rules.newest(gang, option.charge, candidates)
                found = choose(freed, option.request, candidates, fits, self._now)
            if isinstance(found, Unplaced):
                continue
            awaits = [*backfill.needed(room, found.placed, leaving), *found.victims]
            hold = Hold(
                gang.key, gang.queue, found.placed, tuple(sorted(each.key for each in awaits))
            )
            for each in found.victims:
                self._leaving[each.key] = self._rules.chosen[each.key] = each
            return replace(
                self._keep(gang, decision, hold),
                reason=waits_for(awaits or leaving),
                evictions=tuple(eviction(each, gang) for each in found.victims),
            )
        return None

    def _search(self, gang: Pending, options: Sequence[Option]) -> Hold | None:
        """The room that is free first."""
        patient = self._now - gang.waits_since < self._patience(gang.queue)
        taken = gang.queue in self._room.holds
        for option in options:
            if self._searches >= MOST_SEARCHES or len(self._room.holds) >= MOST_HOLDS + taken:
                return None
            self._searches += 1
            room = self._room.without(gang.queue)
            running = list(self._running.values())
            found = backfill.search(room, gang, option.request, running, self._now, patient=patient)
            if found is not None:
                return found
        return None

    def _keep(self, gang: Pending, decision: Decision, hold: Hold) -> Decision:
        """Keep room and quota for the gang."""
        self._room.keep(hold)
        self._ledger.keep(gang.queue, self._added(gang, hold.placed))
        return replace(decision, hold=hold)

    def _patience(self, queue: str | None) -> float:
        view = self._queues.views.get(queue or "")
        return view.backfill_seconds if view is not None else DEFAULT_BACKFILL_SECONDS

    def _charge_of(self, gang: Running) -> Charge:
        if gang.key not in self._used:
            request = gang.request
            self._used[gang.key] = self._charges.placed(request, request.fixed)
        return self._used[gang.key]

    def _added(self, gang: Pending, placed: Placed) -> Charge:
        """What the gang's place adds to the use of its queue."""
        request, nodes = placed.request, {**placed.request.fixed, **placed.nodes}
        if not self._queues.selectors and (gang.charged or gang.request.repair):
            return {}
        charge = self._charges.placed(request, nodes)
        if gang.charged or gang.request.repair:
            before = self._charges.placed(request, gang.request.fixed)
            charge = {item: amount - before.get(item, 0) for item, amount in charge.items()}
        return charge

    def _planned(self, gang: Pending) -> Charge:
        options = self._options_of(gang)
        return {} if isinstance(options, str) else options[0].charge

    def _options_of(self, gang: Pending) -> tuple[Option, ...] | str:
        """The ways in which the gang may run, or why there is none."""
        if gang.key not in self._options:
            try:
                self._options[gang.key] = self._find_options(gang)
            except (TypeError, ValueError, ArithmeticError) as error:
                self._options[gang.key] = f"the request can't be judged: {error}"
        return self._options[gang.key]

    def _find_options(self, gang: Pending) -> tuple[Option, ...] | str:
        request = gang.request
        if gang.queue is not None and not self._queues.usable(gang.queue):
            return self._ledger.problem(gang.queue, {}) or f"queue '{gang.queue}' can't be used"
        charged = gang.charged or request.repair
        flavors, limited = self._queues.flavors(gang.queue, request)
        if not flavors:
            return (Option(request, {} if charged else self._charges.planned(request)),)
        there = self._charges.common(request.fixed.values())
        options = []
        for flavor in flavors:
            narrowed = restricted(request, flavor, limited)
            if narrowed is not None and (not request.repair or selector_of(flavor.labels) in there):
                charge = self._charges.planned(narrowed)
                if charged:
                    there_now = self._charges.placed(request, request.fixed)
                    charge = {i: a - there_now.get(i, 0) for i, a in charge.items()}
                options.append(Option(narrowed, charge))
        if options:
            return tuple(options)
        if request.repair:
            # It began before its queue told nodes apart.
            return (Option(request, {}),)
        names = ", ".join(flavor.name for flavor in flavors)
        return (
            f"queue '{gang.queue}' allows nodes of these flavors only: {names}; "
            "the job's node selector asks for others"
        )
