"""Hangs, repeated exceptions and where a rank is in its step."""

import os
import subprocess
import sys

import pytest

from drakkar_workers.agent import causes
from drakkar_workers.agent.causes import RankExit
from drakkar_workers.agent.patience import Patience
from drakkar_workers.agent.repeats import Repeats
from drakkar_workers.agent.stacks import Stacks, frames
from drakkar_workers.agent.wire import Exit, RankStatus
from drakkar_workers.memory import marks
from drakkar_workers.memory.arena import Arena


def end(reason: str | None = "ValueError", message: str = "x is 3", node: str = "a", **exit_):
    given = {"code": 1, "reason": reason, "message": message} | exit_
    return RankExit(0, node, 0, 1.0, Exit(**given))


def test_the_same_exception_at_the_same_step_counts_on_any_node() -> None:
    repeats = Repeats()
    assert repeats.note(end(), 7) == 1
    assert repeats.note(end(node="b", message="x is 4"), 7) == 2, "numbers differ from try to try"
    assert repeats.note(end(), 7) == 3
    assert repeats.note(end(), 8) == 1, "it got further"
    assert repeats.note(end(message="y"), 8) == 1


@pytest.mark.parametrize(
    "other",
    [
        end(reason=None),
        end(reason="PeerLost"),
        end(reason="SilentCorruption"),
        end(reason="RuntimeError", message="CUDA error: an illegal memory access"),
        end(reason="RuntimeError", message="gloo: Connection closed by peer"),
        end(reason="OSError", message="[Errno 28] No space left on device"),
        end(signal=9, code=None),
    ],
)
def test_what_another_node_may_not_have_does_not_count(other) -> None:
    repeats = Repeats()
    assert [repeats.note(other, 7) for _ in range(3)] == [0, 0, 0]


def test_patience_is_learned() -> None:
    patience = Patience(600)
    for _ in range(60):
        patience.note(0.5)
    assert patience.limit == 30
    patience.note(8.0)
    assert patience.limit == 80
    patience.used()
    assert patience.limit == 160
    for _ in range(5):
        patience.used()
    assert patience.limit == 600
    assert Patience(600).limit == 600


@pytest.mark.parametrize("pause", [20.0, 120.0, 590.0])
def test_false_hangs_are_few(pause) -> None:
    """A job that pauses for long now and then, as its first steps did not show."""
    patience, alarms = Patience(600), 0
    for _ in range(200):
        for _ in range(60):
            patience.note(0.5)
        if pause > patience.limit:
            alarms += 1
            patience.used()
        else:
            patience.note(pause)
    assert alarms <= 5


def status(rank: int, *, passed: int | None, stage: str, step: int = 12, state: str = "S"):
    return (
        rank,
        f"node-{rank}",
        RankStatus(rank=rank, step=step, passed=passed, stage=stage, process_state=state),
    )


def test_a_hang_names_the_rank_that_did_not_arrive() -> None:
    ranks = [
        status(0, passed=64, stage="all-reduce"),
        status(1, passed=61, stage="data"),
        status(2, passed=64, stage="all-reduce"),
    ]
    cause = causes.hang(ranks, 30.0)
    assert (cause.replica, cause.node) == (1, "node-1")
    assert cause.message == (
        "no step for 30 s; rank 1 did not arrive: at step 12 in data; the others wait in "
        "all-reduce; stacks are in the pods' logs"
    )
    assert cause.evidence[0] == "rank 1 on node-1: step 12 in data, process state S"
    assert len(cause.evidence) == 3


def test_the_stack_of_the_main_thread_is_read_from_what_faulthandler_writes() -> None:
    stacks = Stacks([4])
    assert frames(stacks.read(4)) == []
    script = (
        "import faulthandler, os, signal, sys, threading\n"
        "def deep(): os.kill(os.getpid(), signal.SIGUSR2)\n"
        "faulthandler.register(signal.SIGUSR2, file=int(sys.argv[1]), all_threads=True)\n"
        "threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        "deep()\n"
    )
    descriptor = stacks.descriptors[4]
    subprocess.run(
        [sys.executable, "-c", script, str(descriptor)], pass_fds=[descriptor], check=True
    )
    assert frames(stacks.read(4)) == ["deep (<string>:2)", "<module> (<string>:5)"]
    stacks.clear()
    assert stacks.read(4) == ""
    stacks.close()


def test_without_marks_nobody_is_accused() -> None:
    ranks = [status(0, passed=None, stage=""), status(1, passed=None, stage="")]
    cause = causes.hang(ranks, 30.0)
    assert cause.replica is None and "all ranks are at step 12" in cause.message


def test_out_of_memory_comes_with_advice() -> None:
    killed = RankExit(0, "a", 0, 1.0, Exit(signal=9, out_of_memory=True))
    assert "raise spec.resources.limits.memory" in causes.crash(killed).message
    device = end(reason="OutOfMemoryError", message="CUDA out of memory. Tried to allocate 2 GiB")
    assert causes.crash(device).reason == "DeviceOutOfMemory"
    assert "smaller batchSize" in causes.crash(device).message


def test_marks_are_read_by_another_process() -> None:
    arena = Arena.create("test")
    assert marks.read(arena.descriptor) is None
    made = marks.Marks(os.dup(arena.descriptor))
    made.enter("data")
    made.enter("forward")
    found = marks.read(arena.descriptor)
    assert found is not None
    assert (found.passed, found.stage) == (2, "forward")
    assert found.seconds["data"] > 0 and found.seconds["forward"] == 0
    marks.clear(arena.descriptor)
    assert marks.read(arena.descriptor) is None
    arena.close()
