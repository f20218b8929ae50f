"""A job loses a process, a pod and a node, and goes on from its last published checkpoint."""

import itertools
import statistics

import pytest

from support.lab import Lab, Object, pretrain

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

EVERY = 10
SLOW = {"batchSize": 64, "sequenceLength": 128}
"""A step long enough that a fault lands in the middle of training."""


def assert_continued(history: list[Object], total: int, restarts: int) -> None:
    """The record of steps is a chain of epochs, each from the checkpoint that was the last.

    Within an epoch every step follows the one before. An epoch starts right after a multiple of
    the checkpoint interval, or where the last one ended if that could save on its way out. It
    repeats no more than the steps since the last checkpoint: with writing in the background that
    is at most two intervals. The loss goes on where it was.
    """
    epochs = [list(records) for _, records in itertools.groupby(history, key=lambda r: r["epoch"])]
    assert len(epochs) >= restarts + 1
    for records in epochs:
        steps = [record["step"] for record in records]
        assert steps == list(range(steps[0], steps[0] + len(steps)))
    for before, now in itertools.pairwise(epochs):
        first, reached = now[0]["step"], before[-1]["step"]
        assert first == reached + 1 or (first - 1) % EVERY == 0, f"epoch starts at step {first}"
        assert first <= reached + 1
        assert reached - (first - 1) <= 2 * EVERY, f"steps {first} to {reached} were repeated"
        around = [record["loss"] for record in before if abs(record["step"] - first) < EVERY]
        assert statistics.mean(r["loss"] for r in now[:EVERY]) < statistics.mean(around) + 0.3
    assert epochs[-1][-1]["step"] == total


def test_a_killed_process_is_restarted_in_place(lab: Lab) -> None:
    lab.submit("gpt", replicas=4, recipe=pretrain(steps=80, **SLOW))
    lab.step("gpt", EVERY + 2)
    before = {pod["metadata"]["uid"] for pod in lab.pods("gpt")}
    lab.kill_trainer("gpt-2")
    status = lab.phase("gpt", "Complete", seconds=240)
    assert {pod["metadata"]["uid"] for pod in lab.pods("gpt")} == before
    (restart,) = status["restarts"]
    assert restart["scope"] == "process"
    assert restart["replica"] == 2
    assert restart["counted"] is True
    assert status["restartCount"] == 1
    assert_continued(lab.history("gpt"), total=80, restarts=1)


@pytest.mark.parametrize("replica", [0, 3])
def test_a_deleted_pod_is_replaced_alone(lab: Lab, replica: int) -> None:
    lab.submit("gpt", replicas=4, recipe=pretrain(steps=80, **SLOW))
    lab.step("gpt", EVERY + 2)
    before = {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in lab.pods("gpt")}
    lab.delete_pod(f"gpt-{replica}")
    status = lab.phase("gpt", "Complete", seconds=240)
    now = {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in lab.pods("gpt")}
    assert [name for name in now if now[name] != before[name]] == [f"gpt-{replica}"]
    assert [r["reason"] for r in status["restarts"]] == ["PodDeleted"]
    assert status["restartCount"] == 0
    assert_continued(lab.history("gpt"), total=80, restarts=1)


def test_a_stopped_node_loses_its_ranks_to_another(lab: Lab) -> None:
    """Three nodes hold a rank each, so that one is left to take over."""
    lab.submit(
        "gpt",
        replicas=3,
        recipe=pretrain(steps=80, batchSize=48, sequenceLength=128),
        resources={"requests": {"cpu": "1100m", "memory": "512Mi"}},
    )
    lab.step("gpt", EVERY + 2)
    placed = lab.status("gpt")["placement"]["nodes"]
    assert len(set(placed)) == 3
    operators = {pod["spec"]["nodeName"] for pod in lab.operator_pods()}
    victim = next(node for node in reversed(placed) if node not in operators)
    lab.cluster.node(victim).stop()
    try:
        status = lab.phase("gpt", "Complete", seconds=280)
    finally:
        lab.cluster.node(victim).start()
    moved = status["placement"]["nodes"]
    assert victim not in moved
    assert [n for n in moved if n in placed] == [n for n in placed if n != victim]
    assert {r["reason"] for r in status["restarts"]} == {"NodeLost"}
    assert status["restartCount"] == 0
    assert_continued(lab.history("gpt"), total=80, restarts=1)


def test_suspend_checkpoints_and_resume_goes_on(lab: Lab) -> None:
    lab.submit("gpt", replicas=2, recipe=pretrain(steps=80, **SLOW))
    lab.step("gpt", EVERY + 2)
    lab.api.patch(f"{lab.jobs}/gpt", {"spec": {"suspend": True}})
    lab.phase("gpt", "Suspended")
    lab.until(lambda: not lab.pods("gpt"), 60, "the pods are gone")
    saved = max(int(path.name.split("-")[1]) for path in lab.folder("gpt").glob("step-*"))
    reached = lab.history("gpt")[-1]["step"]
    assert saved == reached, "SIGTERM saves the step that was reached"
    lab.api.patch(f"{lab.jobs}/gpt", {"spec": {"suspend": False}})
    lab.phase("gpt", "Complete", seconds=240)
    steps = [record["step"] for record in lab.history("gpt")]
    assert steps == list(range(1, 81)), "no step was lost or made twice"
