"""Losses that are no numbers or jump: judged before the optimizer takes them, so that nothing is lost.

Every rank has the same loss and gradient norm after the all-reduce and so decides the same. A batch that
is passed over leaves the state as it was. Where several in a row look wrong the state itself is: then
the training goes back to the checkpoint before, past all of them.

False alarms are bounded whatever the losses do: a batch is passed over only as long as at most one in
``PER_BATCHES`` is, on average.
"""

import math
import statistics
from collections import deque
from dataclasses import dataclass
from typing import Literal

from drakkar.v1alpha1.recipes.guard import GuardConfig

WINDOW = 64
"""Losses from which the next one is foretold."""
ENOUGH = 24
"""So many must be known before one is called a spike."""
PER_BATCHES = 50
MAD_TO_SIGMA = 1.4826
"""Of the median absolute deviation, for normally distributed values."""
SLACK = 0.05
"""Of the median: noise below it is no spike, however even the losses were."""

Kind = Literal["NonFiniteLoss", "LossSpike"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do with a batch that looks wrong."""

    act: Literal["tell", "pass over", "go back", "fail"]
    kind: Kind
    message: str


class Guard:
    """Judges the batches of one training, in order; learns from those that it lets pass."""

    def __init__(self, config: GuardConfig) -> None:
        self._config = config
        self._losses: deque[float] = deque(maxlen=WINDOW)
        self._in_a_row = 0
        self._credit = float(config.in_a_row + 1)
        """Batches that may be passed over now."""

    def judge(self, loss: float, norm: float) -> Verdict | None:
        """None if the batch is as good as those before it. ``norm`` is the gradient's."""
        kind, message = self._look(loss, norm)
        if kind is None:
            self._in_a_row = 0
            self._credit = min(self._credit + 1 / PER_BATCHES, self._config.in_a_row + 1.0)
            self._losses.append(loss)
            return None
        wish = self._config.non_finite if kind == "NonFiniteLoss" else self._config.spike
        if wish == "tell":
            # The next ones are measured by it too: a new level is told a few times, not for ever.
            self._losses.append(loss)
            return Verdict("tell", kind, message)
        if wish == "fail" or (kind == "NonFiniteLoss" and self._credit < 1):
            return Verdict("fail", kind, message)
        if self._credit < 1:
            self._losses.append(loss)
            text = f"{message}; not passed over: too many batches were"
            return Verdict("tell", kind, text)
        self._credit -= 1
        self._in_a_row += 1
        if self._in_a_row > self._config.in_a_row:
            text = f"{message}; {self._in_a_row} in a row: the state is wrong, not the data"
            return Verdict("go back", kind, text)
        return Verdict("pass over", kind, message)

    def _look(self, loss: float, norm: float) -> tuple[Kind | None, str]:
        if not (math.isfinite(loss) and math.isfinite(norm)):
            return "NonFiniteLoss", f"loss is {loss}, gradient norm {norm}"
        if self._config.spike == "off" or len(self._losses) < ENOUGH:
            return None, ""
        middle = statistics.median(self._losses)
        spread = MAD_TO_SIGMA * statistics.median(abs(x - middle) for x in self._losses)
        limit = middle + max(self._config.sigmas * spread, SLACK * abs(middle))
        if loss <= limit:
            return None, ""
        return "LossSpike", (
            f"loss {loss:.4g} is above {limit:.4g}; median of the last {len(self._losses)} losses "
            f"{middle:.4g}, their spread {spread:.2g}"
        )
