"""What an agent does with its own trainers: pure, from what it knows of them and its orders."""

import signal
from dataclasses import dataclass

from drakkar.exitcodes import ExitCode
from drakkar_workers.agent.timing import Timing
from drakkar_workers.agent.wire import Command

UNKILLABLE_SECONDS = 5.0
"""After SIGKILL: who still runs then is held by the kernel, and not even its agent can wait."""
DUMP_SECONDS = 0.3
"""For trainers to write their stacks before they are killed."""
TERMINATED = 128 + signal.SIGTERM
"""Exit code of an agent whose trainers did not save their state in time, as a shell reports it."""


@dataclass(frozen=True, slots=True)
class Situation:
    """Times are monotonic seconds."""

    ready: bool
    alive: bool
    epoch: int
    """Of the trainers that run or ran last; 0 if there were none."""
    command: Command | None
    contact: float
    """When the coordinator last answered."""
    leaving_since: float | None = None
    """When SIGTERM came."""
    saved: bool = True
    """Every trainer that ran at SIGTERM ended with its state saved."""
    dumped_at: float | None = None
    """When these trainers were asked for their stacks."""
    sent: int | None = None
    """Last signal these trainers were sent, of SIGTERM and SIGKILL."""
    sent_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Start:
    """Start the trainers of an epoch."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Dump:
    """Have the trainers write their stacks."""


@dataclass(frozen=True, slots=True)
class Send:
    """Send the trainers a signal."""

    signal: int


@dataclass(frozen=True, slots=True)
class Quit:
    """Exit; no trainer runs, or none that could be killed."""

    code: int


Step = Start | Dump | Send | Quit


def decide(now: Situation, time: float, timing: Timing) -> Step | None:
    """The next thing to do, None if it is to wait."""
    command = now.command
    if command is not None and command.action in ("finish", "fail", "leave"):
        killed = now.sent == signal.SIGKILL and time - now.sent_at > UNKILLABLE_SECONDS
        if now.alive and not killed:
            return _stop(now, time, timing)
        return Quit(command.exit_code)
    # Whoever cannot hear the coordinator may have been replaced: its trainers must not go on.
    unheard = command is None or time - now.contact > timing.peer_timeout
    if now.leaving_since is not None:
        if not now.alive:
            return Quit(ExitCode.CHECKPOINTED if now.saved else TERMINATED)
        if command is not None and command.action == "wait" and not unheard:
            return _stop(now, time, timing)
        if time - now.leaving_since > timing.grace:
            return _send(now, signal.SIGKILL)
        return _send(now, signal.SIGTERM) if now.sent is None else None
    if unheard or command is None or command.action != "start":
        return _stop(now, time, timing) if now.alive else None
    if now.alive:
        return _stop(now, time, timing) if now.epoch != command.epoch else None
    return Start(command.epoch) if now.ready and now.epoch < command.epoch else None


def _stop(now: Situation, time: float, timing: Timing) -> Step | None:
    if now.command is not None and now.command.dump_stacks:
        if now.dumped_at is None:
            return Dump()
        if time - now.dumped_at < DUMP_SECONDS:
            return None
    if timing.kill_delay <= 0:
        return _send(now, signal.SIGKILL)
    if now.sent is None:
        return _send(now, signal.SIGTERM)
    return _send(now, signal.SIGKILL) if time - now.sent_at >= timing.kill_delay else None


def _send(now: Situation, number: int) -> Step | None:
    return Send(number) if now.sent != number else None
