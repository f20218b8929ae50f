"""When a gang that waits for room may get it: once running gangs that will end have ended."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from drakkar_operator.scheduling.decision import Unplaced
from drakkar_operator.scheduling.release import Rooms
from drakkar_operator.scheduling.request import GangRequest, Key
from drakkar_operator.scheduling.snapshot import Snapshot
from drakkar_operator.scheduling.topology import BoolArray
from drakkar_operator.scheduling.workload import Running

_NAMED = 2
"""As many gangs are named whose end is waited for."""
MOST_LEFT_OUT = 64
"""Gangs that are tried for whether their end matters."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """Room that is expected, if nobody else takes it."""

    at: float
    """Seconds since the epoch."""
    gangs: tuple[Key, ...]
    """Those whose ends make it, each of them needed; the last to end comes first."""

    def sentence(self, unplaced: Unplaced | None) -> str:
        """What is freed, by whom and when, for people; without a verdict on room it is quota."""
        what = "quota"
        if unplaced is not None:
            what = f"room for {max(unplaced.need - unplaced.best, 1)} more"
        names = ["/".join(key) for key in self.gangs[:_NAMED]]
        if others := len(self.gangs) - len(names):
            names.append(f"{others} other{'' if others == 1 else 's'}")
        who = " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
        end = "ends" if len(self.gangs) == 1 else "end"
        return f"{what} is expected by about {clock(self.at)}, when {who} {end}"


def forecast(
    snapshot: Snapshot, request: GangRequest, running: Iterable[Running], now: float
) -> Forecast | None:
    """When the request fits if running gangs end when they are expected to and nothing starts.

    None if no end is known that would help. What is overdue is expected at any moment.
    """
    ending = sorted((g for g in running if g.ends is not None), key=lambda g: (g.ends, g.key))
    if not ending:
        return None
    try:
        rooms = Rooms.of(snapshot, request, ending)
    except ValueError:
        return None
    count = _fewest(rooms, len(ending))
    if count is None:
        return None
    gone = np.arange(len(ending)) < count
    # The earlier ends may be of no use: those are left out whose room nobody of the gang needs.
    for at in range(min(count - 1, MOST_LEFT_OUT)):
        gone[at] = False
        if not rooms.fits(gone):
            gone[at] = True
    needed = [ending[at] for at in np.flatnonzero(gone)[::-1]]
    return Forecast(max(now, ending[count - 1].ends or now), tuple(gang.key for gang in needed))


def _fewest(rooms: Rooms, total: int) -> int | None:
    """So many of the gangs, the first to end first, must have ended; None if all are too few."""

    def first(count: int) -> BoolArray:
        gone: BoolArray = np.arange(total) < count
        return gone

    if not rooms.fits(first(total)):
        return None
    low, high = 1, total
    while low < high:
        middle = (low + high) // 2
        if rooms.fits(first(middle)):
            high = middle
        else:
            low = middle + 1
    return high


def clock(at: float) -> str:
    """A moment for people: the minute in UTC, with the date."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")


def differs(old: float | None, new: float | None, now: float) -> bool:
    """Whether an estimate of a moment is worth telling anew: by a fifth of the time left."""
    if old is None or new is None:
        return old is not new
    return abs(new - old) > max(60.0, 0.2 * (max(old, new) - now))
