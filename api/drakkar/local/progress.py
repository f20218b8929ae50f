"""Telling what is going on while it takes long, on a terminal and in a log alike."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from rich.console import Console
from rich.progress import Progress as RichProgress
from rich.progress import SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn


class Step(Protocol):
    """One thing under way."""

    def update(self, done: int, total: int) -> None:
        """Say how far it has come."""


class Progress(Protocol):
    """Where steps and remarks are shown. Steps may run in several threads at once."""

    def step(self, title: str) -> AbstractContextManager[Step]:
        """Show a step from entering the context until leaving it."""

    def note(self, text: str) -> None:
        """Show a remark."""


class _SilentStep:
    def update(self, done: int, total: int) -> None:
        pass


class Silent:
    """Shows nothing: for tests and for use as a library."""

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        del title
        yield _SilentStep()

    def note(self, text: str) -> None:
        del text


@dataclass
class _LineStep:
    title: str
    shown: float = field(default_factory=time.monotonic)

    def update(self, done: int, total: int) -> None:
        if time.monotonic() - self.shown >= 20:
            self.shown = time.monotonic()
            print(f"  {self.title}: {done} of {total}", file=sys.stderr, flush=True)


class Lines:
    """One plain line as each step ends: for logs and CI."""

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        start = time.monotonic()
        try:
            yield _LineStep(title)
        except BaseException:
            print(f"failed: {title}", file=sys.stderr, flush=True)
            raise
        print(f"{title} ({time.monotonic() - start:.1f} s)", file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


@dataclass
class _LiveStep:
    live: RichProgress
    task: TaskID

    def update(self, done: int, total: int) -> None:
        self.live.update(self.task, amount=f"{done}/{total}")


class Live:
    """Spinners with elapsed times on a terminal; use it as a context."""

    def __init__(self, console: Console) -> None:
        self._progress = RichProgress(
            SpinnerColumn(finished_text="[green]✓[/]"),
            TextColumn("{task.description}"),
            TextColumn("[dim]{task.fields[amount]}"),
            TimeElapsedColumn(),
            console=console,
        )

    def __enter__(self) -> Live:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        task = self._progress.add_task(title, total=1, amount="")
        try:
            yield _LiveStep(self._progress, task)
        except BaseException:
            self._progress.update(task, description=f"[red]✗[/] {title}")
            self._progress.stop_task(task)
            raise
        self._progress.update(task, completed=1)

    def note(self, text: str) -> None:
        self._progress.console.print(text)


@contextmanager
def show_progress() -> Iterator[Progress]:
    """Spinners on a terminal, plain lines elsewhere; both on stderr."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Lines()
        return
    with Live(console) as live:
        yield live
