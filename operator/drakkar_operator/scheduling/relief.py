"""Finding room for gangs that have none: whom to displace, or which nodes to keep for them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from drakkar_operator.scheduling import backfill
from drakkar_operator.scheduling.candidates import Rules
from drakkar_operator.scheduling.decision import Decision, Hold, Unplaced
from drakkar_operator.scheduling.evictions import eviction, waits_for
from drakkar_operator.scheduling.ledger import Ledger
from drakkar_operator.scheduling.options import Option, Options
from drakkar_operator.scheduling.preemption import Preemption, choose
from drakkar_operator.scheduling.request import Key
from drakkar_operator.scheduling.room import MOST_HOLDS, Room
from drakkar_operator.scheduling.workload import Pending, Running

MOST_SEARCHES = 16
"""How often victims or room for a hold are looked for in one cycle."""


class Relief:
    """Changes the room, the ledger and the rules of its cycle with what it decides."""

    def __init__(
        self,
        room: Room,
        ledger: Ledger,
        rules: Rules,
        options: Options,
        running: Mapping[Key, Running],
        now: float,
    ) -> None:
        self._room = room
        self._ledger = ledger
        self._rules = rules
        self._options = options
        self._running = running
        self._now = now
        self._leaving = {key: each for key, each in running.items() if each.leaving}
        """And those that were chosen to leave in this cycle."""
        self._searches = 0

    def leave(self, keys: Iterable[Key]) -> bool:
        """Whether all of these gangs leave already."""
        return self._leaving.keys() >= {*keys}

    def displace(
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
                self.keep(gang, decision, hold),
                reason=waits_for(awaits or leaving),
                evictions=tuple(eviction(each, gang) for each in found.victims),
            )
        return None

    def search(self, gang: Pending, options: Sequence[Option], *, patient: bool) -> Hold | None:
        """The room that is free first; ``patient``: others may still pass it."""
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

    def keep(self, gang: Pending, decision: Decision, hold: Hold) -> Decision:
        """Keep room and quota for the gang."""
        self._room.keep(hold)
        self._ledger.keep(gang.queue, self._options.added(gang, hold.placed))
        return replace(decision, hold=hold)
