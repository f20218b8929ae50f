"""When a gang that waits for quota may get it: once gangs that use it have ended.

A gang's queue and those around it are charged as in a cycle. Ends are taken in order until the
limits allow the gang; from then on it is a question of room like any other (``forecast``).
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from drakkar_operator.scheduling.decision import Placed
from drakkar_operator.scheduling.forecast import MOST_LEFT_OUT, Forecast, forecast
from drakkar_operator.scheduling.ledger import Charges, Ledger
from drakkar_operator.scheduling.placement import place
from drakkar_operator.scheduling.queues import Charge, Queues, restricted
from drakkar_operator.scheduling.request import GangRequest
from drakkar_operator.scheduling.snapshot import Snapshot
from drakkar_operator.scheduling.workload import Pending, Running


class QuotaForecasts:
    """Forecasts for gangs that wait for quota, all on one moment's charges."""

    def __init__(
        self,
        snapshot: Snapshot,
        queues: Queues,
        running: Iterable[Running],
        pending: Iterable[Pending],
        now: float,
    ) -> None:
        self._snapshot = snapshot
        self._queues = queues
        self._now = now
        self._charges = Charges(queues, snapshot)
        self._ledger = Ledger(queues)
        self._running = [each for each in running if not each.leaving]
        self._ending = sorted(
            (each for each in self._running if each.ends is not None),
            key=lambda each: (each.ends, each.key),
        )
        for each in self._running:
            self._ledger.add(each.queue, self._charge(each))
        for gang in pending:
            if gang.charged or gang.request.repair:
                there = gang.request.fixed
                self._ledger.add(gang.queue, self._charges.placed(gang.request, there))

    def of(self, gang: Pending) -> Forecast | None:
        """When the gang has quota and room if gangs end as expected and nothing starts.

        None if no end is known that would do. An elastic gang is asked about at its least size.
        """
        if gang.queue is None or not self._queues.usable(gang.queue):
            return None
        if gang.charged or gang.request.repair:
            return None
        request = gang.request
        if request.sizes:
            request = request.resized(request.sizes[-1])
        flavors, limited = self._queues.flavors(gang.queue, request)
        options = [restricted(request, flavor, limited) for flavor in flavors] or [request]
        try:
            found = [self._option(gang.queue, each) for each in options if each is not None]
        except (TypeError, ValueError, ArithmeticError):
            # The cycle says of such a request that it can't be judged.
            return None
        return min((each for each in found if each is not None), key=lambda f: f.at, default=None)

    def _option(self, queue: str, request: GangRequest) -> Forecast | None:
        charge = self._charges.planned(request)
        if not self._ledger.possible(queue, charge):
            return None
        needed = self._needed(queue, charge)
        if needed is None:
            return None
        at = max([self._now, *(each.ends or self._now for each in needed)])
        ended = [each for each in self._ending if (each.ends or self._now) <= at]
        freed = self._snapshot.release(rank for each in ended for rank in each.reservations)
        names = tuple(each.key for each in reversed(needed))
        if isinstance(place(freed, request), Placed):
            return Forecast(at, names)
        over = {each.key for each in ended}
        left = [each for each in self._running if each.key not in over]
        room = forecast(freed, request, left, at)
        if room is None:
            return None
        return replace(room, gangs=tuple(dict.fromkeys((*room.gangs, *names))))

    def _needed(self, queue: str, charge: Charge) -> Sequence[Running] | None:
        """The gangs that must end, the first to end first; None if all ends are too few."""
        gone: list[Running] = []
        try:
            for each in self._ending:
                if self._ledger.problem(queue, charge) is None:
                    break
                self._count(each, -1)
                gone.append(each)
            if self._ledger.problem(queue, charge) is not None:
                return None
            for each in tuple(gone[:-1])[:MOST_LEFT_OUT]:
                # Its end may be of no use to this queue.
                self._count(each, +1)
                if self._ledger.problem(queue, charge) is None:
                    gone.remove(each)
                else:
                    self._count(each, -1)
            return tuple(gone)
        finally:
            for each in gone:
                self._count(each, +1)

    def _count(self, gang: Running, sign: int) -> None:
        charge = {item: sign * amount for item, amount in self._charge(gang).items()}
        self._ledger.add(gang.queue, charge, sign)

    def _charge(self, gang: Running) -> Charge:
        return self._charges.placed(gang.request, gang.request.fixed)
