"""Watching jobs until they end: live on a terminal, line by line elsewhere."""

import time
from datetime import datetime

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape

from drakkar.cli import progress
from drakkar.client import Client, NotFoundError, WatchEvent
from drakkar.v1alpha1 import TrainingJob

_QUIET_SECONDS = 5.0
"""Lines of progress come no closer than this; changes of state come at once."""


def until_finished(client: Client, namespace: str, name: str, console: Console) -> TrainingJob:
    """Show a job until it is Complete or Failed, and return it as it ended."""
    events = client.training_jobs.watch(namespace, name=name)
    if not console.is_terminal:
        return _lines(events, name, console)
    with Live(console=console, refresh_per_second=4, transient=False) as live:
        before: TrainingJob | None = None
        for event in events:
            job = _existing(event, name)
            for line in progress.changes(before, job):
                live.console.print(f"[dim]{datetime.now():%H:%M:%S}[/]  {escape(line)}")
            live.update(Group(progress.panel(job)))
            before = job
            if progress.finished(job):
                return job
    raise AssertionError("a watch ends only with its job")


def _lines(events: object, name: str, console: Console) -> TrainingJob:
    before: TrainingJob | None = None
    spoke = 0.0
    for event in events:  # type: ignore[attr-defined]
        job = _existing(event, name)
        stamp = f"{datetime.now():%H:%M:%S}"
        for line in progress.changes(before, job):
            console.print(f"{stamp}  {escape(line)}")
        current, last = job.status.progress, before.status.progress if before else None
        moved = current is not None and (last is None or current.step != last.step)
        ended = progress.finished(job)
        if current and moved and (ended or time.monotonic() - spoke >= _QUIET_SECONDS):
            console.print(f"{stamp}  {progress.speed(current)}")
            spoke = time.monotonic()
        before = job
        if ended:
            return job
    raise AssertionError("a watch ends only with its job")


def _existing(event: WatchEvent[TrainingJob], name: str) -> TrainingJob:
    if event.type == "DELETED":
        raise NotFoundError(f"TrainingJob {name} was deleted while it was being watched.")
    return event.object
