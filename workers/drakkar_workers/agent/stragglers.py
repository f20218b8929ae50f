"""Ranks that are slower than the rest of their gang, in stages in which they wait for nobody.

Every window of time gives each rank's mean seconds per step and stage, and with it the logarithm of
its ratio to the gang's median. What that changes from window to window is the job's noise; what stays
over several windows, and is more than such noise explains, is a slow device, node or neighbour.
"""

import math
import statistics
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from drakkar.protocol import Straggler
from drakkar_workers.agent.seat import Seat

WINDOW_SECONDS = 10.0
LEAST_STEPS = 5
"""In a window, to mean anything."""
LEAST_RATIO = 1.3
WINDOWS = 4
"""That a verdict is the mean of."""
DEVIATIONS = 6.0
"""Standard deviations of such a mean that are still noise."""
LEARNING = 10
"""Windows before the first verdict: caches are cold, and the noise has to be known."""
TOLD = 8
FEW = 4
"""Ranks of a gang that is too small to leave one out."""
_MEMORY = 0.05
"""Weight of a window in the noise."""
_STEP_OF_NORMAL = 1.128
"""Mean distance of two normal numbers, in standard deviations."""


@dataclass(frozen=True, slots=True)
class Slow:
    """A rank that is behind."""

    rank: int
    stage: str
    ratio: float
    """Its time over the gang's median."""
    seconds: float
    """Per step, more than the median."""


class Detector:
    """One gang's."""

    def __init__(self) -> None:
        self._noise: dict[str, float] = {}
        self._ratios: dict[tuple[int, str], deque[float]] = {}
        self._windows = 0

    def window(self, means: Mapping[int, Mapping[str, float]]) -> list[Slow]:
        """The ranks that are slow by now. ``means``: rank -> stage -> seconds per step."""
        self._windows += 1
        found: list[Slow] = []
        stages = {stage for of_rank in means.values() for stage in of_rank}
        for stage in sorted(stages):
            found += self._stage(stage, {r: m[stage] for r, m in means.items() if stage in m})
        return found if self._windows > LEARNING else []

    def _stage(self, stage: str, seconds: Mapping[int, float]) -> list[Slow]:
        # Of two, the faster one is the measure: a median between them would hide the other.
        middle = statistics.median_low(seconds.values()) if len(seconds) > 1 else 0.0
        if middle <= 0:
            return []
        changes = []
        for rank, value in seconds.items():
            ratios = self._ratios.setdefault((rank, stage), deque(maxlen=WINDOWS))
            ratios.append(math.log(max(value, middle / 100) / middle))
            changes += [abs(ratios[-1] - ratios[-2])] if len(ratios) > 1 else []
        self._learn(stage, changes)
        noise = self._noise.get(stage, 0.0) / math.sqrt(WINDOWS)
        limit = max(math.log(LEAST_RATIO), DEVIATIONS * noise)
        return [
            Slow(rank, stage, math.exp(level), value - middle)
            for rank, value in seconds.items()
            if len(ratios := self._ratios[rank, stage]) == WINDOWS
            and (level := statistics.fmean(ratios)) > limit
        ]

    def _learn(self, stage: str, changes: Sequence[float]) -> None:
        if not changes:
            return
        # The median's own rank never changes, so that few ranks show less noise than there is. Of
        # many the largest change is left out: it may be one that stays.
        told = sorted(changes)[:-1] if len(changes) > FEW else [max(changes)]
        now = statistics.fmean(told) / _STEP_OF_NORMAL
        weight = max(_MEMORY, 1.0 / max(1, self._windows - 1))
        before = self._noise.get(stage, 0.0)
        self._noise[stage] = before + weight * (now - before)


class Watch:
    """Turns what heartbeats tell into windows."""

    def __init__(self) -> None:
        self._detector = Detector()
        self._epoch = 0
        self._began = 0.0
        self._then: dict[int, tuple[int, Mapping[str, float]]] = {}
        self.slow: list[Straggler] = []
        """As of the last window; the slowest, as many as are told."""

    def look(self, seats: Sequence[Seat], epoch: int, now: float) -> list[Straggler]:
        """Those that are slow and were not before. ``now``: monotonic seconds."""
        if epoch != self._epoch:
            self._epoch, self._began, self._then = epoch, now, _totals(seats, epoch)
            return []
        if now - self._began < WINDOW_SECONDS:
            return []
        totals = _totals(seats, epoch)
        means = {
            rank: {name: (value - before[name]) / (step - first) for name, value in spent.items()}
            for rank, (step, spent) in totals.items()
            if (then := self._then.get(rank)) is not None
            and (first := then[0]) <= step - LEAST_STEPS
            and (before := then[1]).keys() == spent.keys()
        }
        self._began, self._then = now, totals
        known = {(item.rank, item.stage) for item in self.slow}
        if len(means) == len(totals):
            worst = sorted(self._detector.window(means), key=lambda item: -item.ratio)[:TOLD]
            self.slow = [_told(item, _node(seats, item.rank)) for item in worst]
        return [item for item in self.slow if (item.rank, item.stage) not in known]


def _told(item: Slow, node: str) -> Straggler:
    more = f"{1000 * item.seconds:.0f} ms" if item.seconds < 1 else f"{item.seconds:.1f} s"
    message = (
        f"rank {item.rank} on node {node} is slow: {item.ratio:.1f} times the gang's median in "
        f"{item.stage}, {more} more per step"
    )
    ratio = round(item.ratio, 2)
    return Straggler(rank=item.rank, node=node, stage=item.stage, ratio=ratio, message=message)


def _node(seats: Sequence[Seat], rank: int) -> str:
    return next(
        (
            seat.node
            for seat in seats
            if seat.beat is not None and any(status.rank == rank for status in seat.beat.ranks)
        ),
        "",
    )


def _totals(seats: Sequence[Seat], epoch: int) -> dict[int, tuple[int, Mapping[str, float]]]:
    """Rank -> (steps done, seconds so far by stage)."""
    return {
        status.rank: (status.step, status.alone_seconds)
        for seat in seats
        if seat.beat is not None and seat.started(epoch)
        for status in seat.beat.ranks
        if status.step is not None and status.alone_seconds and status.exit is None
    }
