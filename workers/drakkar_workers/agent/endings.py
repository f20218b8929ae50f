"""Reasons for a gang's epoch to end, each read from the replicas' seats. Times are monotonic seconds."""

from collections.abc import Collection, Sequence
from dataclasses import replace

from drakkar.exitcodes import ExitCode
from drakkar_workers.agent import causes
from drakkar_workers.agent.causes import Cause, RankExit
from drakkar_workers.agent.seat import Seat


def lost(seats: Sequence[Seat], epoch: int, now: float) -> Cause | None:
    """Replicas were not heard for too long; whoever has completed its part is not needed any more."""
    silent = [seat for seat in seats if not seat.fresh(now) and not seat.completed(epoch)]
    if not silent:
        return None
    who = causes.names("replica", [seat.replica for seat in silent])
    return causes.pod(f"{who} not heard for {silent[0].timeout:g} s")


def crashed(exits: Collection[RankExit]) -> Cause | None:
    """A process ended that should not have."""
    first = causes.culprit(exits)
    if first is not None:
        return causes.crash(first)
    alone = sorted({end.replica for end in exits if end.exit.stopped})
    return causes.pod(f"{causes.names('replica', alone)} stopped by itself") if alone else None


def draining(seats: Sequence[Seat], exits: Collection[RankExit], epoch: int) -> bool:
    """Ranks leave with their state saved, and those whose pod got SIGTERM have left.

    All ranks save and leave together: they are given the time.
    """
    leavers = [seat for seat in seats if seat.leaving]
    if not leavers and not _saved(exits):
        return False
    return not any(seat.alive and seat.started(epoch) for seat in leavers)


def drained(seats: Sequence[Seat], epoch: int) -> bool:
    """All have started and ended."""
    return not any(seat.alive or not seat.started(epoch) for seat in seats)


def departure(seats: Sequence[Seat], exits: Collection[RankExit]) -> Cause:
    """Why a gang that drains ends its epoch."""
    leavers = [seat.replica for seat in seats if seat.leaving]
    if leavers:
        return causes.pod(f"the pod of {causes.names('replica', leavers)} is being terminated")
    return causes.left(_saved(exits))


def hung(seats: Sequence[Seat], epoch: int, silence: float) -> Cause:
    """No rank showed life for ``silence`` seconds."""
    ranks = [
        (seat.replica, seat.beat.node, status)
        for seat in seats
        if seat.beat is not None and seat.started(epoch)
        for status in seat.beat.ranks
        if status.exit is None
    ]
    return causes.hang(ranks, silence)


def with_stacks(cause: Cause, seats: Sequence[Seat]) -> Cause:
    """The cause, its evidence with the stacks that ranks have written before they were stopped."""
    stacks = {
        f"rank {status.rank} on ": " < ".join(status.stack)
        for seat in seats
        if seat.beat is not None
        for status in seat.beat.ranks
        if status.stack
    }
    lines = []
    for line in cause.evidence:
        found = next((stack for start, stack in stacks.items() if line.startswith(start)), None)
        lines.append(f"{line}; {found}"[: causes.EVIDENCE_LIMIT] if found else line)
    return replace(cause, evidence=tuple(lines))


def _saved(exits: Collection[RankExit]) -> list[int]:
    return [end.rank for end in exits if end.exit.code == ExitCode.CHECKPOINTED]
