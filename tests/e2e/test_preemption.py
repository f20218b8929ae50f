"""Jobs that give up their place to another, and go on from where they were."""

from typing import Any

import pytest

from support.lab import PLAIN, Lab, pretrain, sleeper

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

STEPS = 80
SLOW = {"batchSize": 64, "sequenceLength": 128}
AT_ONCE = {"minRuntimeSeconds": 0}


def on(node: str, template: dict[str, Any] | None = None) -> dict[str, Any]:
    """A pod template that runs on this node only."""
    spec = (template or {"spec": {}})["spec"]
    return {"spec": {**spec, "nodeSelector": {"kubernetes.io/hostname": node}}}


def test_a_preempted_training_saves_its_state_and_goes_on_from_there(lab: Lab) -> None:
    queue = lab.queue("shared", preemption=AT_ONCE)
    high = lab.priority("high", 1000)
    free = lab.free_cpu()
    node = max(free, key=lambda name: free[name])
    cpu = f"{free[node] - 100}m"
    lab.submit(
        "low",
        queue=queue,
        recipe=pretrain(steps=STEPS, **SLOW),
        template=on(node),
        resources={"requests": {"cpu": cpu, "memory": "512Mi"}},
    )
    reached = lab.step("low", 12)
    lab.submit(
        "high",
        queue=queue,
        priorityClassName=high,
        template=on(node, sleeper(2, cpu=cpu)),
        **PLAIN,
    )
    done = lab.phase("high", "Complete", seconds=120)
    assert done["restarts"] == [], "its pod came when the node was free"
    status = lab.phase("low", "Complete", seconds=240)
    (restart,) = status["restarts"]
    assert (restart["reason"], restart["counted"]) == ("Preempted", False)
    assert f"{lab.namespace}/high" in restart["message"]
    assert status["restartCount"] == 0
    steps = [record["step"] for record in lab.history("low")]
    assert steps == list(range(1, STEPS + 1)), f"no step is repeated; preempted after {reached}"


def test_a_queue_takes_back_what_it_lent(lab: Lab) -> None:
    team = lab.queue("team")
    lender = lab.queue("lender", parent=team, quota={"cpu": "1"}, preemption=AT_ONCE)
    borrower = lab.queue(
        "borrower",
        parent=team,
        quota={"cpu": "100m"},
        borrowing={"cpu": "unlimited"},
        preemption=AT_ONCE,
    )
    lab.submit("guest", queue=borrower, replicas=2, template=sleeper(600, cpu="400m"), **PLAIN)
    lab.phase("guest", "Running")
    lab.submit("owner", queue=lender, replicas=2, template=sleeper(2, cpu="450m"), **PLAIN)
    lab.phase("owner", "Complete", seconds=120)
    status = lab.phase("guest", "Running", seconds=120)
    (restart,) = status["restarts"]
    assert (restart["reason"], restart["counted"]) == ("Reclaimed", False)
    assert f"{lab.namespace}/owner" in restart["message"]
