"""A job's life in words."""

from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console

from drakkar.cli import progress
from drakkar.v1alpha1 import TrainingJob

RESTART = {
    "id": "r1",
    "time": "2026-01-01T00:00:00Z",
    "scope": "pod",
    "reason": "PodDeleted",
    "message": "pod gpt-1 was deleted",
    "replica": 1,
    "node": "node-2",
    "counted": False,
}
PLACEMENT = {"level": "rack", "domain": "zone-1/rack-1", "nodes": ["a", "a", "b", "a"]}


def job(**status: Any) -> TrainingJob:
    return TrainingJob.model_validate(
        {
            "kind": "TrainingJob",
            "metadata": {"name": "gpt", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"replicas": 4},
            "status": status,
        }
    )


def condition(kind: str, status: str, message: str = "") -> dict[str, str]:
    return {
        "type": kind,
        "status": status,
        "reason": "Because",
        "message": message,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }


@pytest.mark.parametrize(
    ("status", "ended", "code"),
    [
        ({}, False, 1),
        ({"phase": "Complete"}, False, 1),
        ({"conditions": [condition("Complete", "True")]}, True, 0),
        ({"conditions": [condition("Complete", "False")]}, False, 1),
        ({"conditions": [condition("Failed", "True")]}, True, 1),
    ],
)
def test_conditions_decide_the_end_not_the_phase(
    status: dict[str, Any], ended: bool, code: int
) -> None:
    assert progress.finished(job(**status)) is ended
    assert progress.exit_code(job(**status)) == code


def test_pending_reason_is_told() -> None:
    text = "needs 4 nodes; the best rack has 3"
    assert progress.reason(job(phase="Pending", pendingReason=text)) == text
    assert progress.changes(None, job(phase="Pending", pendingReason=text)) == [f"Pending: {text}"]


def test_reason_falls_back_to_the_condition() -> None:
    waiting = condition("Admitted", "False", "queue q does not exist")
    assert progress.reason(job(conditions=[waiting])) == "queue q does not exist"
    failed = condition("Failed", "True", "loss is not a number")
    assert progress.reason(job(conditions=[waiting, failed])) == "loss is not a number"


def test_job_that_no_operator_has_seen_says_so() -> None:
    assert "is it running?" in progress.reason(job())
    assert progress.changes(None, job()) == ["waiting for Drakkar's operator"]
    assert progress.reason(job(phase="Running", conditions=[condition("Running", "True")])) == ""


def test_each_change_is_told_once() -> None:
    before = job(phase="Running", placement=PLACEMENT)
    after = job(
        phase="Recovering",
        placement=PLACEMENT,
        restarts=[RESTART],
        checkpoints=[{"step": 20, "path": "gpt/step-20", "time": "2026-01-01T00:00:00Z"}],
    )
    assert progress.changes(before, after) == [
        "restart: pod of replica 1 on node-2: PodDeleted (not counted): pod gpt-1 was deleted",
        "checkpoint at step 20",
        "Recovering",
    ]
    assert progress.changes(after, after) == []


def test_new_pending_reason_is_told_without_a_new_phase() -> None:
    before = job(phase="Pending", pendingReason="no room")
    after = job(phase="Pending", pendingReason="still no room")
    assert progress.changes(before, after) == ["waiting: still no room"]


def test_placement_groups_replicas_by_node() -> None:
    (line,) = progress.changes(job(), job(placement=PLACEMENT))
    assert line == "placed in rack zone-1/rack-1 (a: 0-1, 3; b: 2)"


@pytest.mark.parametrize(
    ("numbers", "text"),
    [([0], "0"), ([0, 1], "0-1"), ([0, 2, 3, 4, 9], "0, 2-4, 9"), ([5, 7], "5, 7")],
)
def test_ranges(numbers: list[int], text: str) -> None:
    assert progress._ranges(numbers) == text


def test_panel_shows_progress_place_and_reason() -> None:
    found = job(
        phase="Running",
        readyReplicas=4,
        placement=PLACEMENT,
        progress={"step": 30, "totalSteps": 120, "loss": 2.5, "tokensPerSecond": 1500.0},
    )
    console = Console(width=100, record=True, file=None)
    with console.capture() as capture:
        console.print(progress.panel(found, datetime(2026, 1, 1, 0, 1, tzinfo=UTC)))
    text = capture.get()
    assert "Running" in text
    assert "4/4 ready" in text
    assert "step 30/120, loss 2.5, 1,500 tokens/s" in text
    assert "0-1, 3" in text


def test_goodput_and_what_a_restart_cost() -> None:
    wall = {"wallSeconds": 200.0, "ratio": 0.8, "productiveSeconds": 160.0, "booksSince": 1.0}
    found = job(
        goodput={**wall, "recoverySeconds": 30.0, "startSeconds": 10.0, "earlier": {}},
        restarts=[
            RESTART | {"secondsLost": 4.25, "stepsLost": 2, "resumedFrom": "memory"},
        ],
    )
    assert found.status.goodput is not None
    assert progress.goodput_line(found.status.goodput).endswith("(recovery 15%, start 5%)")
    (restart,) = found.status.restarts
    assert "[4.2 s, 2 steps again, from memory]" in progress.restart_line(restart)
