"""Making the gang whole, and saying whether it trains or what it waits for."""

import zlib

from drakkar_operator.reconcile import conditions as cond
from drakkar_operator.reconcile.actions import CreatePod, DeletePod, EnsureService
from drakkar_operator.reconcile.conditions import Reason
from drakkar_operator.reconcile.demand import GROWS_AFTER_SECONDS, gang_request, growth_request
from drakkar_operator.reconcile.draft import Draft
from drakkar_operator.reconcile.losses import delete_pods
from drakkar_operator.reconcile.observed import Observed
from drakkar_operator.reconcile.restarts import AVOID_SECONDS, avoided_nodes, backoff_left
from drakkar_operator.scheduling.predicates import untolerated
from drakkar_operator.scheduling.request import GangRequest, Role

REFUSED_SECONDS = 30.0
"""How long the API server may refuse a gang's pods before the gang gives up its place."""


def complete_gang(draft: Draft, seen: Observed) -> None:
    """Create the pods that are missing, or ask the scheduler for places."""
    held = set(seen.by_replica)
    missing = tuple(r for r in range(draft.replicas) if r not in held)
    error = seen.context.creation_error
    if error is not None and error.permanent:
        draft.fail(Reason.INVALID_SPEC, f"the API server refuses the pods: {error.message}")
        delete_pods(draft, seen, seen.live)
        return
    if error is not None and draft.placement is not None and missing:
        refused = seen.now - error.since
        if refused > REFUSED_SECONDS:
            # Half a gang must not hold what another could use.
            draft.placement = None
            wait(draft, Reason.CREATION_FAILED, f"pods can't be created: {error.message}")
            delete_pods(draft, seen, seen.live)
            return
    if draft.placement is None:
        if not seen.pods:
            _ask_for_places(draft, seen)
        return
    if not missing:
        _complete_spares(draft, seen)
        _grow(draft, seen)
        return
    leaves = seen.scope == "gang" and any(pod.deleting for pod in seen.pods)
    # A rank that ended well can't meet its successors: it has to come back with them.
    for pod in seen.pods if not leaves else ():
        if pod.phase == "Succeeded" and not pod.deleting:
            draft.delete(pod.name, pod.uid)
    pause = backoff_left(draft.restarts, seen.job.spec.fault_tolerance, seen.now)
    if pause > 0:
        draft.look_again_in(pause)
        return
    avoid = avoided_nodes(draft.restarts, seen.now)
    places = draft.placement.nodes
    whole = gang_request(seen.job)
    unusable = tuple(
        r for r in missing if places[r] in avoid or not _usable(seen, places[r], whole.role_of(r))
    )
    if unusable:
        fixed = {r: node for r, node in enumerate(places) if r not in unusable}
        _request(draft, gang_request(seen.job, fixed=fixed, avoid=avoid))
        return
    if leaves:
        return
    if draft.replicas > 1:
        draft.actions.append(EnsureService())
    draft.actions.extend(CreatePod(replica, places[replica]) for replica in missing)


def judge_running(draft: Draft, seen: Observed) -> None:
    """Whether the whole gang trains now, and if not, what it waits for."""
    if draft.placement is None:
        if draft.is_true(cond.RUNNING):
            draft.set(cond.RUNNING, "False", Reason.RECOVERING, "the gang waits for room")
        return
    lost = any(isinstance(action, DeletePod) for action in draft.actions)
    whole = draft.ready_replicas == draft.replicas and not lost
    if whole and seen.job.spec.runtime == "torch":
        # Without a report, just after a restart of the operator, no news is no change.
        whole = seen.report.state == "running" if seen.report else draft.is_true(cond.RUNNING)
    if whole:
        if draft.set(cond.RUNNING, "True", Reason.TRAINING, "all replicas train"):
            _tell_of_start(draft, again=seen.job.status.start_time is not None)
        draft.started = True
        return
    started = seen.job.status.start_time is not None
    reason = Reason.RECOVERING if started else Reason.STARTING
    draft.set(cond.RUNNING, "False", reason, _waiting_for(draft, seen))


def _tell_of_start(draft: Draft, *, again: bool) -> None:
    """With the place: a gang that got it at once was not told before."""
    admitted = cond.find(draft.conditions, cond.ADMITTED)
    where = f"; {admitted.message}" if admitted is not None else ""
    draft.event("Normal", "Recovered" if again else "Started", f"all replicas train{where}")


def wait(draft: Draft, reason: Reason, message: str, outlook: str = "") -> None:
    """Not admitted, for this reason; the user is told by an event when the reason changes.

    ``outlook`` is what changes by itself while the reason stays: it is shown beside it.
    """
    told = cond.find(draft.conditions, cond.ADMITTED)
    news = (
        draft.pending_reason is None
        or told is None
        or told.message != message[: cond.MESSAGE_LIMIT]
    )
    draft.pending_reason = (f"{message}; {outlook}" if outlook else message)[:2048]
    draft.queue_position = draft.expected_start = None
    draft.set(cond.ADMITTED, "False", reason, message)
    if news:
        draft.event("Normal" if reason is Reason.WAITING else "Warning", reason, message)


def _ask_for_places(draft: Draft, seen: Observed) -> None:
    """Everything the gang waits for, besides room, is looked at first."""
    error = seen.context.creation_error
    if not seen.context.queue_found:
        wait(
            draft,
            Reason.QUEUE_NOT_FOUND,
            f"spec.queue: there is no Queue named {seen.job.spec.queue!r}; "
            "create it or name another (kubectl get queues)",
        )
    elif error is not None and seen.now - error.last < _held_off(seen):
        wait(draft, Reason.CREATION_FAILED, f"pods can't be created: {error.message}")
        draft.look_again_in(error.last + _held_off(seen) - seen.now)
    elif seen.context.claim_problem is not None:
        wait(draft, Reason.CLAIM_NOT_FOUND, seen.context.claim_problem)
        draft.look_again_in(5.0)
    else:
        avoid = avoided_nodes(draft.restarts, seen.now)
        spares = seen.job.spec.fault_tolerance.spares
        _request(draft, gang_request(seen.job, avoid=avoid, spares=spares))


def _complete_spares(draft: Draft, seen: Observed) -> None:
    """Ask for the spares that were used or lost; give up those that can't be used."""
    place, wanted = draft.placement, seen.job.spec.fault_tolerance.spares
    assert place is not None
    if not (place.spares or wanted):
        return
    rules = gang_request(seen.job).roles[-1]
    spares = [name for name in place.spares if _usable(seen, name, rules)][:wanted]
    if spares != place.spares:
        draft.placement = place.model_copy(update={"spares": spares})
    if len(spares) < wanted:
        fixed = dict(enumerate([*place.nodes, *spares]))
        draft.request = gang_request(seen.job, fixed=fixed, spares=wanted)


def _grow(draft: Draft, seen: Observed) -> None:
    """Ask for a larger size of an elastic gang that has trained for a while at a smaller one."""
    if not seen.job.spec.elastic or not draft.is_true(cond.RUNNING):
        return
    wish = growth_request(seen.job)
    running = cond.find(draft.conditions, cond.RUNNING)
    if wish is None or running is None:
        return
    left = running.last_transition_time.timestamp() + GROWS_AFTER_SECONDS - seen.now
    if left > 0:
        draft.look_again_in(left)
    else:
        draft.request = wish


def _held_off(seen: Observed) -> float:
    """Seconds before a refused gang is tried again: others', so that two don't meet for ever."""
    return REFUSED_SECONDS * (1 + zlib.crc32(seen.job.uid.encode()) % 100 / 100)


def _request(draft: Draft, request: GangRequest) -> None:
    """Ask the scheduler, and anew once the nodes to avoid may be used again."""
    draft.request = request
    if request.avoid:
        draft.look_again_in(AVOID_SECONDS)


def _usable(seen: Observed, name: str, role: Role) -> bool:
    """The node is there and would still take the pod: its taints may have changed."""
    node = seen.nodes.get(name)
    return (
        node is not None
        and node.ready
        and not node.unschedulable
        and untolerated(node.taints, role) is None
    )


def pods_run(draft: Draft) -> str:
    """How many of the gang's pods run."""
    return f"{draft.ready_replicas} of {draft.replicas} pods run"


def _waiting_for(draft: Draft, seen: Observed) -> str:
    """What keeps the gang from training, most telling first."""
    total = draft.replicas
    parts = [pods_run(draft)]
    if seen.context.creation_error is not None:
        parts.append(f"pods can't be created: {seen.context.creation_error.message}")
    usual = ("", "ContainerCreating", "PodInitializing")
    parts.extend(
        f"{pod.name}: {pod.waiting_reason}"
        for pod in sorted(seen.pods, key=lambda pod: pod.replica or 0)
        if pod.waiting_reason not in usual
    )
    if seen.report is not None:
        absent = [m.pod for m in seen.report.members if m.state == "missing"]
        if absent:
            parts.append(f"no agent yet on {', '.join(absent[:5])}")
        elif draft.ready_replicas == total:
            parts.append("the agents meet")
    return "; ".join(parts)
