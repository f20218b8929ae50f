"""The devices that a placement gives to replicas: from the choice to status and pods, and back."""

import json
from dataclasses import replace

from drakkar.constants import SHARES_ANNOTATION
from drakkar.v1alpha1.trainingjob import Placement
from drakkar_operator.cluster import project
from drakkar_operator.model import NodeView, PodView
from drakkar_operator.reconcile.demand import gang_request, leaving_gang, running_gang
from drakkar_operator.reconcile.places import placement, shares_of
from drakkar_operator.reconcile.trainingjob import placed as admitted
from drakkar_operator.render.pods import training_pod
from drakkar_operator.render.settings import WorkerSettings
from drakkar_operator.scheduling.decision import Placed, reservations
from drakkar_operator.scheduling.placement import place
from support.jobs import NOW, after, job
from support.scheduling import node, snapshot

MILLI = "nvidia.com/gpu-milli"
SETTINGS = WorkerSettings(image="any")
VIEW = job(
    replicas=3,
    resources={"requests": {"cpu": 1, MILLI: 600}, "limits": {MILLI: 600}},
)


def sharing(name: str, devices: int) -> NodeView:
    """A node that shares out its devices."""
    amounts = {MILLI: 1000 * devices}
    return node(name, "z/b/r", 0, allocatable=amounts, devices={MILLI: devices})


def choose(view=VIEW, **rest) -> Placed:  # type: ignore[no-untyped-def]
    """Places for the job on two nodes of two devices each."""
    found = place(snapshot([sharing("a", 2), sharing("b", 2)]), gang_request(view, **rest))
    assert isinstance(found, Placed), found
    return found


def test_the_choice_is_kept_and_written_to_the_pods() -> None:
    chosen = choose()
    kept = placement(chosen)
    assert shares_of(kept.shares) == chosen.shares
    assert Placement.model_validate(kept.wire()) == kept
    view = after(VIEW, admitted(VIEW, kept, NOW))
    for replica, node_name in enumerate(kept.nodes):
        raw = training_pod(view, replica, node_name, SETTINGS)
        raw["metadata"]["uid"] = f"uid-{replica}"
        assert project.pod(raw).shares == chosen.shares[replica]


def test_a_restarted_operator_keeps_the_choice() -> None:
    """What is free, by the status alone and by the pods alone, is the same."""
    kept = placement(choose())
    view = after(VIEW, admitted(VIEW, kept, NOW))
    nodes = [sharing("a", 2), sharing("b", 2)]
    held = reservations(gang_request(view), dict(enumerate(kept.nodes)), shares_of(kept.shares))
    pods: list[PodView] = []
    for replica, name in enumerate(kept.nodes):
        raw = training_pod(view, replica, name, SETTINGS)
        raw["metadata"]["uid"] = f"uid-{replica}"
        pods.append(project.pod(raw))
    by_status = snapshot(nodes).assume(held).devices[MILLI]
    assert by_status.tolist() == snapshot(nodes, pods).devices[MILLI].tolist()
    # And all of it is free again once the gang has left.
    gang = running_gang(view, gang_request(view), 0, NOW)
    assert snapshot(nodes, pods).release(gang.reservations).devices[MILLI].min() == 1000
    moved = replace(view, status=view.status.model_copy(update={"placement": None}))
    leaving = leaving_gang(moved, gang_request(moved), pods)
    assert leaving is not None
    assert leaving.shares == shares_of(kept.shares)


def test_replicas_that_stay_keep_their_devices() -> None:
    kept = placement(choose())
    view = after(VIEW, admitted(VIEW, kept, NOW))
    fixed = {0: kept.nodes[0], 2: kept.nodes[2]}
    repaired = placement(choose(view, fixed=fixed), before=kept)
    of = shares_of(repaired.shares)
    assert set(of) == {0, 1, 2}
    assert {at: of[at] for at in fixed} == {at: shares_of(kept.shares)[at] for at in fixed}


def test_pods_without_shares_have_no_annotation() -> None:
    pod = training_pod(
        after(
            job(),
            admitted(job(), Placement(level="cluster", domain="", nodes=["a", "b", "c"]), NOW),
        ),
        0,
        "a",
        SETTINGS,
    )
    assert SHARES_ANNOTATION not in pod["metadata"]["annotations"]
    assert json.dumps(pod)
