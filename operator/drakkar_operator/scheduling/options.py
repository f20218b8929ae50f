"""The ways in which gangs may run, and what each way adds to the use of their queues."""

from dataclasses import dataclass

from drakkar_operator.scheduling.decision import Placed
from drakkar_operator.scheduling.ledger import Charges, Ledger
from drakkar_operator.scheduling.queues import Charge, Queues, restricted, selector_of
from drakkar_operator.scheduling.request import GangRequest, Key
from drakkar_operator.scheduling.workload import Pending, Running


@dataclass(frozen=True, slots=True)
class Option:
    """A way in which a gang may run: on nodes of one flavor, or on any."""

    request: GangRequest
    charge: Charge
    """What it adds to the use of its queue."""


class Options:
    """The options of each gang of a cycle, found once; charges of what is placed."""

    def __init__(self, queues: Queues, charges: Charges, ledger: Ledger) -> None:
        self._queues = queues
        self._charges = charges
        self._ledger = ledger
        self._used: dict[Key, Charge] = {}
        self._known: dict[Key, tuple[Option, ...] | str] = {}

    def of(self, gang: Pending) -> tuple[Option, ...] | str:
        """The ways in which the gang may run, or why there is none."""
        if gang.key not in self._known:
            try:
                self._known[gang.key] = self._find(gang)
            except (TypeError, ValueError, ArithmeticError) as error:
                self._known[gang.key] = f"the request can't be judged: {error}"
        return self._known[gang.key]

    def planned(self, gang: Pending) -> Charge:
        """What the first option of a gang would add."""
        options = self.of(gang)
        return {} if isinstance(options, str) else options[0].charge

    def resized(self, option: Option, size: int) -> Option:
        """An option of an elastic gang at a smaller size."""
        request = option.request.resized(size)
        return Option(request, self._charges.planned(request) if option.charge else {})

    def in_place(self, request: GangRequest) -> Charge:
        """What the ranks that have their places use."""
        return self._charges.placed(request, request.fixed)

    def charge_of(self, gang: Running) -> Charge:
        """What a running gang uses."""
        if gang.key not in self._used:
            self._used[gang.key] = self.in_place(gang.request)
        return self._used[gang.key]

    def added(self, gang: Pending, placed: Placed) -> Charge:
        """What the gang's place adds to the use of its queue."""
        request, nodes = placed.request, {**placed.request.fixed, **placed.nodes}
        if not self._queues.selectors and (gang.charged or gang.request.repair):
            return {}
        charge = self._charges.placed(request, nodes)
        if gang.charged or gang.request.repair:
            before = self._charges.placed(request, gang.request.fixed)
            charge = {item: amount - before.get(item, 0) for item, amount in charge.items()}
        return charge

    def _find(self, gang: Pending) -> tuple[Option, ...] | str:
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
