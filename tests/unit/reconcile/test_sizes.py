"""Gangs of several roles and elastic gangs: what they ask for, and by which size they are judged."""

import pytest

from drakkar.v1alpha1 import TrainingJobStatus
from drakkar.v1alpha1.meta import Condition
from drakkar.v1alpha1.trainingjob import Placement
from drakkar_operator.model import JobView
from drakkar_operator.reconcile import conditions as cond
from drakkar_operator.reconcile.actions import CreatePod
from drakkar_operator.reconcile.demand import (
    GROWS_AFTER_SECONDS,
    gang_request,
    grown_from,
    placed_request,
    running_gang,
)
from drakkar_operator.reconcile.restarts import at
from drakkar_operator.reconcile.trainingjob import placed, plan
from drakkar_operator.scheduling.request import GangRequest
from support.jobs import NODES, NOW, after, job, pod, report

GPU = "nvidia.com/gpu"
ELASTIC = {"replicas": None, "elastic": {"min": 1, "max": 3}}
TWO = Placement(level="cluster", domain="", nodes=["a", "b"])


def test_each_role_asks_for_what_its_pods_ask_for() -> None:
    view = job(
        replicas=6,
        roles=[
            {"name": "head", "replicas": 2, "resources": {"requests": {"cpu": 4}}},
            {
                "name": "worker",
                "replicas": 4,
                "accelerators": {"resource": GPU, "count": 8},
                "groups": [{"size": 2, "level": "host"}],
                "template": {"spec": {"nodeSelector": {"pool": "gpu"}}},
            },
        ],
    )
    head, worker = gang_request(view).roles
    assert (head.name, head.replicas, head.requests["cpu"]) == ("head", 2, 4000)
    assert GPU not in head.requests
    assert not head.groups
    assert (worker.replicas, worker.requests[GPU]) == (4, 8)
    assert worker.node_selector == {"pool": "gpu"}
    assert [(group.size, group.level) for group in worker.groups] == [(2, "host")]
    assert gang_request(view).total[GPU] == 32


def test_an_elastic_gang_asks_for_the_sizes_that_its_batch_divides_over() -> None:
    spec = {"replicas": None, "elastic": {"min": 2, "max": 8}}
    assert gang_request(job(**spec)).sizes == (8, 6, 4, 3, 2)
    alone = gang_request(job(**spec, recipe=None, template={"spec": {"containers": [{}]}}))
    assert alone.sizes == (8, 7, 6, 5, 4, 3, 2)
    assert gang_request(job()).sizes == ()
    with pytest.raises(ValueError, match="batchSize"):
        gang_request(job(replicas=None, elastic={"min": 5, "max": 5}))


def test_a_placed_elastic_gang_has_the_size_of_its_placement() -> None:
    view = job(TrainingJobStatus(placement=TWO), **ELASTIC)
    granted = placed_request(gang_request(view), TWO)
    assert (granted.replicas, dict(granted.fixed)) == (2, {0: "a", 1: "b"})
    assert running_gang(view, gang_request(view), 0, NOW).request.replicas == 2
    repair = gang_request(view, fixed={0: "a"})
    assert (repair.missing, repair.sizes) == ((1,), ())
    assert isinstance(repair, GangRequest)


def test_it_runs_once_the_pods_that_it_was_given_run() -> None:
    view = job(**ELASTIC)
    assert view.replicas == 3
    view = after(view, placed(view, TWO, NOW))
    assert view.status.replicas == 2
    creates = [a for a in plan(view, [], NODES, None, NOW).actions if isinstance(a, CreatePod)]
    assert creates == [CreatePod(0, "a"), CreatePod(1, "b")]
    result = plan(view, [pod(0), pod(1)], NODES, report(), NOW)
    assert cond.is_true(result.status.conditions, cond.RUNNING)
    assert result.status.ready_replicas == 2


def test_a_placement_of_a_size_that_the_spec_excludes_by_now_is_given_up() -> None:
    view = job(TrainingJobStatus(placement=TWO), replicas=None, elastic={"min": 3, "max": 4})
    assert plan(view, [], NODES, None, NOW).status.placement is None


def small(seconds: float, **spec: object) -> JobView:
    """A job that has trained with two of three replicas for so long."""
    conditions = [
        Condition(
            type=cond.RUNNING,
            status="True",
            reason="Training",
            message="all replicas train",
            last_transition_time=at(NOW - seconds),
        )
    ]
    status = TrainingJobStatus(placement=TWO, conditions=conditions)
    return job(status, **(ELASTIC | spec))


def test_a_small_gang_asks_for_its_larger_sizes_after_a_while() -> None:
    pods = [pod(0), pod(1)]
    early = plan(small(5), pods, NODES, report(), NOW)
    assert early.request is None
    assert early.requeue_after == pytest.approx(GROWS_AFTER_SECONDS - 5)
    view = small(100)
    wish = plan(view, pods, NODES, report(), NOW).request
    assert wish is not None
    assert (wish.sizes, wish.missing, dict(wish.fixed)) == ((3,), (0, 1, 2), {})
    assert grown_from(view, wish)


def test_what_is_no_growth() -> None:
    pods = [pod(0), pod(1)]
    largest = small(100, elastic={"min": 1, "max": 2})
    assert plan(largest, pods, NODES, report(), NOW).request is None
    lost_all = gang_request(small(100))
    assert not grown_from(small(100), lost_all), "it may come back smaller"
    assert plan(small(100), pods[:1], NODES, report(), NOW).request is None, "it is not whole"
