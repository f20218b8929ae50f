"""What a service needs next, looked at again and again."""

from dataclasses import replace

import pytest

from drakkar_operator.reconcile.observed import CreationError
from drakkar_operator.reconcile.serving.autoscale import Load
from drakkar_operator.reconcile.serving.canary import Outcomes
from drakkar_operator.reconcile.serving.observed import ResolvedModel, Surroundings
from drakkar_operator.reconcile.serving.revisions import revision_name
from support.jobs import NODES, node
from support.services import QUIET, Story, service

OTHER = {"runtime": {"args": ["--max-sequences=8"]}}


def condition(story: Story, kind: str) -> tuple[str, str, str]:
    found = next(c for c in story.service.status.conditions if c.type == kind)
    return found.status, found.reason, found.message


def up(story: Story) -> list[str]:
    return [m.name for m in story.service.status.members if m.state == "Ready"]


def test_a_service_comes_up() -> None:
    story = Story(service(replicas=3))
    story.settle()
    assert up(story) == ["0", "1", "2"]
    assert condition(story, "Ready") == ("True", "Serving", "3 of 3 replicas are ready")
    assert condition(story, "Reconciling")[0] == "False"
    assert story.service.status.traffic[0].weight == 100
    assert story.last is not None
    assert story.last.table is not None
    assert [one.ready for one in story.last.table.endpoints] == [True] * 3


def test_the_placement_comes_before_the_pods_and_the_pods_are_those_of_the_placement() -> None:
    story = Story(
        service(
            model={"hf": {"repo": "a/b"}},
            runtime={"name": "vllm", "image": "vllm"},
            parallelism={"tensor": 2, "pods": 2},
        )
    )
    first = story.look()
    assert first.requests["0"].replicas == 2
    assert not story.pods
    story.look()
    assert sorted(story.pods) == ["chat-serve-0-0", "chat-serve-0-1"]
    story.settle()
    assert up(story) == ["0"]


def test_without_a_router_nobody_is_told_that_it_is_ready() -> None:
    story = Story(service())
    story.traffic = replace(QUIET, ready=0)
    story.settle()
    assert condition(story, "Ready")[:2] == ("False", "RouterNotReady")


def test_what_waits_for_room_says_why() -> None:
    story = Story(service())
    story.room = False
    story.look()
    assert condition(story, "Ready")[:2] == ("False", "NoReplica")
    assert condition(story, "Reconciling")[0] == "True"


@pytest.mark.parametrize(
    ("around", "reason"),
    [
        (Surroundings(queue_found=False), "QueueNotFound"),
        (Surroundings(model=ResolvedModel(problem="no checkpoint yet")), "ModelNotFound"),
        (Surroundings(creation_error=CreationError("bad", permanent=True)), "PodCreationFailed"),
    ],
)
def test_what_only_its_owner_can_mend_is_told(around: Surroundings, reason: str) -> None:
    story = Story(service())
    story.around = around
    story.look()
    assert condition(story, "Stalled")[:2] == ("True", reason)
    assert not story.pods


def test_an_update_never_takes_a_replica_before_the_next_is_ready() -> None:
    story = Story(service(replicas=3))
    story.settle()
    story.watch()
    story.change(**OTHER)
    story.settle(60)
    assert story.least == 3
    assert story.most <= 4
    revisions = {member.revision for member in story.service.status.members}
    assert revisions == {revision_name(story.service.spec)}
    assert story.service.status.stable_revision == revision_name(story.service.spec)
    assert len(story.service.status.revisions) == 1


def test_a_change_of_what_pods_are_not_made_of_replaces_none() -> None:
    story = Story(service(replicas=2))
    story.settle()
    before = dict(story.pods)
    story.change(routing={"policy": "round-robin"}, rollout={"drainSeconds": 7})
    story.settle()
    assert story.pods == before


def test_a_replica_is_deleted_only_when_no_router_sends_to_it_and_nothing_runs_there() -> None:
    story = Story(service(replicas=2))
    story.settle()
    story.change(replicas=1)
    story.traffic = replace(story.traffic, in_flight={"chat-serve-1": 1})
    for _ in range(5):
        story.look()
    assert "chat-serve-1" in story.pods
    table = story.traffic.table
    assert table is not None
    assert [one.draining for one in table.endpoints] == [False, True]
    # All is quiet, but a router has an older table.
    story.traffic = replace(story.traffic, in_flight={}, table=None)
    found = story.look()
    assert "chat-serve-1" in story.pods
    story.traffic = replace(story.traffic, table=found.table)
    story.look()
    assert "chat-serve-1" not in story.pods
    story.look()
    assert [member.name for member in story.service.status.members] == ["0"]


def test_a_drain_ends_with_its_time() -> None:
    story = Story(service(replicas=2, rollout={"drainSeconds": 100}))
    story.settle()
    story.change(replicas=1)
    story.traffic = replace(story.traffic, in_flight={"chat-serve-1": 1})
    story.look()
    story.now += 101
    story.look()
    assert "chat-serve-1" not in story.pods


def test_a_pod_of_a_lost_node_is_replaced_elsewhere() -> None:
    story = Story(service(), dict(NODES))
    story.settle()
    story.nodes = {**NODES, "a": node("a", ready=False)}
    found = story.look()
    assert any(getattr(action, "grace_seconds", None) == 0 for action in found.actions)
    story.settle()
    assert story.pods["chat-serve-0"].node == "b"
    restart = story.service.status.restarts[-1]
    assert (restart.reason, restart.node) == ("NodeLost", "a")
    assert story.service.status.restart_count == 1


def test_a_replica_of_several_pods_restarts_as_a_whole() -> None:
    story = Story(
        service(
            model={"hf": {"repo": "a/b"}},
            runtime={"name": "vllm", "image": "vllm"},
            parallelism={"tensor": 2, "pods": 2},
        )
    )
    story.settle()
    story.pods["chat-serve-0-1"] = replace(
        story.pods["chat-serve-0-1"], phase="Failed", reason="Evicted"
    )
    story.look()
    assert not story.pods
    story.settle()
    assert up(story) == ["0"]


@pytest.mark.parametrize("gone_first", ["chat-serve-0-0", "chat-serve-0-1"])
def test_a_deleted_pod_of_several_is_one_restart(gone_first: str) -> None:
    """Its siblings leave for their replica's sake, as slowly as it does."""
    story = Story(
        service(
            model={"hf": {"repo": "a/b"}},
            runtime={"name": "vllm", "image": "vllm"},
            parallelism={"tensor": 2, "pods": 2},
        )
    )
    story.settle()
    pods = {name: replace(pod, deleting=True) for name, pod in story.pods.items()}
    story.pods["chat-serve-0-1"] = pods["chat-serve-0-1"]
    story.look()
    story.pods = dict(pods)
    story.look()
    # Its process ends with an error, since it has nobody to speak to.
    story.pods["chat-serve-0-0"] = replace(pods["chat-serve-0-0"], phase="Failed", exit_code=1)
    story.look()
    del story.pods[gone_first]
    story.look()
    story.pods.clear()
    story.settle()
    (restart,) = story.service.status.restarts
    assert (restart.reason, restart.scope, restart.replica) == ("PodDeleted", "gang", 1)
    assert up(story) == ["0"]


def test_restarts_by_the_kubelet_are_counted_once() -> None:
    story = Story(service())
    story.settle()
    pod = story.pods["chat-serve-0"]
    assert pod.serving is not None
    story.pods[pod.name] = replace(pod, serving=replace(pod.serving, restarts=2, ready=False))
    story.look()
    story.look()
    assert story.service.status.restart_count == 2
    assert story.service.status.members[0].state == "NotReady"


def test_a_displaced_replica_gives_up_its_pods_and_asks_again() -> None:
    story = Story(service())
    story.settle()
    gone = story.service.status.members[0].model_copy(update={"placement": None})
    status = story.service.status.model_copy(update={"members": [gone]})
    story.service = replace(story.service, status=status)
    story.room = False
    story.look()
    assert not story.pods
    assert "0" in story.look().requests


def trial(**outcomes: Outcomes) -> Story:
    """A canary that runs beside two stable replicas."""
    story = Story(service(replicas=2, canary={"weight": 25, "seconds": 10, "minRequests": 10}))
    story.settle()
    story.change(**OTHER)
    for _ in range(6):
        story.look()
        for name, pod in story.pods.items():
            assert pod.serving is not None
            story.pods[name] = replace(pod, serving=replace(pod.serving, ready=True))
    status = story.service.status
    assert status.canary is not None
    assert status.canary.state == "Running"
    assert {each.revision: each.weight for each in status.traffic} == {
        status.stable_revision: 75,
        status.canary.revision: 25,
    }
    found = {
        status.stable_revision or "": outcomes["stable"],
        status.canary.revision: outcomes["new"],
    }
    story.traffic = replace(story.traffic, outcomes=found)
    return story


def test_a_good_canary_is_promoted() -> None:
    story = trial(stable=Outcomes(30), new=Outcomes(10))
    story.now += 20
    story.settle(60)
    assert story.service.status.stable_revision == revision_name(story.service.spec)
    assert len(up(story)) == 2
    assert story.service.status.canary is not None
    assert story.service.status.canary.state == "Promoted"


def test_a_bad_canary_is_taken_back_and_not_tried_again() -> None:
    story = trial(stable=Outcomes(30), new=Outcomes(10, faults=5))
    before = story.service.status.stable_revision
    story.settle()
    story.traffic = QUIET
    story.settle()
    status = story.service.status
    assert status.stable_revision == before
    assert {member.revision for member in status.members} == {before}
    assert condition(story, "Stalled")[:2] == ("True", "RolledBack")
    assert [(each.revision, each.weight) for each in status.traffic] == [(before, 100)]
    story.change(runtime={"args": ["--max-sequences=16"]})
    story.look()
    assert story.service.status.canary is not None
    assert story.service.status.canary.state == "Starting"
    assert condition(story, "Stalled")[0] == "False"


def test_going_back_to_the_stable_spec_ends_a_canary() -> None:
    story = trial(stable=Outcomes(30), new=Outcomes(5))
    story.change(runtime=None)
    story.settle()
    assert story.service.status.canary is None
    assert len(up(story)) == 2


def test_zero_and_back() -> None:
    scaling = {"min": 0, "max": 4, "target": 2, "behavior": {"scaleToZeroSeconds": 5}}
    scaling["behavior"]["scaleDownDelaySeconds"] = 1
    story = Story(service(scaling=scaling))
    story.traffic = replace(QUIET, load=Load())
    story.settle(5 + 30)
    story.now += 10
    for _ in range(5):
        story.look()
    assert story.service.status.desired_replicas == 0
    assert not story.pods
    assert condition(story, "Ready")[:2] == ("True", "ScaledToZero")
    story.traffic = replace(story.traffic, load=Load(held=1))
    story.settle()
    assert up(story) == ["0"]


def test_the_first_replica_comes_however_late_the_model_does() -> None:
    scaling = {"min": 0, "max": 4, "target": 2, "behavior": {"scaleToZeroSeconds": 5}}
    story = Story(service(scaling=scaling))
    story.traffic = replace(QUIET, load=Load())
    story.around = replace(story.around, model=ResolvedModel(problem="no checkpoint yet"))
    for _ in range(20):
        story.look()
    assert not story.pods
    story.around = replace(story.around, model=ResolvedModel("runs", "gpt/step-20"))
    for _ in range(3):
        story.look()
    assert list(story.pods) == ["chat-serve-0"]


def test_an_update_at_zero_takes_over_at_once() -> None:
    story = Story(service(replicas=0, canary={"weight": 10}))
    story.settle()
    story.change(canary=None, **OTHER)
    story.settle()
    assert story.service.status.stable_revision == revision_name(story.service.spec)
    assert not story.pods
