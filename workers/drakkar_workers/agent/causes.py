"""Why a gang's trainers ended: which rank failed first, and how to say it."""

import re
import signal
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from drakkar.exitcodes import ExitCode
from drakkar.v1alpha1.trainingjob import Restart
from drakkar_workers.agent.wire import Exit, RankStatus

_FOLLOW_UP = re.compile(
    r"PeerLost|gloo|nccl|rendezvous|process ?group|TCPStore|Dist\w*Error"
    r"|connection (was )?(closed|reset|refused|aborted)|broken pipe|timed out",
    re.IGNORECASE,
)
"""Errors of a rank whose peer went away, as torch.distributed and its transports word them."""


OUT_OF_MEMORY_ADVICE = (
    "raise spec.resources.limits.memory, or have fewer checkpoints in memory "
    "(spec.checkpoint.memoryEverySteps: 0)"
)
DEVICE_MEMORY_ADVICE = (
    "a smaller batchSize, or a larger gradientAccumulation, takes less memory of the device"
)
HUNG = "ProcessHung"
STUCK = "ProcessStuck"
SUPERSEDED = "Superseded"
"""What a trainer tells that has found its checkpoint folder taken over by another gang."""
CORRUPT = "SilentCorruption"
"""What a trainer tells that has computed the same twice with different results."""
PEER_LOST = "PeerLost"
"""What a trainer tells whose connection to another rank broke."""
POD = "PodLost"
EVIDENCE_LINES, EVIDENCE_LIMIT = 6, 512
"""As many as a restart's record takes, of so many characters."""


@dataclass(frozen=True, slots=True)
class RankExit:
    """The end of a rank's process, with the time on the coordinator's clock."""

    replica: int
    node: str
    rank: int
    time: float
    exit: Exit


@dataclass(frozen=True, slots=True)
class Cause:
    """Why the gang is restarted."""

    reason: str
    message: str
    replica: int | None
    node: str | None
    counted: bool = True
    evidence: tuple[str, ...] = ()
    """What shows it, most telling first."""


def failed(end: Exit) -> bool:
    """Whether the process ended by itself and not as it should."""
    return not end.stopped and end.code not in (ExitCode.COMPLETE, ExitCode.CHECKPOINTED)


def culprit(exits: Iterable[RankExit]) -> RankExit | None:
    """The rank that failed first.

    Its peers fail right after it, from broken connections, and the order in which their ends are
    noticed on different nodes can be off by milliseconds: so ends that look like a follow-up come
    last, whenever they happened.
    """
    failures = [end for end in exits if failed(end.exit)]
    return min(failures, key=lambda end: (follows(end.exit), end.time, end.rank), default=None)


def misconfigured(exits: Iterable[RankExit]) -> RankExit | None:
    """The rank that says best what is wrong with the configuration."""
    ends = [end for end in exits if end.exit.code == ExitCode.CONFIG]
    return min(ends, key=lambda end: (not end.exit.message, end.time), default=None)


def crash(end: RankExit) -> Cause:
    """The cause that this rank's end is."""
    said = f": {end.exit.message}" if end.exit.message else ""
    if end.exit.out_of_memory:
        reason, how = "OOMKilled", "was killed because the container's memory limit was reached"
        said = f"; {OUT_OF_MEMORY_ADVICE}"
    elif end.exit.signal is not None:
        reason, how = "ProcessKilled", f"was killed by {_signal_name(end.exit.signal)}"
    else:
        reason, how = "ProcessCrashed", f"exited with code {end.exit.code}"
    if end.exit.reason == CORRUPT:
        reason = CORRUPT
    if end.exit.reason:
        how += f" ({end.exit.reason})"
        if end.exit.reason == "OutOfMemoryError":
            reason, said = "DeviceOutOfMemory", f"{said[:700]}; {DEVICE_MEMORY_ADVICE}"
    message = f"rank {end.rank} on node {end.node} {how}{said}"
    # A rank that lost a peer of which no end is known accuses nobody: the network, perhaps.
    counted = end.exit.reason != PEER_LOST
    return Cause(reason, message[:1024], end.replica, end.node, counted, (_end_line(end),))


def restart(cause: Cause, id_: str, time: datetime) -> Restart:
    """The record of a restart in place."""
    return Restart(
        id=id_,
        time=time,
        scope="process",
        reason=cause.reason,
        message=cause.message,
        evidence=list(cause.evidence),
        replica=cause.replica,
        node=cause.node,
        counted=cause.counted,
    )


def _end_line(end: RankExit) -> str:
    """How a process ended, as the kernel and the process itself tell it."""
    it = end.exit
    parts = [f"signal {it.signal}" if it.signal is not None else f"exit code {it.code}"]
    if it.out_of_memory:
        parts.append("the container's count of OOM kills has grown")
    if it.reason:
        parts.append(f"its last error {it.reason}: {it.message or ''}"[:200])
    return f"rank {end.rank}: {', '.join(parts)}"


def pod(message: str) -> Cause:
    """A pod went away or is going: the operator's to count, not the agents'."""
    return Cause(POD, message[:1024], None, None, counted=False)


def left(ranks: Sequence[int]) -> Cause:
    """Ranks left with their state saved although no pod is terminated."""
    return Cause(
        "ProcessLeft",
        f"{names('rank', ranks)} saved the state and left, as after SIGTERM, but no pod is terminated",
        None,
        None,
        counted=False,
    )


def hang(ranks: Sequence[tuple[int, str, RankStatus]], silence: float) -> Cause:
    """No rank made a step for ``silence`` seconds. ``ranks``: (replica, node, status) of each.

    Suspects are the processes that the kernel holds, else those with the fewest steps, and of these
    the ones that have passed the fewest stages: the others wait for them.
    """
    held = [item for item in ranks if item[2].process_state in ("T", "t", "D")]
    lowest = min((item[2].step or 0 for item in ranks), default=0)
    behind = [item for item in ranks if (item[2].step or 0) == lowest]
    marked = all(item[2].passed is not None for item in behind)
    least = min((item[2].passed or 0 for item in behind), default=0)
    late = [item for item in behind if item[2].passed == least] if marked else behind
    suspects = held or late
    who = names("rank", [status.rank for _, _, status in suspects])
    where = _stages(suspects)
    if held:
        states = ", ".join(sorted({status.process_state or "" for _, _, status in held}))
        what = f"{who} is held by the kernel (process state {states}), at step {lowest}{where}"
    elif len(suspects) == len(ranks):
        what = f"all ranks are at step {lowest}{where}"
    elif len(behind) == len(ranks):
        others = _stages([item for item in ranks if item not in suspects])
        what = f"{who} did not arrive: at step {lowest}{where}; the others wait{others}"
    else:
        highest = max(item[2].step or 0 for item in ranks)
        what = f"{who} at step {lowest}{where}, the others at up to {highest}"
    replica, node, _ = suspects[0] if suspects else (None, None, None)
    one = len({item[0] for item in suspects}) == 1
    return Cause(
        HUNG,
        f"no step for {silence:.0f} s; {what}; stacks are in the pods' logs"[:1024],
        replica if one else None,
        node if one else None,
        evidence=_rank_lines(suspects, ranks),
    )


def _rank_lines(
    suspects: Sequence[tuple[int, str, RankStatus]], ranks: Sequence[tuple[int, str, RankStatus]]
) -> tuple[str, ...]:
    """Where ranks are, the suspects first."""
    others = [item for item in ranks if item not in suspects]
    lines = [_rank_line(node, status) for _, node, status in [*suspects, *others]]
    return tuple(lines[:EVIDENCE_LINES])


def _rank_line(node: str, status: RankStatus) -> str:
    where = f" in {status.stage}" if status.stage else ""
    state = f", process state {status.process_state}" if status.process_state else ""
    return f"rank {status.rank} on {node}: step {status.step or 0}{where}{state}"


def _stages(ranks: Sequence[tuple[int, str, RankStatus]]) -> str:
    """' in data', ' in all-reduce and backward'."""
    found = sorted({status.stage for _, _, status in ranks if status.stage})
    return f" in {' and '.join(found)}" if found else ""


def names(noun: str, numbers: Sequence[int]) -> str:
    """'rank 3', 'ranks 1 and 2', 'ranks 0, 1, 2 and 9 more'."""
    shown = [str(number) for number in sorted(numbers)]
    if len(shown) > 4:
        shown = [*shown[:3], f"{len(shown) - 3} more"]
    listed = " and ".join(filter(None, (", ".join(shown[:-1]), shown[-1]))) if shown else "none"
    return f"{noun}{'s' if len(numbers) != 1 else ''} {listed}"


def follows(end: Exit) -> bool:
    """Whether it looks like the effect of another rank's end."""
    # NCCL's watchdog aborts the process when a peer is gone.
    if end.signal is not None:
        return end.signal == signal.SIGABRT
    return bool(_FOLLOW_UP.search(f"{end.reason or ''} {end.message or ''}"))


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
