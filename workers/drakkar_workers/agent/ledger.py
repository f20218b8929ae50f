"""Where a gang's time goes: every second is in exactly one book, so that they add up to the whole.

Time runs in the book that is open. A step that is done divides the time since the last one: what it
took is productive, what its checkpoint held it up is ``checkpoint``, the rest stays in the open book.
When the training goes on from an earlier step, the time of the steps to be done again is moved from
``productive`` to ``lost``. Books that begin with a checkpoint are those of a gang that was lost as a
whole, or stopped: until its first step it recovers.
"""

from collections import deque
from dataclasses import dataclass

from drakkar.protocol import BOOKS, Book, LedgerState, Recovery
from drakkar_workers.agent.clock import Clock

STEPS_KEPT = 20_000
"""Steps whose duration is known one by one; what was before them is hardly ever lost."""


@dataclass(slots=True)
class _Outage:
    since: float
    """When the last step before it was done."""
    reached: int
    whole: bool = False
    """Of a gang of which nobody is left: the books began after it."""


class Ledger:
    """One gang's, from its coordinator's start; times are monotonic seconds."""

    def __init__(self, clock: Clock, now: float) -> None:
        self._clock = clock
        self._since = now
        self._at = now
        self._open: Book = "start"
        self._seconds: dict[Book, float] = dict.fromkeys(BOOKS, 0.0)
        self._steps: deque[tuple[int, float]] = deque(maxlen=STEPS_KEPT)
        self._reached = 0
        self._last_step = now
        self._fresh = True
        """No step of this epoch is done yet."""
        self._productive: float | None = None
        """The trainers' own count, at the last step of this epoch."""
        self._outage: _Outage | None = None
        self._source: str | None = None

    def enter(self, book: Book, now: float) -> None:
        """Time runs in this book from now on."""
        self._spend(now)
        self._open = book

    def interrupt(self, now: float) -> None:
        """The trainers have ended before their time."""
        self.enter("recovery" if self._reached else "start", now)
        self._fresh, self._productive, self._source = True, None, None
        if self._outage is None and self._reached:
            self._outage = _Outage(self._last_step, self._reached)

    def resume(self, source: str) -> None:
        """The trainers say what they go on from."""
        self._source = source

    def step(
        self,
        step: int,
        now: float,
        *,
        step_seconds: float | None = None,
        productive: float | None = None,
        stall: float | None = None,
    ) -> Recovery | None:
        """A step is done; the recovery that is over with it.

        ``productive``: seconds in steps and evaluations that the trainers count themselves.
        """
        elapsed = max(0.0, now - self._at)
        told = step_seconds
        if productive is not None and self._productive is not None:
            told = productive - self._productive
        self._productive = productive
        useful = min(elapsed, max(0.0, elapsed if told is None else told))
        held_up = min(elapsed - useful, max(0.0, stall or 0.0))
        recovery = None
        if self._fresh:
            if not self._reached and self._source in ("memory", "storage"):
                self._return_from_before()
            recovery = self._back_at(step - 1, now, useful)
            self._fresh = False
        self._seconds["productive"] += useful
        self._seconds["checkpoint"] += held_up
        self._seconds[self._open] += elapsed - useful - held_up
        self._at = max(self._at, now)
        self._open = "other"
        self._steps.append((step, useful))
        self._reached = max(self._reached, step)
        self._last_step = now
        return recovery

    def state(self, now: float) -> LedgerState:
        """All of it, as others keep it for a successor."""
        self._spend(now)
        return LedgerState(
            since=self._clock.wall(self._since),
            at=self._clock.wall(self._at),
            reached=self._reached,
            last_step=self._clock.wall(self._last_step),
            **{f"{book}_seconds": round(max(0.0, v), 3) for book, v in self._seconds.items()},
        )

    def adopt(self, state: LedgerState, now: float) -> None:
        """Go on with a predecessor's books; the time since then is recovery."""
        offset = self._clock.wall(now) - now
        # Clocks of nodes differ: nothing that was told can have happened after now.
        began, ended = state.since - offset, min(now, state.at - offset)
        if began >= self._since:
            return
        self._seconds = {book: getattr(state, f"{book}_seconds") for book in BOOKS}
        self._since, self._at = began, ended
        self._open = "recovery" if state.reached else "start"
        self._spend(now)
        # Rounded sums may be off by a little: it belongs somewhere.
        self._seconds["other"] += (now - began) - sum(self._seconds.values())
        self._reached = state.reached
        if state.reached:
            self._last_step = state.last_step - offset
            self._outage = _Outage(self._last_step, state.reached)
            mean = self._seconds["productive"] / state.reached
            first = max(1, state.reached - 1000)
            self._steps.extend((step, mean) for step in range(first, state.reached + 1))

    def productive_share(self, now: float) -> float:
        """Of the time so far."""
        total = now - self._since
        return min(1.0, self._seconds["productive"] / total) if total > 0 else 0.0

    def _spend(self, now: float) -> None:
        elapsed = now - self._at
        if elapsed > 0:
            self._seconds[self._open] += elapsed
            self._at = now

    def _return_from_before(self) -> None:
        self._seconds["recovery"] += self._seconds["start"]
        self._seconds["start"] = 0.0
        if self._open == "start":
            self._open = "recovery"
        self._outage = _Outage(self._since, 0, whole=True)

    def _back_at(self, step: int, now: float, useful: float) -> Recovery | None:
        lost = 0.0
        while self._steps and self._steps[-1][0] > step:
            lost += self._steps.pop()[1]
        lost = min(lost, self._seconds["productive"])
        self._seconds["productive"] -= lost
        self._seconds["lost"] += lost
        outage, self._outage = self._outage, None
        if outage is None:
            return None
        return Recovery(
            since=self._clock.date(outage.since),
            time=self._clock.date(now),
            seconds=round(max(0.0, now - outage.since - useful), 3),
            steps_lost=max(0, outage.reached - step),
            seconds_lost=round(lost, 3),
            source=self._source,
            whole=outage.whole,
        )
