"""Pods that a gang loses: recorded with their cause, cleared away, counted."""

from collections.abc import Sequence

from drakkar.v1alpha1.trainingjob import Restart
from drakkar_operator.model import UNSCHEDULABLE, PodView
from drakkar_operator.reconcile import conditions as cond
from drakkar_operator.reconcile.conditions import Reason
from drakkar_operator.reconcile.draft import Draft
from drakkar_operator.reconcile.failures import (
    Loss,
    deleted_pod,
    failed_pod,
    on_broken_device,
    on_lost_node,
)
from drakkar_operator.reconcile.observed import REPORT_TRUSTED_SECONDS, Observed
from drakkar_operator.reconcile.restarts import at, merge
from drakkar_operator.render.pods import pod_name

UNBOUND_SECONDS = 60.0
"""How long a pod may wait for kube-scheduler to bind it."""
REFUSED_SECONDS = 10.0
"""The same once it said that it can't: what was there just before may be leaving."""


def record_losses(draft: Draft, seen: Observed) -> None:
    """Put every lost pod on record with its cause, and clear it away."""
    lost: list[Restart] = []
    for pod in seen.pods:
        loss = _loss(draft, seen, pod)
        if loss is not None:
            # A gang that restarts as a whole has one cause; the others follow from it.
            follows = seen.scope == "gang" and any(restart.counted for restart in lost)
            lost.append(
                Restart(
                    id=pod.uid,
                    time=at(_lost_at(pod, seen.now)),
                    scope=seen.scope,
                    reason=loss.reason,
                    message=loss.message,
                    evidence=list(loss.evidence),
                    replica=pod.replica,
                    node=_place(draft, pod),
                    counted=loss.counted and not follows,
                )
            )
        _clear_away(draft, seen, pod, loss)
    record(draft, lost)
    if lost and seen.scope == "gang":
        delete_pods(draft, seen, [pod for pod in seen.pods if pod.phase != "Failed"])


def _clear_away(draft: Draft, seen: Observed, pod: PodView, loss: Loss | None) -> None:
    """Delete what is lost or in the wrong place, by force where no kubelet would answer."""
    on_lost = on_lost_node(pod, seen.nodes) is not None
    if on_lost and seen.vouched(pod):
        draft.look_again_in(REPORT_TRUSTED_SECONDS)
    elif on_lost and (pod.phase != "Succeeded" or pod.deleting):
        draft.delete(pod.name, pod.uid, force=True)
    elif pod.deleting:
        return
    elif loss is not None or pod.phase == "Failed" or _misplaced(draft, pod):
        draft.delete(pod.name, pod.uid)


def _lost_at(pod: PodView, now: float) -> float:
    """The same time at every look, where the pod tells one: records then keep their order."""
    if pod.deletion_time is None:
        return now
    return min(pod.deletion_time - pod.grace, now)


def record_vanished(draft: Draft, seen: Observed) -> None:
    """Pods of a running gang that are gone without a trace: deleted by force, or unseen.

    The condition is still that of the last look; it turns False with this record, which is so made
    once.
    """
    running = cond.find(draft.conditions, cond.RUNNING)
    if draft.placement is None or running is None or running.status != "True":
        return
    since = int(running.last_transition_time.timestamp())
    for replica in sorted(set(range(draft.replicas)) - set(seen.by_replica)):
        name, node = pod_name(seen.job.name, replica), draft.placement.nodes[replica]
        lost = Restart(
            id=f"{name}-{since}",
            time=at(seen.now),
            scope=seen.scope,
            reason="PodDeleted",
            message=f"{name} on {node}: the pod is gone without a trace",
            evidence=[
                f"the gang ran since {running.last_transition_time:%H:%M:%S} UTC with this pod"
            ],
            replica=replica,
            node=node,
            counted=False,
        )
        record(draft, [lost])
        if seen.scope == "gang":
            delete_pods(draft, seen, seen.live)


def out_of_restarts(draft: Draft, seen: Observed) -> bool:
    """Only the budget of counted restarts ends a job that could go on."""
    allowed = seen.job.spec.fault_tolerance.max_restarts
    if draft.restart_count <= allowed:
        return False
    last = next((r for r in reversed(draft.restarts) if r.counted), None)
    cause = f"; the last: {last.reason}: {last.message}" if last else ""
    draft.fail(
        Reason.RESTARTS_EXCEEDED,
        f"{draft.restart_count} failures, maxRestarts is {allowed}{cause}",
    )
    delete_pods(draft, seen, seen.live)
    return True


def record(draft: Draft, restarts: Sequence[Restart]) -> None:
    """Add interruptions that are not on record yet."""
    draft.restarts, new = merge(draft.restarts, restarts)
    for restart in new:
        draft.restart_count += restart.counted
        draft.event("Warning", restart.reason, restart.message)


def delete_pods(draft: Draft, seen: Observed, pods: Sequence[PodView]) -> None:
    """Delete pods that still run: gracefully, or by force where no kubelet would answer."""
    for pod in pods:
        lost = on_lost_node(pod, seen.nodes) is not None
        if lost or not pod.deleting:
            draft.delete(pod.name, pod.uid, force=lost)


def _loss(draft: Draft, seen: Observed, pod: PodView) -> Loss | None:
    """Why this pod is lost to the gang; None if it is well or if that was the operator's will."""
    if pod.phase == "Succeeded" or _misplaced(draft, pod):
        return None
    if pod.deleting and _restarted_with_gang(draft, pod):
        return None
    broken = on_broken_device(pod, seen.nodes)
    if pod.phase == "Failed":
        # Whatever its processes said as they died, the device is the cause.
        return broken or failed_pod(pod)
    lost = on_lost_node(pod, seen.nodes)
    if lost is not None and not seen.vouched(pod):
        return lost
    if broken is not None:
        return broken
    if pod.deleting:
        return deleted_pod(pod)
    return _unbound(draft, seen, pod)


def _unbound(draft: Draft, seen: Observed, pod: PodView) -> Loss | None:
    """A pod that kube-scheduler does not bind to the one node that it is allowed."""
    place = _place(draft, pod)
    if pod.node is not None or place is None:
        return None
    node = seen.nodes.get(place)
    if node is None or not node.ready or node.unschedulable:
        return Loss("Refused", f"{pod.name}: {place} takes no pods any more", counted=False)
    refused = pod.waiting_reason == UNSCHEDULABLE
    left = pod.created + (REFUSED_SECONDS if refused else UNBOUND_SECONDS) - seen.now
    if left > 0:
        draft.look_again_in(left)
        return None
    why = f": {pod.message}" if refused else ""
    return Loss(
        "Refused", f"{pod.name}: kube-scheduler does not bind it to {place}{why}", counted=False
    )


def _place(draft: Draft, pod: PodView) -> str | None:
    """Node of a pod, or the one that its replica is given."""
    if pod.node is not None or draft.placement is None or pod.replica is None:
        return pod.node
    return draft.placement.nodes[pod.replica]


def _misplaced(draft: Draft, pod: PodView) -> bool:
    """The pod is not where the placement wants its replica."""
    if draft.placement is None or pod.replica is None:
        return True
    if pod.replica >= len(draft.placement.nodes):
        return True
    return pod.node is not None and pod.node != draft.placement.nodes[pod.replica]


def _restarted_with_gang(draft: Draft, pod: PodView) -> bool:
    return any(
        restart.scope == "gang" and restart.time.timestamp() >= int(pod.created)
        for restart in draft.restarts
    )
