"""What an agent does with its own trainers."""

from dataclasses import replace

import pytest

from drakkar_workers.agent.member import Dump, Quit, Send, Situation, Start, decide
from drakkar_workers.agent.timing import Timing
from drakkar_workers.agent.wire import Command

NOW = 100.0
TIMING = Timing(peer_timeout=5, grace=25)
RUNNING = Situation(
    ready=True, alive=True, epoch=3, command=Command(action="start", epoch=3), contact=NOW
)
IDLE = replace(RUNNING, alive=False, epoch=2)
WAIT = Command(action="wait", epoch=3)
LEAVING = replace(RUNNING, leaving_since=NOW - 1)


@pytest.mark.parametrize(
    ("situation", "step"),
    [
        pytest.param(IDLE, Start(3), id="start"),
        pytest.param(replace(IDLE, ready=False), None, id="not warm yet"),
        pytest.param(RUNNING, None, id="goes on"),
        pytest.param(replace(RUNNING, alive=False), None, id="ended: not twice in an epoch"),
        pytest.param(replace(RUNNING, epoch=2), Send(9), id="older trainers first"),
        pytest.param(replace(RUNNING, command=WAIT), Send(9), id="stop"),
        pytest.param(replace(RUNNING, command=WAIT, sent=9), None, id="stop once"),
        pytest.param(replace(IDLE, command=WAIT), None, id="wait"),
        pytest.param(replace(RUNNING, command=None), Send(9), id="no coordinator"),
        pytest.param(replace(RUNNING, contact=NOW - 5.1), Send(9), id="coordinator lost"),
        pytest.param(replace(RUNNING, contact=NOW - 4.9), None, id="coordinator slow"),
        pytest.param(replace(IDLE, contact=NOW - 5.1), None, id="no start on old orders"),
        pytest.param(LEAVING, Send(15), id="SIGTERM is passed on"),
        pytest.param(replace(LEAVING, sent=15), None, id="time to save"),
        pytest.param(
            replace(LEAVING, sent=15, leaving_since=NOW - 26), Send(9), id="grace is over"
        ),
        pytest.param(replace(LEAVING, alive=False), Quit(75), id="saved"),
        pytest.param(replace(LEAVING, alive=False, saved=False), Quit(143), id="not saved"),
        pytest.param(
            replace(LEAVING, sent=15, command=WAIT), Send(9), id="gang broke while it saved"
        ),
        pytest.param(
            replace(LEAVING, sent=15, command=WAIT, contact=NOW - 9),
            None,
            id="coordinator left too: go on saving",
        ),
    ],
)
def test_decide(situation: Situation, step: object) -> None:
    assert decide(situation, NOW, TIMING) == step


@pytest.mark.parametrize(("action", "code"), [("finish", 0), ("fail", 78), ("leave", 75)])
def test_ends_stop_first_and_then_quit(action, code: int) -> None:
    command = Command(action=action, epoch=3, exit_code=code)
    assert decide(replace(RUNNING, command=command), NOW, TIMING) == Send(9)
    assert decide(replace(RUNNING, command=command, alive=False), NOW, TIMING) == Quit(code)


@pytest.mark.parametrize("action", ["fail", "leave"])
def test_trainers_that_cannot_be_killed_do_not_hold_the_agent(action) -> None:
    command = Command(action=action, epoch=3, exit_code=1)
    stuck = replace(RUNNING, command=command, sent=9)
    assert decide(replace(stuck, sent_at=NOW - 1), NOW, TIMING) is None
    assert decide(replace(stuck, sent_at=NOW - 6), NOW, TIMING) == Quit(1)
    assert decide(replace(stuck, sent_at=NOW - 6, command=WAIT), NOW, TIMING) is None


def test_kill_delay_gives_a_chance_first() -> None:
    timing = replace(TIMING, kill_delay=2)
    stop = replace(RUNNING, command=WAIT)
    assert decide(stop, NOW, timing) == Send(15)
    assert decide(replace(stop, sent=15, sent_at=NOW - 1), NOW, timing) is None
    assert decide(replace(stop, sent=15, sent_at=NOW - 2), NOW, timing) == Send(9)


def test_stacks_are_written_before_the_kill() -> None:
    hung = replace(RUNNING, command=WAIT.model_copy(update={"dump_stacks": True}))
    assert decide(hung, NOW, TIMING) == Dump()
    assert decide(replace(hung, dumped_at=NOW), NOW, TIMING) is None
    assert decide(replace(hung, dumped_at=NOW - 1), NOW, TIMING) == Send(9)
