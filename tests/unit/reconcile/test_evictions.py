"""A gang gives up its place to another: what is written, and what its pods do then."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from drakkar.v1alpha1.trainingjob import CheckpointRecord, Placement
from drakkar_operator.model import PodView
from drakkar_operator.reconcile import conditions as cond
from drakkar_operator.reconcile.demand import gang_request, leaving_gang, running_gang
from drakkar_operator.reconcile.trainingjob import evicted, placed, plan
from drakkar_operator.scheduling.decision import Eviction, Placed
from support.jobs import (
    NODES,
    NOW,
    PLACEMENT,
    after,
    created,
    deleted,
    events,
    gang,
    job,
    pod,
    report,
    truth,
)

BIG = ("ml", "big")


def trains():  # type: ignore[no-untyped-def]
    """A job whose gang runs."""
    view = after(job(), placed(job(), PLACEMENT, NOW - 600))
    return after(view, plan(view, gang(), NODES, report(), NOW - 500))


def eviction(cause: str = "Preempted", to: Placed | None = None) -> Eviction:
    """An eviction of it."""
    return Eviction(("ml", "gpt"), cause, BIG, "ml/big (priority 100) needs 3 nodes", to)  # type: ignore[arg-type]


@pytest.mark.parametrize("cause", ["Preempted", "Reclaimed"])
def test_the_status_says_all_before_a_pod_is_touched(cause: str) -> None:
    done = evicted(trains(), eviction(cause), NOW)
    assert deleted(done) == {}
    assert events(done) == [cause]
    assert done.status.placement is None
    assert done.status.pending_reason == "ml/big (priority 100) needs 3 nodes"
    assert truth(done) == {"Admitted": "False", "Running": "False"}
    (record,) = done.status.restarts
    assert (record.reason, record.scope, record.counted) == (cause, "gang", False)
    assert done.status.restart_count == 0
    assert done.status.phase == "Pending"


def test_the_pods_leave_with_grace_and_the_gang_asks_again_once_they_are_gone() -> None:
    view = after(trains(), evicted(trains(), eviction(), NOW))
    leaves = plan(view, gang(), NODES, report(), NOW)
    assert deleted(leaves) == {"gpt-0": False, "gpt-1": False, "gpt-2": False}
    assert leaves.request is None, "it does not ask while it holds room"
    going = [replace(each, deleting=True, deletion_time=NOW + 30) for each in gang()]
    going[1] = replace(going[1], phase="Failed", running=False, exit_code=76)
    still = plan(after(view, leaves), going, NODES, None, NOW + 5)
    assert deleted(still) == {}
    assert still.request is None
    gone = plan(after(view, still), [], NODES, None, NOW + 10)
    assert gone.request is not None
    assert gone.request.missing == (0, 1, 2)
    assert len(gone.status.restarts) == 1, "leaving is on record once"
    assert gone.requeue_after is None, "without a pause"


def test_a_gang_that_was_about_to_finish_is_complete_though_it_was_evicted() -> None:
    """KAI#1968."""
    view = after(trains(), evicted(trains(), eviction(), NOW))
    done = plan(view, gang(), NODES, report("complete"), NOW)
    assert truth(done)["Complete"] == "True"


def test_a_program_that_obeys_sigterm_has_not_finished() -> None:
    view = replace(trains(), spec=job(runtime="plain", recipe=None, template={}).spec)
    out = after(view, evicted(view, eviction(), NOW))
    ended = [replace(each, phase="Succeeded", running=False, exit_code=0) for each in gang()]
    left = [replace(each, deleting=True, deletion_time=NOW + 30) for each in ended]
    assert "Complete" not in truth(plan(out, left, NODES, None, NOW))
    assert truth(plan(out, ended, NODES, None, NOW))["Complete"] == "True", "it was done before"


def test_a_moved_gang_holds_its_new_place_at_once_and_only_the_moved_ranks_leave() -> None:
    request = gang_request(trains())
    to = Placed(request, {0: "a", 1: "d", 2: "c"}, "cluster", "cluster")
    moved = evicted(trains(), eviction("Moved", to), NOW)
    assert moved.status.placement == Placement(
        level="cluster", domain="cluster", nodes=["a", "d", "c"]
    )
    assert truth(moved) == {"Admitted": "True", "Running": "False"}
    view = after(trains(), moved)
    leaves = plan(view, gang(), NODES, report(), NOW)
    assert deleted(leaves) == {"gpt-1": False}
    assert leaves.request is None
    left = [pod(0), pod(2)]
    again = plan(after(view, leaves), left, NODES, None, NOW + 10)
    assert created(again) == [(1, "d")]


def test_a_victim_whose_node_is_lost_while_it_leaves_is_deleted_by_force() -> None:
    view = after(trains(), evicted(trains(), eviction(), NOW))
    nodes = {**NODES, "b": replace(NODES["b"], ready=False)}
    going = [replace(each, deleting=True, deletion_time=NOW + 30) for each in gang()]
    assert deleted(plan(view, going, nodes, None, NOW)) == {"gpt-1": True}


def test_what_leaves_is_known_by_its_pods() -> None:
    request = gang_request(trains())
    assert leaving_gang(trains(), request, gang()) is None
    out = after(trains(), evicted(trains(), eviction(), NOW))
    going: list[PodView] = [pod(0), replace(pod(1), phase="Failed"), pod(2)]
    leaving = leaving_gang(out, request, going)
    assert leaving is not None
    assert (leaving.leaving, leaving.queue) == (True, None)
    assert leaving.request.fixed == {0: "a", 2: "c"}, "what ended holds nothing"
    to = Placed(request, {0: "a", 1: "d", 2: "c"}, "cluster", "cluster")
    moved = after(trains(), evicted(trains(), eviction("Moved", to), NOW))
    leaving = leaving_gang(moved, request, gang())
    assert leaving is not None
    assert leaving.request.fixed == {1: "b"}
    smaller = leaving_gang(job(replicas=1), request, gang())
    assert smaller is not None
    assert smaller.request.replicas == 3


def test_since_when_a_gang_holds_its_place_and_what_it_has_saved() -> None:
    view = trains()
    request = gang_request(view)
    assert running_gang(view, request, 0, NOW).placed == NOW - 600
    saved = CheckpointRecord(step=5, path="x", time=datetime.fromtimestamp(NOW - 30, UTC))
    view = replace(view, status=view.status.model_copy(update={"checkpoints": [saved]}))
    assert running_gang(view, request, 0, NOW).lost_seconds(NOW) == 30
    to = Placed(request, {0: "a", 1: "d", 2: "c"}, "cluster", "cluster")
    moved = after(view, evicted(view, eviction("Moved", to), NOW))
    assert running_gang(moved, request, 0, NOW).placed == NOW, "its time begins anew"
    assert cond.is_true(moved.status.conditions, cond.ADMITTED)
