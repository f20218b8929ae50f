"""What a job asks of the scheduler, read from the pods it would get."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from drakkar_operator.model import JobView, PodView
from drakkar_operator.reconcile import conditions as cond
from drakkar_operator.render.pods import training_pod
from drakkar_operator.render.resources import pod_requests
from drakkar_operator.render.settings import WorkerSettings
from drakkar_operator.scheduling.request import GangRequest, rules_of_pod
from drakkar_operator.scheduling.workload import Running

_ANY_IMAGE = WorkerSettings(image="any")
"""Settings don't change what a pod asks for."""


def gang_request(
    job: JobView,
    missing: tuple[int, ...],
    *,
    fixed: Mapping[int, str] | None = None,
    avoid: frozenset[str] = frozenset(),
    spares: int = 0,
) -> GangRequest:
    """The request for the missing replicas of a gang whose other replicas stay where they are.

    Spares count as further replicas, with the indexes after those of the gang.
    Raises ValueError if the template's quantities or terms are malformed.
    """
    spec = training_pod(job, 0, "", _ANY_IMAGE)["spec"]
    return GangRequest(
        key=job.key,
        replicas=job.spec.replicas + spares,
        requests=pod_requests(spec),
        missing=missing,
        fixed=fixed or {},
        topology=job.spec.topology,
        avoid=avoid,
        **rules_of_pod(spec),
    )


def running_gang(job: JobView, replica: GangRequest, priority: int, now: float) -> Running:
    """A placed job as the scheduler sees it; ``replica`` is its request for any of its replicas.

    It is expected to be done when its progress says so, and at its deadline at the latest.
    """
    status, placement = job.status, job.status.placement
    assert placement is not None
    admitted = cond.find(status.conditions, cond.ADMITTED)
    since = [admitted.last_transition_time] if admitted is not None else []
    since += [restart.time for restart in status.restarts if restart.reason == "Moved"]
    ends = []
    if status.progress is not None and status.progress.eta_seconds is not None:
        ends.append(now + status.progress.eta_seconds)
    if job.spec.active_deadline_seconds is not None and status.start_time is not None:
        ends.append(status.start_time.timestamp() + job.spec.active_deadline_seconds)
    return Running(
        key=job.key,
        request=replace(
            replica,
            replicas=len(placement.nodes) + len(placement.spares),
            missing=(),
            fixed=dict(enumerate([*placement.nodes, *placement.spares])),
        ),
        queue=job.spec.queue,
        priority=priority,
        created=job.created,
        placed=max(since).timestamp() if since else 0.0,
        saved=status.checkpoints[-1].time.timestamp() if status.checkpoints else None,
        restarts=len(status.restarts),
        ends=min(ends, default=None),
        movable=job.spec.movable,
        leaving=job.deleting,
    )


def leaving_gang(job: JobView, replica: GangRequest, pods: Iterable[PodView]) -> Running | None:
    """What a job's pods still hold of places that are not theirs any more; None: nothing.

    So are the pods of a gang that was evicted, moved, suspended or that is done.
    """
    placement, done = job.status.placement, cond.finished(job.status.conditions)
    places = placement.nodes if placement is not None and not done else []
    held = {
        pod.replica: pod.node
        for pod in pods
        if pod.replica is not None
        and pod.node is not None
        and not pod.finished
        and places[pod.replica : pod.replica + 1] != [pod.node]
    }
    if not held:
        return None
    replicas = max(*held, job.spec.replicas - 1) + 1
    return Running(
        key=job.key,
        request=replace(replica, replicas=replicas, missing=(), fixed=held),
        created=job.created,
        restarts=len(job.status.restarts),
        leaving=True,
    )
