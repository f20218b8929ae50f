"""Ways in which a job stops for now or for good; each says whether it applies."""

from drakkar_operator.model import JobView
from drakkar_operator.reconcile import conditions as cond
from drakkar_operator.reconcile.actions import DeleteJob
from drakkar_operator.reconcile.conditions import Reason
from drakkar_operator.reconcile.demand import gang_request
from drakkar_operator.reconcile.draft import Draft
from drakkar_operator.reconcile.failures import failed_pod
from drakkar_operator.reconcile.goodput import sentence
from drakkar_operator.reconcile.losses import delete_pods
from drakkar_operator.reconcile.observed import Observed

AMOUNT_LIMIT = 2**62
"""Amounts are counted in 64 bits."""
LEAVE_SECONDS = 30.0
"""How long pods may outlive a complete job before they are deleted."""


def invalid(draft: Draft, seen: Observed) -> bool:
    """End a job whose spec can't be used, saying what to write instead."""
    job = seen.job
    problem = job.problem
    if problem is None and draft.placement is None:
        problem = _problem(job)
    if problem is None:
        return False
    draft.fail(Reason.INVALID_SPEC, problem)
    return True


def _problem(job: JobView) -> str | None:
    """What is wrong with the parts of a spec that the API server can't check."""
    try:
        request = gang_request(job)
        hash(request.shape)
    except ValueError as error:
        return str(error)
    except (TypeError, KeyError, AttributeError, ArithmeticError) as error:
        # A template is stored as it is; what is in it can have any shape.
        return f"spec.template: can't be read as a pod template: {type(error).__name__}: {error}"
    too_much = [name for name, amount in request.total.items() if amount >= AMOUNT_LIMIT]
    if too_much:
        return f"spec.resources: more {too_much[0]} is asked for than any cluster has"
    return None


def suspended(draft: Draft, seen: Observed) -> bool:
    """A suspended job checkpoints and gives up its pods and its place."""
    if not seen.job.spec.suspend:
        before = cond.find(draft.conditions, cond.SUSPENDED)
        if before is not None and before.reason != Reason.RESUMED:
            draft.set(cond.SUSPENDED, "False", Reason.RESUMED, "spec.suspend is unset")
            draft.event("Normal", Reason.RESUMED, "the job may run again")
        return False
    message = "spec.suspend is set"
    if seen.pods:
        # Only then may the spec be changed: these pods still run what it says now.
        draft.set(cond.SUSPENDED, "False", Reason.SUSPENDING, f"{len(seen.pods)} pods leave")
    elif draft.set(cond.SUSPENDED, "True", Reason.SUSPENDED, message):
        draft.event("Normal", Reason.SUSPENDED, message)
    draft.set(cond.ADMITTED, "False", Reason.SUSPENDED, message)
    if cond.find(draft.conditions, cond.RUNNING):
        draft.set(cond.RUNNING, "False", Reason.SUSPENDED, message)
    draft.placement = None
    draft.pending_reason = None
    delete_pods(draft, seen, seen.live)
    for pod in seen.pods:
        if pod.finished and not pod.deleting:
            draft.delete(pod.name, pod.uid)
    return True


def complete(draft: Draft, seen: Observed) -> bool:
    """The training is done when its coordinator says so, or when every plain pod succeeded."""
    coordinator = seen.coordinator
    if seen.job.spec.runtime == "plain":
        by_replica = seen.by_replica
        # A program that ends well when its place is taken from it has not come to its end.
        done = len(by_replica) == draft.replicas and all(
            pod.phase == "Succeeded" and not (pod.deleting and draft.placement is None)
            for pod in by_replica.values()
        )
    else:
        said = seen.report is not None and seen.report.state == "complete"
        done = said or (coordinator is not None and coordinator.phase == "Succeeded")
    if not done:
        return False
    message = "all replicas succeeded"
    if draft.progress is not None:
        message = f"trained {draft.progress.step} steps"
        if draft.progress.eval_loss is not None:
            message += f", held-out loss {draft.progress.eval_loss:.4f}"
    if draft.goodput is not None:
        message += f"; {sentence(draft.goodput)}"
    draft.started = True
    draft.completed = True
    draft.pending_reason = None
    draft.set(cond.RUNNING, "False", Reason.FINISHED, message)
    draft.set(cond.COMPLETE, "True", Reason.FINISHED, message)
    draft.event("Normal", "Complete", message)
    draft.look_again_in(LEAVE_SECONDS)
    return True


def config_error(draft: Draft, seen: Observed) -> bool:
    """Some failures would only be repeated: end the job with what its agent said."""
    failure = seen.report.failure if seen.report else None
    if failure is not None and not failure.retryable:
        draft.fail(failure.reason, failure.message)
    else:
        losses = [failed_pod(pod) for pod in seen.pods if pod.phase == "Failed"]
        final = next((loss for loss in losses if loss.final), None)
        if final is None:
            return False
        draft.fail(final.reason, final.message)
    delete_pods(draft, seen, seen.live)
    return True


def overdue(draft: Draft, seen: Observed) -> bool:
    """A job may run only so long."""
    limit = seen.job.spec.active_deadline_seconds
    start = seen.job.status.start_time
    if limit is None or start is None:
        return False
    left = start.timestamp() + limit - seen.now
    if left > 0:
        draft.look_again_in(left)
        return False
    draft.fail(Reason.DEADLINE_EXCEEDED, f"ran longer than activeDeadlineSeconds ({limit})")
    delete_pods(draft, seen, seen.live)
    return True


def clean_up(draft: Draft, seen: Observed) -> None:
    """A finished job keeps ended pods for their logs, loses the others, and goes after its TTL."""
    ended = seen.job.status.completion_time
    age = seen.now - ended.timestamp() if ended else 0.0
    leftover = seen.live
    if leftover and draft.is_true(cond.COMPLETE) and age < LEAVE_SECONDS:
        draft.look_again_in(LEAVE_SECONDS - age)
    elif leftover:
        delete_pods(draft, seen, leftover)
    ttl = seen.job.spec.ttl_seconds_after_finished
    if ttl is not None:
        if age >= ttl:
            draft.actions.append(DeleteJob())
        else:
            draft.look_again_in(ttl - age)
