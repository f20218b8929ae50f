"""A job's life as lines and as a live panel: pure functions of its objects."""

from collections.abc import Iterator
from datetime import UTC, datetime

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from drakkar.cli.show import duration, number
from drakkar.v1alpha1 import TrainingJob
from drakkar.v1alpha1.trainingjob import Goodput, Placement, Progress, Restart

STYLES = {
    "Pending": "yellow",
    "Starting": "cyan",
    "Running": "green",
    "Recovering": "yellow",
    "Suspended": "magenta",
    "Complete": "bold green",
    "Failed": "bold red",
}


UNSEEN = "Drakkar's operator has not seen the job yet; if that lasts, is it running?"


def finished(job: TrainingJob) -> bool:
    """The job runs no more."""
    return job.is_true("Complete") or job.is_true("Failed")


def exit_code(job: TrainingJob) -> int:
    """0 if the job is Complete, else 1."""
    return 0 if job.is_true("Complete") else 1


def reason(job: TrainingJob) -> str:
    """Why the job is not running, in the operator's words; "" if it runs."""
    for kind in ("Failed", "Suspended"):
        condition = job.condition(kind)
        if condition and condition.status == "True":
            return condition.message or condition.reason
    if job.status.pending_reason:
        return job.status.pending_reason
    admitted = job.condition("Admitted")
    if admitted and admitted.status == "False":
        return admitted.message or admitted.reason
    if not job.status.conditions and not job.status.phase:
        return UNSEEN
    return ""


def speed(progress: Progress) -> str:
    """Step, loss and speed in one line."""
    parts = [f"step {progress.step}/{progress.total_steps}"]
    if progress.loss is not None:
        parts.append(f"loss {number(progress.loss)}")
    if progress.eval_loss is not None:
        parts.append(f"held-out loss {number(progress.eval_loss)}")
    if progress.tokens_per_second is not None:
        parts.append(f"{number(progress.tokens_per_second)} tokens/s")
    if progress.mfu is not None:
        parts.append(f"MFU {progress.mfu:.1%}")
    if progress.goodput is not None:
        parts.append(f"goodput {progress.goodput:.0%}")
    if progress.eta_seconds is not None and progress.step < progress.total_steps:
        parts.append(f"{duration(progress.eta_seconds)} left")
    return ", ".join(parts)


def restart_line(restart: Restart) -> str:
    """One interruption in one line."""
    where = f" of replica {restart.replica}" if restart.replica is not None else ""
    on = f" on {restart.node}" if restart.node else ""
    free = "" if restart.counted else " (not counted)"
    text = f"{restart.scope}{where}{on}: {restart.reason}{free}{_cost(restart)}"
    return f"{text}: {restart.message}" if restart.message else text


def _cost(restart: Restart) -> str:
    """What it took, once that is known."""
    if restart.seconds_lost is None:
        return ""
    steps = f", {restart.steps_lost} steps again" if restart.steps_lost else ""
    source = f", from {restart.resumed_from}" if restart.resumed_from else ""
    return f" [{restart.seconds_lost:.1f} s{steps}{source}]"


def goodput_line(goodput: Goodput) -> str:
    """'83% of 5m12s (recovery 9%, start 5%, lost 2%)'."""
    wall = max(goodput.wall_seconds, 1e-9)
    names = ("queue", "start", "compile", "checkpoint", "lost", "recovery", "other")
    shares = sorted((getattr(goodput, f"{name}_seconds") / wall, name) for name in names)
    rest = ", ".join(f"{name} {share:.0%}" for share, name in reversed(shares) if share >= 0.005)
    return f"{goodput.ratio:.0%} of {duration(goodput.wall_seconds)}" + (
        f" ({rest})" if rest else ""
    )


def placement_lines(job: TrainingJob) -> Iterator[tuple[str, str]]:
    """(node, replicas on it) of a job, in order of replica."""
    return spots(job.status.placement) if job.status.placement else iter(())


def spots(placement: Placement) -> Iterator[tuple[str, str]]:
    """(node, replicas on it), in order of replica."""
    nodes: dict[str, list[int]] = {}
    for index, node in enumerate(placement.nodes):
        nodes.setdefault(node, []).append(index)
    for node, replicas in nodes.items():
        yield node, _ranges(replicas)


def _ranges(numbers: list[int]) -> str:
    """Ascending numbers as ranges: 0-3, 6."""
    parts: list[str] = []
    start = previous = numbers[0]
    for value in [*numbers[1:], None]:
        if value is not None and value == previous + 1:
            previous = value
            continue
        parts.append(f"{start}-{previous}" if previous > start else str(start))
        if value is not None:
            start = previous = value
    return ", ".join(parts)


def changes(before: TrainingJob | None, job: TrainingJob) -> list[str]:
    """What is new since the object was last seen, one line each, oldest first."""
    lines: list[str] = []
    old = before.status if before else None
    status = job.status
    known = {item.id for item in old.restarts} if old else set()
    lines.extend(
        f"restart: {restart_line(item)}" for item in status.restarts if item.id not in known
    )
    if status.placement and (not old or status.placement != old.placement):
        spots = "; ".join(f"{node}: {replicas}" for node, replicas in placement_lines(job))
        place = status.placement
        lines.append(f"placed in {place.level} {place.domain} ({spots})")
    steps = {item.step for item in old.checkpoints} if old else set()
    new = [item.step for item in status.checkpoints if item.step not in steps]
    lines.extend(f"checkpoint at step {step}" for step in new)
    text = reason(job)
    if not before and text == UNSEEN:
        return ["waiting for Drakkar's operator"]
    if status.phase and (not old or status.phase != old.phase):
        lines.append(status.phase + (f": {text}" if text else ""))
    elif text and (not before or text != reason(before)):
        lines.append(f"waiting: {text}" if status.phase == "Pending" else text)
    return lines


def panel(job: TrainingJob, now: datetime | None = None) -> RenderableType:
    """The live picture of a job: progress, where it runs, what happened."""
    moment = now or datetime.now(UTC)
    status = job.status
    phase = status.phase or "Pending"
    head = Text.assemble(
        (job.name, "bold"),
        "  ",
        (phase, STYLES.get(phase, "")),
        f"  {status.ready_replicas or 0}/{job.replicas} ready",
        f"  {status.restart_count} restarts",
    )
    if job.metadata.creation_timestamp:
        head.append(f"  {duration((moment - job.metadata.creation_timestamp).total_seconds())}")
    parts: list[RenderableType] = [head]
    if progress := status.progress:
        parts.append(ProgressBar(total=progress.total_steps, completed=progress.step, width=60))
        parts.append(Text(speed(progress)))
    if text := reason(job):
        parts.append(Text(text, style="yellow"))
    if status.placement:
        where = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
        where.add_column("NODE")
        where.add_column("REPLICAS")
        for node, replicas in placement_lines(job):
            where.add_row(escape(node), replicas)
        parts.append(where)
    return Group(*parts)
