"""The gang's progress from what its trainers tell."""

import math

from drakkar.v1alpha1.trainingjob import CheckpointRecord, Progress
from drakkar_workers.agent.clock import Clock
from drakkar_workers.channel import (
    CheckpointMessage,
    EvalMessage,
    Message,
    SampleMessage,
    StepMessage,
)

_SMOOTHING = 0.1
"""Weight of the newest step in the mean step time that the estimate of the end rests on."""


class ProgressBook:
    """Newest figures of rank 0; times are the clock's seconds."""

    def __init__(self, clock: Clock, keep_checkpoints: int) -> None:
        self._clock = clock
        self._keep = keep_checkpoints
        self._last: StepMessage | None = None
        self._eval_loss: float | None = None
        self._sample: str | None = None
        self.step_seconds: float | None = None
        """Of late, smoothed."""
        self.checkpoints: list[CheckpointRecord] = []
        """Oldest first, as many as are kept on the volume."""

    def take(self, message: Message, now: float) -> bool:
        """Note a message of rank 0. True if it is an event, rather than mere progress."""
        match message:
            case StepMessage():
                self._note_pace(message)
                self._last = message
                return False
            case EvalMessage():
                self._eval_loss = message.eval_loss
                return False
            case SampleMessage():
                self._sample = message.text
                return True
            case CheckpointMessage():
                record = CheckpointRecord(
                    step=message.step, path=message.path, time=self._clock.date(now)
                )
                # A step that is done again after a restart is published again.
                others = [item for item in self.checkpoints if item.path != message.path]
                self.checkpoints = sorted([*others, record], key=lambda item: item.step)
                del self.checkpoints[: -self._keep]
                return True
            case _:
                return False

    def snapshot(self, goodput: float | None = None) -> Progress | None:
        """The progress, None before the first step; ``goodput`` is told as it is."""
        last = self._last
        if last is None:
            return None
        remaining = max(0, last.total_steps - last.step)
        return Progress(
            step=last.step,
            total_steps=last.total_steps,
            loss=last.loss,
            eval_loss=self._eval_loss,
            tokens_per_second=last.tokens_per_second,
            mfu=last.mfu,
            goodput=goodput,
            eta_seconds=(
                math.ceil(min(1e12, remaining * self.step_seconds))
                if self.step_seconds is not None
                else None
            ),
            sample=self._sample,
        )

    def _note_pace(self, message: StepMessage) -> None:
        if message.step_seconds is None or message.step_seconds < 0:
            return
        if self.step_seconds is None:
            self.step_seconds = message.step_seconds
        else:
            self.step_seconds += _SMOOTHING * (message.step_seconds - self.step_seconds)
