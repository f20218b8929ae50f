"""One step of a TrainingJob's life at a time."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from drakkar.protocol import Failure
from drakkar.v1alpha1 import TrainingJobStatus
from drakkar.v1alpha1.trainingjob import CheckpointRecord, Placement, Restart
from drakkar_operator.model import Taint
from drakkar_operator.reconcile.actions import CreatePod, DeleteJob, EnsureService, Plan
from drakkar_operator.reconcile.observed import Context, CreationError
from drakkar_operator.reconcile.restarts import KEPT
from drakkar_operator.reconcile.trainingjob import placed, plan, unplaced
from support.jobs import (
    NODES,
    NOW,
    PLACEMENT,
    admitted,
    after,
    created,
    deleted,
    events,
    gang,
    job,
    node,
    pod,
    report,
    truth,
)

START = datetime.fromtimestamp(NOW - 60, UTC)
FRESH = Context(report_age=0.5)


def running(**changes: object) -> TrainingJobStatus:
    """Status of a job whose gang trains."""
    first = plan(job(admitted()), gang(), NODES, report(), NOW - 60, FRESH).status
    return first.model_copy(update={"start_time": START, **changes})


def test_a_new_job_asks_for_all_its_places_and_creates_nothing() -> None:
    result = plan(job(), [], NODES, None, NOW)
    assert result.request is not None
    assert result.request.missing == (0, 1, 2)
    assert result.actions == ()
    assert result.status.phase == "Pending"


def test_the_placement_is_written_before_a_pod_is_created() -> None:
    decided = placed(job(), PLACEMENT, NOW)
    assert created(decided) == []
    assert truth(decided)["Admitted"] == "True"
    assert decided.status.placement == PLACEMENT
    follow_up = plan(after(job(), decided), [], NODES, None, NOW)
    assert created(follow_up) == [(0, "a"), (1, "b"), (2, "c")]
    assert isinstance(follow_up.actions[0], EnsureService)
    assert follow_up.status.phase == "Starting"


def test_a_gang_of_one_needs_no_service() -> None:
    place = Placement(level="host", domain="a", nodes=["a"])
    decided = placed(job(replicas=1), place, NOW)
    follow_up = plan(after(job(replicas=1), decided), [], NODES, None, NOW)
    assert follow_up.actions == (CreatePod(0, "a"),)


def test_the_place_is_told_once() -> None:
    """By the event of the start or, where the gang was told that it waits, by one of its own."""
    assert events(placed(job(), PLACEMENT, NOW)) == []
    waited = unplaced(job(), "no room", NOW)
    assert events(placed(after(job(), waited), PLACEMENT, NOW)) == ["Placed"]


def test_a_half_created_gang_is_finished_where_it_was_planned() -> None:
    result = plan(job(admitted()), [pod(1)], NODES, None, NOW)
    assert created(result) == [(0, "a"), (2, "c")]
    assert result.request is None


def test_running_needs_the_agents_word() -> None:
    result = plan(job(admitted()), gang(), NODES, report("meeting"), NOW, FRESH)
    assert truth(result)["Running"] == "False"
    result = plan(job(admitted()), gang(), NODES, report(), NOW, FRESH)
    assert truth(result)["Running"] == "True"
    assert result.status.phase == "Running"
    assert result.status.start_time is not None
    assert result.status.progress is not None
    assert result.status.progress.step == 40
    assert events(result) == ["Started"]


def test_nothing_changes_while_nothing_happens() -> None:
    first = plan(job(admitted()), gang(), NODES, report(), NOW, FRESH)
    second = plan(after(job(), first), gang(), NODES, report(), NOW + 30, FRESH)
    assert second == Plan(first.status)


def test_an_operator_without_a_report_yet_changes_nothing() -> None:
    result = plan(job(running()), gang(), NODES, None, NOW)
    assert truth(result)["Running"] == "True"
    assert result.actions == ()


def test_a_report_of_an_earlier_coordinator_is_not_believed() -> None:
    stale = report("complete", pod_uid="another")
    result = plan(job(running()), gang(), NODES, stale, NOW, FRESH)
    assert "Complete" not in truth(result)


@pytest.mark.parametrize(
    ("changes", "reason", "counted"),
    [
        ({"exit_code": 1}, "PodFailed", True),
        ({"exit_code": 137, "reason": "OOMKilled"}, "PodFailed", True),
        ({"exit_code": 75}, "PodTerminated", False),
        ({"reason": "Evicted", "message": "disk pressure"}, "PodEvicted", False),
        ({"reason": "OutOfcpu", "message": "node has 0"}, "Refused", False),
        ({"reason": "UnexpectedAdmissionError"}, "Refused", False),
        ({"reason": "NodeAffinity"}, "Refused", False),
        (
            {"exit_code": 1, "termination_message": '{"reason": "ValueError", "message": "x"}'},
            "ValueError",
            True,
        ),
    ],
)
def test_a_failed_pod_is_recorded_with_its_cause_and_cleared_away(
    changes: dict[str, object], reason: str, counted: bool
) -> None:
    lost = pod(1, phase="Failed", running=False, **changes)
    pods = [pod(0), lost, pod(2)]
    result = plan(job(running()), pods, NODES, report(), NOW, FRESH)
    (restart,) = result.status.restarts
    assert (restart.reason, restart.counted, restart.replica) == (reason, counted, 1)
    assert restart.node == "b"
    assert result.status.restart_count == int(counted)
    assert deleted(result) == {"gpt-1": False}
    assert result.status.phase == "Recovering"
    again = plan(after(job(), result), pods, NODES, report(), NOW + 1, FRESH)
    assert again.status.restarts == result.status.restarts
    assert again.status.restart_count == int(counted)


def test_a_lost_pod_returns_to_its_node_once_it_is_gone() -> None:
    going = pod(1, deleting=True)
    result = plan(job(running()), [pod(0), going, pod(2)], NODES, report(), NOW, FRESH)
    assert created(result) == []
    assert [r.reason for r in result.status.restarts] == ["PodDeleted"]
    gone = plan(after(job(), result), [pod(0), pod(2)], NODES, report("recovering"), NOW, FRESH)
    assert created(gone) == [(1, "b")]
    assert gone.status.restart_count == 0


def test_a_pod_that_vanishes_is_recorded_once() -> None:
    pods = [pod(0), pod(2)]
    result = plan(job(running()), pods, NODES, report("recovering"), NOW, FRESH)
    (restart,) = result.status.restarts
    assert (restart.reason, restart.replica, restart.counted) == ("PodDeleted", 1, False)
    assert created(result) == [(1, "b")]
    again = plan(after(job(), result), pods, NODES, report("recovering"), NOW + 1, FRESH)
    assert again.status.restarts == result.status.restarts
    assert plan(job(admitted()), [pod(0)], NODES, None, NOW).status.restarts == []


@pytest.mark.parametrize("nodes", [{**NODES, "b": node("b", ready=False)}, {"a": 1, "c": 1}])
def test_pods_of_a_lost_node_are_forced_away_and_placed_anew(nodes: dict[str, object]) -> None:
    lost = {name: view if view != 1 else NODES[name] for name, view in nodes.items()}
    silent = report(members=[])
    result = plan(job(running()), gang(), lost, silent, NOW, FRESH)
    assert deleted(result) == {"gpt-1": True}
    assert [r.reason for r in result.status.restarts] == ["NodeLost"]
    assert result.status.restart_count == 0
    assert truth(result)["Running"] == "False"
    gone = plan(after(job(), result), [pod(0), pod(2)], lost, silent, NOW, FRESH)
    assert gone.status.restarts == result.status.restarts
    assert created(gone) == []
    assert gone.request is not None
    assert gone.request.missing == (1,)
    assert dict(gone.request.fixed) == {0: "a", 2: "c"}


def test_a_silent_kubelet_alone_takes_no_pod_whose_agent_is_heard() -> None:
    nodes = {**NODES, "b": node("b", ready=False)}
    result = plan(job(running()), gang(), nodes, report(), NOW, FRESH)
    assert result.actions == ()
    assert result.status.phase == "Running"
    unheard = plan(job(running()), gang(), nodes, report(), NOW, Context(report_age=60))
    assert deleted(unheard) == {"gpt-1": True}


def test_a_cordoned_node_keeps_its_pods_but_gets_no_new_ones() -> None:
    nodes = {**NODES, "b": node("b", unschedulable=True)}
    assert plan(job(running()), gang(), nodes, report(), NOW, FRESH).actions == ()
    result = plan(job(running()), [pod(0), pod(2)], nodes, report("recovering"), NOW, FRESH)
    assert result.request is not None
    assert result.request.missing == (1,)


def test_a_refusing_node_is_avoided_for_a_while() -> None:
    refused = pod(1, phase="Failed", running=False, reason="OutOfcpu")
    first = plan(job(admitted()), [pod(0), refused, pod(2)], NODES, None, NOW)
    gone = plan(after(job(), first), [pod(0), pod(2)], NODES, None, NOW + 1)
    assert gone.request is not None
    assert gone.request.avoid == {"b"}
    later = plan(after(job(), first), [pod(0), pod(2)], NODES, None, NOW + 3600)
    assert created(later) == [(1, "b")]


def test_a_gang_that_cannot_be_whole_again_gives_up_all_its_pods() -> None:
    released = unplaced(job(running()), "needs 1 node; none is free", NOW)
    assert released.status.placement is None
    assert "GangReleased" in events(released)
    assert released.status.pending_reason == "needs 1 node; none is free"
    leaving = plan(after(job(), released), gang(), NODES, report(), NOW, FRESH)
    assert deleted(leaving) == {"gpt-0": False, "gpt-1": False, "gpt-2": False}
    assert leaving.request is None
    assert leaving.status.restarts == []
    waiting = plan(after(job(), leaving), [pod(1, deleting=True)], NODES, None, NOW)
    assert waiting.request is None
    assert deleted(waiting) == {}
    empty = plan(after(job(), waiting), [], NODES, None, NOW)
    assert empty.request is not None
    assert empty.request.missing == (0, 1, 2)


def test_a_moved_rank_leaves_its_old_node_first() -> None:
    moved = Placement(level="cluster", domain="", nodes=["a", "d", "c"])
    status = running(placement=moved)
    result = plan(job(status), gang(), NODES, report(), NOW, FRESH)
    assert deleted(result) == {"gpt-1": False}
    assert result.status.restarts == []


def test_pending_says_why_and_tells_it_once() -> None:
    first = unplaced(job(), "needs 3 nodes; 2 are free", NOW)
    assert truth(first) == {"Admitted": "False"}
    assert first.status.phase == "Pending"
    assert len(events(first)) == 1
    second = unplaced(after(job(), first), "needs 3 nodes; 2 are free", NOW + 5)
    assert events(second) == []
    assert events(unplaced(after(job(), second), "needs 3 nodes; 1 is free", NOW + 9)) != []


def test_an_unknown_queue_and_a_missing_claim_are_waited_for() -> None:
    result = plan(job(queue="nope"), [], NODES, None, NOW, Context(queue_found=False))
    assert result.request is None
    assert "'nope'" in (result.status.pending_reason or "")
    problem = "checkpoint volume: there is no PersistentVolumeClaim ml/x"
    result = plan(job(), [], NODES, None, NOW, Context(claim_problem=problem))
    assert result.request is None
    assert result.status.pending_reason == problem
    assert result.requeue_after == 5.0


@pytest.mark.parametrize(
    ("spec", "fragment"),
    [
        ({"recipe": {"name": "pretrain", "config": {"stepz": 1}}}, "config.stepz: no such setting"),
        ({"recipe": {"name": "pretrain", "config": {"batchSize": 4}}}, "multiple of ranks"),
        ({"resources": {"requests": {"cpu": "many"}}}, "'many' is not a quantity"),
        ({"recipe": {"name": "pretrain", "config": {"model": {"heads": 7}}}}, "multiple of heads"),
    ],
)
def test_a_spec_that_cannot_work_fails_at_once(spec: dict[str, object], fragment: str) -> None:
    result = plan(job(**spec), [], NODES, None, NOW)
    assert result.status.phase == "Failed"
    (condition,) = result.status.conditions
    assert condition.reason == "InvalidSpec"
    assert fragment in condition.message
    assert result.request is None


def test_an_unreadable_spec_fails_with_its_problem() -> None:
    view = replace(job(), problem="spec.replicas: must be a number")
    result = plan(view, [], NODES, None, NOW)
    assert result.status.conditions[0].message == "spec.replicas: must be a number"


def test_suspending_gives_up_pods_and_place_and_resuming_asks_anew() -> None:
    result = plan(job(running(), suspend=True), gang(), NODES, report(), NOW, FRESH)
    assert result.status.phase == "Suspended"
    assert result.status.placement is None
    assert deleted(result) == {"gpt-0": False, "gpt-1": False, "gpt-2": False}
    assert result.status.restarts == []
    left = pod(0, phase="Failed", exit_code=75, running=False)
    cleared = plan(after(job(suspend=True), result), [left], NODES, None, NOW)
    assert deleted(cleared) == {"gpt-0": False}
    assert truth(cleared)["Suspended"] == "False", "a pod of the old spec is still there"
    cleared = plan(after(job(suspend=True), cleared), [], NODES, None, NOW)
    assert truth(cleared)["Suspended"] == "True"
    assert events(cleared) == ["Suspended"]
    resumed = plan(after(job(), cleared), [], NODES, None, NOW)
    assert resumed.request is not None
    assert truth(resumed)["Suspended"] == "False"
    assert events(resumed) == ["Resumed"]


def test_the_coordinators_success_completes_the_job() -> None:
    final = report("complete").model_dump_json(by_alias=True)
    pods = [
        pod(0, phase="Succeeded", running=False, exit_code=0, termination_message=final),
        pod(1),
        pod(2, phase="Succeeded", running=False),
    ]
    result = plan(job(running(progress=None)), pods, NODES, None, NOW)
    assert truth(result)["Complete"] == "True"
    assert truth(result)["Running"] == "False"
    assert result.status.progress is not None
    assert result.status.progress.step == 40
    assert result.status.completion_time is not None
    assert deleted(result) == {}
    later = plan(after(job(), result), pods, NODES, None, NOW + 31)
    assert deleted(later) == {"gpt-1": False}


def test_a_complete_report_survives_the_loss_of_its_coordinator() -> None:
    lost = pod(0, phase="Failed", running=False, exit_code=137)
    result = plan(job(running()), [lost, pod(1), pod(2)], NODES, report("complete"), NOW, FRESH)
    assert result.status.phase == "Complete"


def test_ranks_that_ended_well_come_back_with_a_lost_one() -> None:
    pods = [pod(0, phase="Failed", running=False, exit_code=137), pod(1, phase="Succeeded"), pod(2)]
    first = plan(job(running()), pods, NODES, None, NOW)
    assert deleted(first) == {"gpt-0": False}
    gone = plan(after(job(), first), pods[1:], NODES, None, NOW)
    assert deleted(gone) == {"gpt-1": False}
    assert created(gone) == [(0, "a")]


def test_plain_pods_complete_together_and_restart_together() -> None:
    spec = {"recipe": None, "runtime": "plain", "template": {"spec": {"containers": []}}}
    done = [pod(r, phase="Succeeded", running=False) for r in range(3)]
    assert plan(job(running(), **spec), done, NODES, None, NOW).status.phase == "Complete"
    assert plan(job(running(), **spec), done[:2], NODES, None, NOW).status.phase != "Complete"
    pods = [pod(0), pod(1, phase="Failed", exit_code=3, running=False), pod(2)]
    result = plan(job(running(), **spec), pods, NODES, None, NOW)
    assert deleted(result) == {"gpt-0": False, "gpt-1": False, "gpt-2": False}
    (restart,) = result.status.restarts
    assert (restart.scope, restart.counted) == ("gang", True)
    leaving = [replace(p, deleting=True) for p in pods]
    again = plan(after(job(**spec), result), leaving, NODES, None, NOW + 1)
    assert len(again.status.restarts) == 1


def test_the_rest_of_a_plain_gang_starts_again_with_a_lost_pod() -> None:
    spec = {"recipe": None, "runtime": "plain", "template": {"spec": {"containers": []}}}
    pods = [pod(0), pod(1, deleting=True), pod(2)]
    result = plan(job(running(), **spec), pods, NODES, None, NOW)
    assert deleted(result) == {"gpt-0": False, "gpt-2": False}
    waiting = plan(after(job(**spec), result), [pod(0, deleting=True)], NODES, None, NOW + 1)
    assert created(waiting) == []
    gone = plan(after(job(**spec), waiting), [], NODES, None, NOW + 2)
    assert created(gone) == [(0, "a"), (1, "b"), (2, "c")]
    assert len(gone.status.restarts) == 1
    vanished = plan(job(running(), **spec), [pod(0), pod(2)], NODES, None, NOW)
    assert deleted(vanished) == {"gpt-0": False, "gpt-2": False}


def test_a_configuration_error_ends_the_job_with_the_agents_words() -> None:
    said = json.dumps({"reason": "ConfigError", "message": "/checkpoints/gpt is not writable"})
    pods = [pod(0), pod(1, phase="Failed", exit_code=78, termination_message=said), pod(2)]
    result = plan(job(running()), pods, NODES, None, NOW)
    assert result.status.phase == "Failed"
    assert truth(result)["Running"] == "False"
    failed = next(c for c in result.status.conditions if c.type == "Failed")
    assert (failed.reason, failed.message) == ("ConfigError", "/checkpoints/gpt is not writable")
    assert deleted(result) == {"gpt-0": False, "gpt-2": False}
    failure = Failure(reason="ConfigError", message="bad", retryable=False)
    result = plan(job(running()), gang(), NODES, report("failed", failure=failure), NOW, FRESH)
    assert result.status.phase == "Failed"


def test_restarts_in_place_are_counted_once_and_end_the_job_past_its_budget() -> None:
    crashed = [
        Restart(
            id=f"uid-0-{epoch}",
            time=datetime.fromtimestamp(NOW - 50 + epoch, UTC),
            scope="process",
            reason="ProcessCrashed",
            message=f"rank 1: exit code {epoch}",
        )
        for epoch in range(3)
    ]
    tolerance = {"maxRestarts": 2, "backoffSeconds": 0}
    status = running()
    two = plan(
        job(status, faultTolerance=tolerance),
        gang(),
        NODES,
        report(restarts=crashed[:2]),
        NOW,
        FRESH,
    )
    assert two.status.restart_count == 2
    assert two.status.phase == "Running"
    assert events(two) == ["ProcessCrashed", "ProcessCrashed"]
    view = after(job(faultTolerance=tolerance), two)
    three = plan(view, gang(), NODES, report(restarts=crashed), NOW, FRESH)
    assert three.status.phase == "Failed"
    failed = next(c for c in three.status.conditions if c.type == "Failed")
    assert failed.reason == "MaxRestartsExceeded"
    assert "rank 1: exit code 2" in failed.message
    assert set(deleted(three)) == {"gpt-0", "gpt-1", "gpt-2"}


def test_a_full_record_of_restarts_brings_nothing_back() -> None:
    many = [
        Restart(
            id=f"r-{i}",
            time=datetime.fromtimestamp(NOW - 1000 + i, UTC),
            scope="process",
            reason="ProcessCrashed",
        )
        for i in range(KEPT + 20)
    ]
    view = job(running(), faultTolerance={"maxRestarts": 1000, "backoffSeconds": 0})
    first = plan(view, gang(), NODES, report(restarts=many), NOW, FRESH)
    assert first.status.restart_count == KEPT + 20
    assert len(first.status.restarts) == KEPT
    second = plan(after(view, first), gang(), NODES, report(restarts=many), NOW, FRESH)
    assert second.status.restart_count == KEPT + 20


def test_replacement_waits_longer_after_each_counted_failure() -> None:
    view = job(running(), faultTolerance={"backoffSeconds": 10})
    failed = pod(1, phase="Failed", exit_code=1, running=False)
    first = plan(view, [pod(0), failed, pod(2)], NODES, None, NOW)
    waiting = plan(after(view, first), [pod(0), pod(2)], NODES, None, NOW + 4)
    assert created(waiting) == []
    assert waiting.requeue_after == pytest.approx(6)
    due = plan(after(view, first), [pod(0), pod(2)], NODES, None, NOW + 10)
    assert created(due) == [(1, "b")]
    failed = replace(failed, uid="uid-1b")
    second = plan(after(view, due), [pod(0), failed, pod(2)], NODES, None, NOW + 20)
    waiting = plan(after(view, second), [pod(0), pod(2)], NODES, None, NOW + 20)
    assert waiting.requeue_after == pytest.approx(20)


def test_the_deadline_ends_the_job_and_is_waited_for() -> None:
    view = job(running(), activeDeadlineSeconds=100)
    result = plan(view, gang(), NODES, report(), NOW, FRESH)
    assert result.requeue_after == pytest.approx(40)
    result = plan(view, gang(), NODES, report(), NOW + 41, FRESH)
    assert result.status.phase == "Failed"
    assert set(deleted(result)) == {"gpt-0", "gpt-1", "gpt-2"}


def test_a_finished_job_goes_after_its_time_to_live() -> None:
    done = plan(job(running()), gang(), NODES, report("complete"), NOW, FRESH)
    view = after(job(ttlSecondsAfterFinished=60), done)
    assert plan(view, [], NODES, None, NOW + 10).requeue_after == pytest.approx(50)
    assert DeleteJob() in plan(view, [], NODES, None, NOW + 60).actions


def test_refused_pods_are_told_of_and_invalid_ones_end_the_job() -> None:
    error = CreationError("exceeded quota: pods=10", permanent=False, since=NOW - 1, last=NOW)
    busy = Context(creation_error=error)
    result = plan(job(admitted()), [pod(0)], NODES, None, NOW, busy)
    running_condition = next(c for c in result.status.conditions if c.type == "Running")
    assert "exceeded quota" in running_condition.message
    assert created(result) != []
    bad = Context(creation_error=CreationError("spec.containers[0].image: Required", True))
    result = plan(job(admitted()), [pod(0)], NODES, None, NOW, bad)
    assert result.status.phase == "Failed"
    assert set(deleted(result)) == {"gpt-0"}


def test_a_gang_whose_pods_are_refused_for_long_gives_up_its_place_and_holds_off() -> None:
    error = CreationError("exceeded quota: pods=10", False, since=NOW - 31, last=NOW)
    busy = Context(creation_error=error)
    result = plan(job(admitted()), [pod(0), pod(1)], NODES, None, NOW, busy)
    assert result.status.placement is None
    assert deleted(result) == {"gpt-0": False, "gpt-1": False}
    assert "exceeded quota" in (result.status.pending_reason or "")
    view = after(job(), result)
    waiting = plan(view, [], NODES, None, NOW + 5, busy)
    assert waiting.request is None
    assert waiting.requeue_after is not None
    assert plan(view, [], NODES, None, NOW + 6 + waiting.requeue_after, busy).request is not None


@pytest.mark.parametrize(
    "spec",
    [
        {"template": {"spec": {"nodeSelector": {"disk": ["ssd", "nvme"]}}}},
        {"template": {"spec": {"tolerations": ["x"]}}},
        {"template": {"spec": {"tolerations": [{"value": {"a": 1}}]}}},
        {"template": {"spec": "text"}},
        {"resources": {"requests": {"cpu": "1E"}}},
        {"resources": {"requests": {"memory": "1e999999999"}}},
    ],
)
def test_a_template_of_any_shape_is_answered(spec: dict[str, object]) -> None:
    recipe = None if "template" in spec else {"name": "pretrain", "config": {"batchSize": 3}}
    result = plan(job(recipe=recipe, **spec), [], NODES, None, NOW)
    assert result.status.phase == "Failed"
    assert result.status.conditions[0].reason == "InvalidSpec"


def test_a_lost_pod_does_not_return_to_a_node_that_throws_it_out() -> None:
    tainted = node("b", taints=(Taint("maintenance", "", "NoExecute"),))
    pods = [pod(0), pod(2)]
    result = plan(job(running()), pods, {**NODES, "b": tainted}, report("recovering"), NOW, FRESH)
    assert created(result) == []
    assert result.request is not None
    assert result.request.missing == (1,)
    evicted = pod(1, phase="Failed", running=False, reason="Evicted")
    first = plan(job(running()), [pod(0), evicted, pod(2)], NODES, None, NOW)
    gone = plan(after(job(), first), pods, NODES, None, NOW + 1)
    assert gone.request is not None
    assert gone.request.avoid == {"b"}
    assert gone.requeue_after is not None, "the node may be used again, and nothing tells when"


def test_a_pod_that_kube_scheduler_leaves_unbound_is_placed_anew() -> None:
    waits = pod(1, node=None, phase="Pending", running=False, created=NOW - 10)
    pods = [pod(0), waits, pod(2)]
    result = plan(job(admitted()), pods, NODES, None, NOW)
    assert deleted(result) == {}
    assert result.requeue_after == pytest.approx(50)
    late = plan(job(admitted()), pods, NODES, None, NOW + 51)
    assert deleted(late) == {"gpt-1": False}
    (restart,) = late.status.restarts
    assert (restart.reason, restart.node, restart.counted) == ("Refused", "b", False)
    cordoned = {**NODES, "b": node("b", unschedulable=True)}
    assert deleted(plan(job(admitted()), pods, cordoned, None, NOW)) == {"gpt-1": False}


def test_a_pod_that_kube_scheduler_refuses_is_placed_anew_soon_in_its_words() -> None:
    refused = pod(
        1,
        node=None,
        phase="Pending",
        running=False,
        created=NOW - 4,
        waiting_reason="Unschedulable",
        message="0/4 nodes are available: 1 Insufficient cpu",
    )
    pods = [pod(0), refused, pod(2)]
    result = plan(job(admitted()), pods, NODES, None, NOW)
    assert (deleted(result), result.requeue_after) == ({}, pytest.approx(6))
    late = plan(job(admitted()), pods, NODES, None, NOW + 7)
    assert deleted(late) == {"gpt-1": False}
    (restart,) = late.status.restarts
    assert (restart.reason, restart.counted) == ("Refused", False)
    assert restart.message.endswith("to b: 0/4 nodes are available: 1 Insufficient cpu")


def test_pods_that_leave_and_pods_that_are_vouched_for_are_looked_at_again() -> None:
    released = unplaced(job(running()), "no room", NOW)
    leaving = [pod(1, deleting=True)]
    waiting = plan(after(job(), released), leaving, NODES, None, NOW)
    assert waiting.requeue_after == pytest.approx(10)
    lost = {**NODES, "b": node("b", ready=False)}
    forced = plan(after(job(), waiting), leaving, lost, None, NOW + 10)
    assert deleted(forced) == {"gpt-1": True}
    vouched = plan(job(running()), gang(), lost, report(), NOW, FRESH)
    assert vouched.requeue_after == pytest.approx(10)


def test_many_pods_deleted_at_once_are_recorded_once() -> None:
    size = KEPT + 14
    many = {f"n{i}": node(f"n{i}") for i in range(size)}
    placement = Placement(level="cluster", domain="", nodes=list(many))
    status = running().model_copy(update={"placement": placement})
    config = {"name": "pretrain", "config": {"batchSize": size}}
    view = job(status, replicas=size, recipe=config)
    pods = [
        replace(
            pod(0),
            name=f"gpt-{i}",
            uid=f"uid-{i}",
            node=f"n{i}",
            replica=i,
            deleting=True,
            deletion_time=NOW + 29,
        )
        for i in range(size)
    ]
    first = plan(view, pods, many, None, NOW)
    again = plan(after(view, first), pods, many, None, NOW + 2)
    assert again.status.restarts == first.status.restarts
    assert events(again) == []


def test_a_placement_of_another_size_is_none() -> None:
    short = Placement(level="cluster", domain="", nodes=["a", "b"])
    result = plan(job(TrainingJobStatus(placement=short)), [], NODES, None, NOW)
    assert result.request is not None
    assert result.request.missing == (0, 1, 2)


def test_one_crash_of_a_plain_gang_counts_once() -> None:
    spec = {"recipe": None, "runtime": "plain", "template": {"spec": {"containers": []}}}
    crashed = [pod(r, phase="Failed", exit_code=1, running=False) for r in (0, 1)]
    result = plan(job(running(), **spec), [*crashed, pod(2)], NODES, None, NOW)
    assert result.status.restart_count == 1
    ended = [pod(2, phase="Failed", exit_code=143, running=False, deleting=True)]
    later = plan(after(job(**spec), result), ended, NODES, None, NOW + 1)
    assert later.status.restart_count == 1


def test_only_the_newest_checkpoints_are_listed() -> None:
    records = [
        CheckpointRecord(step=s, path=f"gpt/step-{s}", time=START + timedelta(seconds=s))
        for s in range(10, 60, 10)
    ]
    status = running(checkpoints=records[:3])
    result = plan(job(status), gang(), NODES, report(checkpoints=records[2:]), NOW, FRESH)
    assert [c.step for c in result.status.checkpoints] == [30, 40, 50]


def test_a_job_being_deleted_is_left_alone() -> None:
    view = replace(job(running()), deleting=True)
    assert plan(view, gang(), NODES, report(), NOW, FRESH) == Plan(view.status)
