"""What a rank tells: lines for people, metrics.jsonl for programs, datagrams for the agent."""

import json
import sys
import time
from pathlib import Path
from typing import Any, Literal

from drakkar_workers import channel

LINE_SECONDS = 1.0
"""At most one progress line in this time."""
PULSE_SECONDS = 1.0
"""Between two words of a rank that is busy with something long."""


class Reporter:
    """Speaks for one rank; only rank 0 prints progress and writes metrics."""

    def __init__(self, *, rank: int, epoch: int, total_steps: int, metrics: Path | None) -> None:
        self.rank = rank
        self._epoch = epoch
        self._total = total_steps
        self._metrics = metrics if rank == 0 else None
        self._last_line = 0.0
        self._phase: channel.PhaseName = "starting"
        self._told = 0.0
        self._measures: dict[str, float] = {}

    def say(self, text: str) -> None:
        """A line that this rank alone has to tell."""
        print(text if self.rank == 0 else f"[rank {self.rank}] {text}", flush=True)

    def warn(self, text: str) -> None:
        """A line on stderr: something is not as it should be, but the training goes on."""
        print(f"[rank {self.rank}] warning: {text}", file=sys.stderr, flush=True)

    def phase(self, phase: channel.PhaseName) -> None:
        """What this rank does from now on."""
        self._phase, self._told = phase, time.monotonic()
        channel.send_phase(rank=self.rank, phase=phase)

    def pulse(self) -> None:
        """Say that the work goes on, at most once a second: silence is taken for a hang.

        Only to be called where something was done since the last call.
        """
        if time.monotonic() - self._told >= PULSE_SECONDS:
            self.phase(self._phase)

    def step(
        self,
        *,
        step: int,
        loss: float,
        tokens_per_second: float,
        mfu: float | None,
        step_seconds: float,
        productive_seconds: float,
        stall_seconds: float,
        started: float,
    ) -> None:
        """A step is done; ``loss`` in nats per token, over all ranks."""
        channel.send_step(
            rank=self.rank,
            step=step,
            total_steps=self._total,
            loss=loss,
            tokens_per_second=tokens_per_second,
            mfu=mfu,
            step_seconds=step_seconds,
            productive_seconds=productive_seconds,
            stall_seconds=stall_seconds,
            started=started,
        )
        if self.rank:
            return
        rate = round(tokens_per_second, 1)
        self.record(step=step, loss=loss, tokens_per_second=rate, **self._measures)
        self._measures = {}
        now = time.monotonic()
        if now - self._last_line >= LINE_SECONDS or step == self._total:
            self._last_line = now
            use = f"  {mfu:.1%} MFU" if mfu is not None else ""
            self.say(
                f"step {step}/{self._total}  loss {loss:.3f}  {thousands(tokens_per_second)} tok/s{use}"
            )

    def measure(self, **values: float) -> None:
        """What else is to be recorded of the step that is being made."""
        self._measures |= {name: round(value, 4) for name, value in values.items()}

    def resume(self, step: int, source: Literal["memory", "storage", "start"], text: str) -> None:
        """What the training goes on from."""
        if self.rank == 0:
            channel.send_resume(step=step, source=source)
        self.say(text)

    def evaluation(self, *, step: int, loss: float, baseline: float | None) -> None:
        """The held-out loss after a step, beside that of a model that only counts tokens."""
        if self.rank:
            return
        channel.send_eval(step=step, eval_loss=loss)
        self.record(step=step, eval_loss=loss)
        beside = f" (unigram {baseline:.3f})" if baseline is not None else ""
        self.say(f"step {step}/{self._total}  held-out loss {loss:.3f}{beside}")

    def checkpoint(self, *, step: int, path: str, seconds: float) -> None:
        """A checkpoint is published at ``path`` below the volume."""
        if self.rank:
            return
        channel.send_checkpoint(step=step, path=path)
        self.say(f"checkpoint of step {step}: {path} ({seconds:.2f} s)")

    def trouble(self, reason: str, message: str) -> None:
        """Something failed although the training goes on."""
        self.warn(message)
        channel.send_error(rank=self.rank, reason=reason, message=message)

    def anomaly(self, *, step: int, batch: int, reason: str, message: str, act: str) -> None:
        """A loss that is not as those before, and what was done about it."""
        if self.rank:
            return
        self.trouble(
            reason, f"{message}; the batch is {'used' if act == 'tell' else 'passed over'}"
        )
        self.record(step=step, batch=batch, anomaly=reason, act=act)

    def sample(self, text: str) -> None:
        """Text that the model wrote."""
        channel.send_sample(text=text)
        self.say(f"sample: {text}")

    def record(self, **fields: Any) -> None:
        """Append a line to metrics.jsonl; a full disk costs the line, not the training."""
        if self._metrics is None:
            return
        line = json.dumps({"time": round(time.time(), 3), "epoch": self._epoch, **fields})
        try:
            with self._metrics.open("a") as file:
                file.write(line + "\n")
        except OSError as error:
            self.warn(f"{self._metrics} can't be written: {error.strerror}; no metrics from now on")
            self._metrics = None


def thousands(value: float) -> str:
    """12345.6 as 12.3k."""
    return f"{value / 1000:.1f}k" if value >= 1000 else f"{value:.0f}"
