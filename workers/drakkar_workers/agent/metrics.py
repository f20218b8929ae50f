"""What Prometheus scrapes from an agent; gathered at the scrape, so that nothing is kept twice."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from drakkar.protocol import BOOKS, Book, LedgerState
from drakkar_workers.channel import StepMessage


@dataclass(frozen=True, slots=True)
class Figures:
    """The agent's numbers as of now; times are seconds."""

    epoch: int
    starts: int
    processes: int
    ready: bool
    coordinator_silence: float
    steps: dict[int, StepMessage]
    """Newest of each local rank."""
    eval_loss: float | None
    exits: dict[str, int]
    """Trainers that ended, by how: completed, checkpointed, stopped, failed."""
    restarts: dict[str, int] | None = None
    """In-place restarts of the gang by reason; coordinator only."""
    longest_silence: float | None = None
    """Since the replica was heard that was not heard for longest; coordinator only."""
    goodput: float | None = None
    seconds: LedgerState | None = None
    """Where the gang's time went; coordinator only."""
    memory_bytes: int | None = None
    """That checkpoints in memory take here; None if there are none."""
    copied_bytes: int | None = None
    """Of them, sent to a peer."""


class _Collector(Collector):
    def __init__(self, figures: Callable[[], Figures]) -> None:
        self._figures = figures

    def collect(self) -> Iterable[Metric]:
        now = self._figures()
        yield _gauge("drakkar_agent_epoch", "Epoch of the trainers of this pod.", now.epoch)
        yield _gauge("drakkar_agent_trainers", "Trainer processes that run.", now.processes)
        yield _gauge("drakkar_agent_ready", "1 if trainers can be started at once.", now.ready)
        yield _gauge(
            "drakkar_agent_coordinator_silence_seconds",
            "Since the gang's coordinator last answered.",
            now.coordinator_silence,
        )
        starts = CounterMetricFamily(
            "drakkar_agent_starts", "Times that the trainers of this pod were started."
        )
        starts.add_metric([], now.starts)
        yield starts
        yield _counts(
            "drakkar_agent_trainer_exits", "Trainer processes that ended.", "outcome", now.exits
        )
        yield from _training(now)
        if now.restarts is not None:
            yield _counts(
                "drakkar_gang_restarts", "In-place restarts of the gang.", "reason", now.restarts
            )
        if now.longest_silence is not None:
            yield _gauge(
                "drakkar_gang_heartbeat_age_seconds",
                "Since the replica was heard that was not heard for longest.",
                now.longest_silence,
            )
        if now.seconds is not None:
            spent = {book: getattr(now.seconds, f"{book}_seconds") for book in BOOKS}
            yield _amounts("drakkar_gang_seconds", "Where the gang's time goes.", "book", spent)
        if now.memory_bytes is not None:
            yield _gauge(
                "drakkar_agent_memory_checkpoint_bytes",
                "Memory of checkpoints, own ones and copies of a peer's.",
                now.memory_bytes,
            )
        if now.copied_bytes is not None:
            sent = CounterMetricFamily(
                "drakkar_agent_copied_bytes", "Of checkpoints in memory, sent to a peer."
            )
            sent.add_metric([], now.copied_bytes)
            yield sent
        if now.goodput is not None:
            yield _gauge(
                "drakkar_gang_goodput_ratio", "Time in steps that count over time.", now.goodput
            )


def registry(figures: Callable[[], Figures]) -> CollectorRegistry:
    """A registry of its own: the process-wide one would mix agents in tests."""
    found = CollectorRegistry()
    found.register(_Collector(figures))
    return found


def _training(now: Figures) -> Iterable[Metric]:
    by_rank = {
        "drakkar_training_step": ("Optimizer steps done.", "step"),
        "drakkar_training_step_seconds": ("Duration of the newest step.", "step_seconds"),
    }
    for name, (text, field) in by_rank.items():
        family = GaugeMetricFamily(name, text, labels=["rank"])
        for rank, message in sorted(now.steps.items()):
            if (value := getattr(message, field)) is not None:
                family.add_metric([str(rank)], value)
        yield family
    # The rest is the whole gang's, told by rank 0 alone so that sums over pods are right.
    first = now.steps.get(0)
    if first is None:
        return
    for name, text, value in (
        ("drakkar_training_total_steps", "Steps to do.", first.total_steps),
        ("drakkar_training_loss", "Training loss, nats per token.", first.loss),
        ("drakkar_training_eval_loss", "Held-out loss, nats per token.", now.eval_loss),
        ("drakkar_training_tokens_per_second", "Of the gang.", first.tokens_per_second),
        ("drakkar_training_mfu_ratio", "Model FLOP/s utilisation.", first.mfu),
    ):
        if value is not None:
            yield _gauge(name, text, value)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=float(value))


def _amounts(name: str, text: str, label: str, values: dict[Book, float]) -> GaugeMetricFamily:
    # A gauge, since time moves from one book to another when steps turn out to be lost.
    family = GaugeMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _counts(name: str, text: str, label: str, values: dict[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=[label])
    for key, value in sorted(values.items()):
        family.add_metric([key], value)
    return family
