"""What a job asks of the scheduler, read from the pods it would get."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from drakkar.v1alpha1.recipes import usable_sizes
from drakkar.v1alpha1.trainingjob import Placement, TrainingJobSpec
from drakkar_operator.model import JobView, PodView
from drakkar_operator.reconcile import conditions as cond
from drakkar_operator.reconcile.places import shares_of
from drakkar_operator.render.pods import training_pod
from drakkar_operator.render.resources import pod_requests
from drakkar_operator.render.settings import WorkerSettings
from drakkar_operator.scheduling.request import GangRequest, Role, rules_of_pod
from drakkar_operator.scheduling.workload import Running

_ANY_IMAGE = WorkerSettings(image="any")
"""Settings don't change what a pod asks for."""
_MOST_RENDERED = 20_000
GROWS_AFTER_SECONDS = 30.0
"""An elastic gang that is smaller than it may be keeps its place at least so long before it grows."""
_RENDERED: dict[tuple[str, str], tuple[TrainingJobSpec, Mapping[str, Any]]] = {}
"""(job UID, role) -> the spec, and what it came to."""


def gang_request(
    job: JobView,
    *,
    fixed: Mapping[int, str] | None = None,
    avoid: frozenset[str] = frozenset(),
    spares: int = 0,
) -> GangRequest:
    """The request for a gang of which the replicas in ``fixed`` stay where they are.

    Spares count as further replicas of the last role, with the indexes after those of the gang.
    Raises ValueError if the recipe can't run at any size of the gang, or if the template's
    quantities or terms are malformed.
    """
    spec = job.spec
    size = job.replicas if fixed else usable_sizes(spec)[0]
    parts = [(role.name, role.replicas, role.groups) for role in spec.roles]
    roles: list[Role] = []
    for name, replicas, groups in parts or [("", size, spec.topology.groups)]:
        first = sum(role.replicas for role in roles)
        own = _pod_part(job, name, first)
        spread = spec.topology.spread
        roles.append(Role(replicas, name=name, groups=tuple(groups), spread=spread, **own))
    if spares:
        roles.append(roles[-1].spare(spares))
    return GangRequest(
        job.key,
        tuple(roles),
        missing=tuple(at for at in range(size + spares) if at not in (fixed or {})),
        fixed=fixed or {},
        topology=spec.topology,
        avoid=avoid,
        sizes=usable_sizes(spec) if spec.elastic and not fixed else (),
    )


def growth_request(job: JobView) -> GangRequest | None:
    """The request of a placed elastic gang for any larger size; None if there is none."""
    request = gang_request(job) if job.spec.elastic else None
    larger = tuple(size for size in request.sizes if size > job.replicas) if request else ()
    return replace(request, sizes=larger) if request and larger else None


def grown_from(job: JobView, request: GangRequest) -> bool:
    """Whether a request is for a larger size of a gang that lacks nothing."""
    held = job.status.placement is not None
    return held and bool(request.sizes) and request.sizes[-1] > job.replicas


def _pod_part(job: JobView, role: str, replica: int) -> Mapping[str, Any]:
    """The arguments of a Role that its pods decide, kept as long as the job's spec is the same.

    Rendering a pod costs much more than comparing two specs, and is asked for at every look.
    """
    known = _RENDERED.get((job.uid, role))
    if known is None or known[0] != job.spec:
        pod = training_pod(job, replica, "", _ANY_IMAGE)["spec"]
        known = job.spec, {"requests": pod_requests(pod), **rules_of_pod(pod)}
        if len(_RENDERED) >= _MOST_RENDERED:
            _RENDERED.pop(next(iter(_RENDERED)), None)
        _RENDERED[job.uid, role] = known
    return known[1]


def placed_request(request: GangRequest, placement: Placement) -> GangRequest:
    """A job's request as it was granted: all ranks in place, an elastic gang at its size, spares."""
    size, spares = len(placement.nodes), len(placement.spares)
    if request.sizes and size != request.replicas:
        request = request.resized(size)
    roles = request.roles
    if spares:
        roles = (*roles, roles[-1].spare(spares))
    fixed = dict(enumerate([*placement.nodes, *placement.spares]))
    return replace(request, roles=roles, missing=(), fixed=fixed, sizes=())


def running_gang(job: JobView, request: GangRequest, priority: int, now: float) -> Running:
    """A placed job as the scheduler sees it; ``request`` is its request as if none had a node.

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
    if job.spec.active_deadline_seconds is not None:
        start = status.start_time.timestamp() if status.start_time is not None else now
        ends.append(start + job.spec.active_deadline_seconds)
    return Running(
        key=job.key,
        request=placed_request(request, placement),
        queue=job.spec.queue,
        priority=priority,
        created=job.created,
        placed=max(since).timestamp() if since else 0.0,
        saved=status.checkpoints[-1].time.timestamp() if status.checkpoints else None,
        restarts=len(status.restarts),
        ends=min(ends, default=None),
        movable=job.spec.movable,
        leaving=job.deleting,
        shares=shares_of(placement.shares),
    )


def leaving_gang(job: JobView, request: GangRequest, pods: Iterable[PodView]) -> Running | None:
    """What a job's pods still hold of places that are not theirs any more; None: nothing.

    So are the pods of a gang that was evicted, moved, suspended or that is done.
    """
    placement, done = job.status.placement, cond.finished(job.status.conditions)
    places = placement.nodes if placement is not None and not done else []
    gone = {
        pod.replica: pod
        for pod in pods
        if pod.replica is not None
        and pod.node is not None
        and not pod.finished
        and places[pod.replica : pod.replica + 1] != [pod.node]
    }
    held = {replica: pod.node for replica, pod in gone.items() if pod.node is not None}
    if not held:
        return None
    shares = {replica: pod.shares for replica, pod in gone.items() if pod.shares}
    # The gang may have been larger when these pods were created.
    *roles, last = request.roles
    more = max(0, max(held) + 1 - request.replicas)
    last = replace(last, replicas=last.replicas + more, groups=())
    return Running(
        key=job.key,
        request=replace(request, roles=(*roles, last), missing=(), fixed=held),
        created=job.created,
        restarts=len(job.status.restarts),
        leaving=True,
        shares=shares,
    )
