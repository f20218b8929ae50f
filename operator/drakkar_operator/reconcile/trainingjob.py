"""What a TrainingJob needs next, decided from what is observed of it.

``plan`` is a pure function: the same job, pods, nodes, report and time give the same plan, so that
an operator that dies anywhere is continued by the next one. Three rules carry the weight:

- The placement is written to the status before the first pod is created. Its nodes are then
  reserved for the ranks that have no pod, so a half-created gang is finished, not planned anew.
- A pod's name is fixed by its replica; a lost pod must be gone before its successor exists.
- A gang that can't be whole again gives up all its pods, so that two gangs never wait for the
  halves of each other.

``placed`` and ``unplaced`` turn the scheduler's verdict into a plan in the same way.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from drakkar.protocol import Report
from drakkar.v1alpha1.recipes import parse_recipe
from drakkar.v1alpha1.trainingjob import Placement, Progress, Restart
from drakkar_operator.model import JobView, NodeView, PodView
from drakkar_operator.reconcile import conditions as cond
from drakkar_operator.reconcile.actions import (
    CreatePod,
    DeleteJob,
    DeletePod,
    EnsureService,
    Plan,
)
from drakkar_operator.reconcile.conditions import Reason
from drakkar_operator.reconcile.demand import gang_request
from drakkar_operator.reconcile.draft import Draft
from drakkar_operator.reconcile.failures import (
    Loss,
    deleted_pod,
    failed_pod,
    final_report,
    on_lost_node,
)
from drakkar_operator.reconcile.restarts import at, avoided_nodes, backoff_left, merge
from drakkar_operator.render.pods import pod_name

LEAVE_SECONDS = 30.0
"""How long pods may outlive a complete job before they are deleted."""
REPORT_TRUSTED_SECONDS = 10.0
HEARTBEAT_TRUSTED_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class CreationError:
    """The API server refused a pod of the job."""

    message: str
    permanent: bool
    """The pod is invalid or forbidden as it is: trying again won't help."""


@dataclass(frozen=True, slots=True)
class Context:
    """Facts about the job's surroundings."""

    queue_found: bool = True
    pinned: bool = False
    """kube-scheduler binds the pods."""
    claim_problem: str | None = None
    """Why the checkpoint volume can't be used, if it can't."""
    creation_error: CreationError | None = None
    report_age: float | None = None
    """Seconds since the report was received; None without one."""


@dataclass(frozen=True, slots=True)
class Observed:
    """A job and what is known of its gang."""

    job: JobView
    pods: tuple[PodView, ...]
    nodes: Mapping[str, NodeView]
    report: Report | None
    context: Context
    now: float

    @property
    def by_replica(self) -> dict[int, PodView]:
        """The pod of each replica that has one."""
        return {pod.replica: pod for pod in self.pods if pod.replica is not None}

    @property
    def coordinator(self) -> PodView | None:
        """The pod of replica 0."""
        return self.by_replica.get(0)

    def vouched(self, pod: PodView) -> bool:
        """The coordinator heard this pod's agent just now, whatever its node's kubelet says."""
        age = self.context.report_age
        if self.report is None or age is None or age > REPORT_TRUSTED_SECONDS:
            return False
        return any(
            member.pod == pod.name
            and member.state == "running"
            and member.heartbeat_age_seconds is not None
            and member.heartbeat_age_seconds + age < HEARTBEAT_TRUSTED_SECONDS
            for member in self.report.members
        )


def plan(
    job: JobView,
    pods: Sequence[PodView],
    nodes: Mapping[str, NodeView],
    report: Report | None,
    now: float,
    context: Context = Context(),
) -> Plan:
    """The next status of a job, the actions that follow from it, and what it asks of the scheduler.

    ``pods`` are the job's own (label and UID), ``report`` the newest of its coordinator, ``now``
    seconds since the epoch.
    """
    if job.deleting:
        return Plan(job.status)
    current = next((p for p in pods if p.replica == 0), None)
    if report is not None and (current is None or report.pod_uid != current.uid):
        report = None
    seen = Observed(job, tuple(pods), nodes, report, context, now)
    draft = Draft(job, now)
    draft.ready_replicas = sum(pod.running and not pod.deleting for pod in pods)
    if draft.is_true(cond.COMPLETE) or draft.is_true(cond.FAILED):
        _clean_up(draft, seen)
        return draft.plan()
    _read_report(draft, seen)
    for ends in (_invalid, _suspended, _complete, _config_error, _overdue):
        if ends(draft, seen):
            return draft.plan()
    _record_losses(draft, seen)
    _record_vanished(draft, seen)
    if _out_of_restarts(draft, seen):
        return draft.plan()
    _complete_gang(draft, seen)
    if not draft.completed:
        _judge_running(draft, seen)
    return draft.plan()


def placed(job: JobView, placement: Placement, now: float) -> Plan:
    """The scheduler found room: the decision to write before any pod is created."""
    draft = Draft(job, now)
    draft.ready_replicas = job.status.ready_replicas or 0
    draft.placement = placement
    draft.pending_reason = None
    where = f"{placement.level} {placement.domain}".strip()
    message = f"{job.spec.replicas} replicas placed in {where}"
    moved = not draft.set(cond.ADMITTED, "True", Reason.PLACED, message)
    draft.event("Normal", "Moved" if moved else Reason.PLACED, message)
    if not job.status.start_time:
        draft.set(cond.RUNNING, "False", Reason.STARTING, "pods are being created")
    return draft.plan()


def unplaced(job: JobView, reason: str, now: float) -> Plan:
    """The scheduler found no room. A gang that lost ranks gives up the others' places too."""
    draft = Draft(job, now)
    draft.ready_replicas = job.status.ready_replicas or 0
    if draft.placement is not None:
        draft.placement = None
        draft.event("Warning", "GangReleased", f"no room to replace the lost replicas: {reason}")
    _wait(draft, Reason.WAITING, reason)
    return draft.plan()


def _wait(draft: Draft, reason: Reason, message: str) -> None:
    """Not admitted, for this reason; the user is told when the reason changes."""
    news = draft.pending_reason != message
    draft.pending_reason = message[:2048]
    draft.set(cond.ADMITTED, "False", reason, message)
    if news:
        draft.event("Normal" if reason is Reason.WAITING else "Warning", reason, message)


def _clean_up(draft: Draft, seen: Observed) -> None:
    """A finished job keeps ended pods for their logs, loses the others, and goes after its TTL."""
    ended = seen.job.status.completion_time
    age = seen.now - ended.timestamp() if ended else 0.0
    leftover = [pod for pod in seen.pods if not pod.finished]
    if leftover and draft.is_true(cond.COMPLETE) and age < LEAVE_SECONDS:
        draft.look_again_in(LEAVE_SECONDS - age)
    elif leftover:
        _delete_pods(draft, seen, leftover)
    ttl = seen.job.spec.ttl_seconds_after_finished
    if ttl is not None:
        if age >= ttl:
            draft.actions.append(DeleteJob())
        else:
            draft.look_again_in(ttl - age)


def _delete_pods(draft: Draft, seen: Observed, pods: Sequence[PodView]) -> None:
    """Delete pods that still run: gracefully, or by force where no kubelet would answer."""
    for pod in pods:
        lost = on_lost_node(pod, seen.nodes) is not None
        if lost or not pod.deleting:
            draft.delete(pod.name, pod.uid, force=lost)


def _read_report(draft: Draft, seen: Observed) -> None:
    """Take progress, checkpoints and restarts in place from the coordinator's last word."""
    report = seen.report
    coordinator = seen.coordinator
    if coordinator is not None and coordinator.finished:
        last = final_report(coordinator)
        if last is not None and last.uid == seen.job.uid:
            report = last
    if report is None:
        return
    if report.progress is not None:
        draft.progress = _readable(report.progress)
    known = {record.path: record for record in [*draft.checkpoints, *report.checkpoints]}
    newest = sorted(known.values(), key=lambda record: record.step)
    draft.checkpoints = newest[-seen.job.spec.checkpoint.keep :]
    _record(draft, report.restarts)


def _readable(progress: Progress) -> Progress:
    """Figures in as many digits as mean something."""
    digits = {"loss": 4, "eval_loss": 4, "tokens_per_second": 0, "mfu": 4, "goodput": 3}
    known = {name: getattr(progress, name) for name in digits}
    rounded = {name: round(v, digits[name]) for name, v in known.items() if v is not None}
    return progress.model_copy(update=rounded)


def _record(draft: Draft, restarts: Sequence[Restart]) -> None:
    """Add interruptions that are not on record yet."""
    draft.restarts, new = merge(draft.restarts, restarts)
    for restart in new:
        draft.restart_count += restart.counted
        draft.event("Warning", restart.reason, restart.message)


def _invalid(draft: Draft, seen: Observed) -> bool:
    """End a job whose spec can't be used, saying what to write instead."""
    job = seen.job
    problem = job.problem
    if problem is None and not job.status.start_time:
        try:
            if job.spec.recipe:
                parse_recipe(job.spec.recipe.name, job.spec.recipe.config, job.spec.world_size)
            gang_request(job, tuple(range(job.spec.replicas)))
        except ValueError as error:
            problem = str(error)
    if problem is None:
        return False
    draft.fail(Reason.INVALID_SPEC, problem)
    return True


def _suspended(draft: Draft, seen: Observed) -> bool:
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
    _delete_pods(draft, seen, [pod for pod in seen.pods if not pod.finished])
    for pod in seen.pods:
        if pod.finished and not pod.deleting:
            draft.delete(pod.name, pod.uid)
    return True


def _complete(draft: Draft, seen: Observed) -> bool:
    """The training is done when its coordinator says so, or when every plain pod succeeded."""
    coordinator = seen.coordinator
    if seen.job.spec.runtime == "plain":
        by_replica = seen.by_replica
        done = len(by_replica) == seen.job.spec.replicas and all(
            pod.phase == "Succeeded" for pod in by_replica.values()
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
    draft.started = True
    draft.completed = True
    draft.pending_reason = None
    draft.set(cond.RUNNING, "False", Reason.FINISHED, message)
    draft.set(cond.COMPLETE, "True", Reason.FINISHED, message)
    draft.event("Normal", "Complete", message)
    draft.look_again_in(LEAVE_SECONDS)
    return True


def _config_error(draft: Draft, seen: Observed) -> bool:
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
    _delete_pods(draft, seen, [pod for pod in seen.pods if not pod.finished])
    return True


def _overdue(draft: Draft, seen: Observed) -> bool:
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
    _delete_pods(draft, seen, [pod for pod in seen.pods if not pod.finished])
    return True


def _record_losses(draft: Draft, seen: Observed) -> None:
    """Put every lost pod on record with its cause, and clear it away."""
    restarting = False
    for pod in seen.pods:
        loss = _loss(draft, seen, pod)
        if loss is not None:
            restarting = True
            restart = Restart(
                id=pod.uid,
                time=at(seen.now),
                scope=_scope(seen),
                reason=loss.reason,
                message=loss.message,
                replica=pod.replica,
                node=pod.node,
                counted=loss.counted,
            )
            _record(draft, [restart])
        dead_node = on_lost_node(pod, seen.nodes) is not None and not seen.vouched(pod)
        if dead_node:
            draft.delete(pod.name, pod.uid, force=True)
        elif (pod.phase == "Failed" or _misplaced(draft, pod)) and not pod.deleting:
            draft.delete(pod.name, pod.uid)
    if restarting and _scope(seen) == "gang":
        _delete_pods(draft, seen, [pod for pod in seen.pods if pod.phase != "Failed"])


def _scope(seen: Observed) -> Literal["pod", "gang"]:
    """Without agents the other ranks can't meet a new one: they start again with it."""
    return "gang" if seen.job.spec.runtime == "plain" else "pod"


def _record_vanished(draft: Draft, seen: Observed) -> None:
    """Pods of a running gang that are gone without a trace: deleted by force, or unseen.

    The condition is still that of the last look; it turns False with this record, which is so made
    once.
    """
    running = cond.find(draft.conditions, cond.RUNNING)
    if draft.placement is None or running is None or running.status != "True":
        return
    since = int(running.last_transition_time.timestamp())
    for replica in sorted(set(range(seen.job.spec.replicas)) - set(seen.by_replica)):
        name, node = pod_name(seen.job.name, replica), draft.placement.nodes[replica]
        lost = Restart(
            id=f"{name}-{since}",
            time=at(seen.now),
            scope=_scope(seen),
            reason="PodDeleted",
            message=f"{name} on {node}: the pod is gone without a trace",
            replica=replica,
            node=node,
            counted=False,
        )
        _record(draft, [lost])
        if _scope(seen) == "gang":
            _delete_pods(draft, seen, [pod for pod in seen.pods if not pod.finished])


def _loss(draft: Draft, seen: Observed, pod: PodView) -> Loss | None:
    """Why this pod is lost to the gang; None if it is well or if that was the operator's will."""
    if pod.phase == "Succeeded" or _misplaced(draft, pod):
        return None
    if pod.phase == "Failed":
        return failed_pod(pod)
    lost = on_lost_node(pod, seen.nodes)
    if lost is not None and not seen.vouched(pod):
        return lost
    if pod.deleting and not _restarted_with_gang(draft, pod):
        return deleted_pod(pod)
    return None


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


def _out_of_restarts(draft: Draft, seen: Observed) -> bool:
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
    _delete_pods(draft, seen, [pod for pod in seen.pods if not pod.finished])
    return True


def _complete_gang(draft: Draft, seen: Observed) -> None:
    """Create the pods that are missing, or ask the scheduler for places."""
    held = set(seen.by_replica)
    missing = tuple(r for r in range(seen.job.spec.replicas) if r not in held)
    error = seen.context.creation_error
    if error is not None and error.permanent:
        draft.fail(Reason.INVALID_SPEC, f"the API server refuses the pods: {error.message}")
        _delete_pods(draft, seen, [pod for pod in seen.pods if not pod.finished])
        return
    if draft.placement is None:
        if not seen.pods:
            _ask_for_places(draft, seen, missing)
        return
    if not missing or (_scope(seen) == "gang" and any(pod.deleting for pod in seen.pods)):
        return
    # A rank that ended well can't meet its successors: it has to come back with them.
    for pod in seen.pods:
        if pod.phase == "Succeeded" and not pod.deleting:
            draft.delete(pod.name, pod.uid)
    wait = backoff_left(draft.restarts, seen.job.spec.fault_tolerance, seen.now)
    if wait > 0:
        draft.look_again_in(wait)
        return
    avoid = avoided_nodes(draft.restarts, seen.now)
    places = draft.placement.nodes
    unusable = tuple(r for r in missing if not _usable(seen, places[r], avoid))
    if unusable:
        fixed = {r: node for r, node in enumerate(places) if r not in unusable}
        draft.request = gang_request(seen.job, unusable, fixed=fixed, avoid=avoid)
        return
    draft.actions.append(EnsureService())
    draft.actions.extend(CreatePod(replica, places[replica]) for replica in missing)


def _usable(seen: Observed, name: str, avoid: frozenset[str]) -> bool:
    node = seen.nodes.get(name)
    return node is not None and node.ready and not node.unschedulable and name not in avoid


def _ask_for_places(draft: Draft, seen: Observed, missing: tuple[int, ...]) -> None:
    """Everything the gang waits for, besides room, is looked at first."""
    if not seen.context.queue_found:
        _wait(
            draft,
            Reason.QUEUE_NOT_FOUND,
            f"spec.queue: there is no Queue named {seen.job.spec.queue!r}; "
            "create it or name another (kubectl get queues)",
        )
    elif seen.context.claim_problem is not None:
        _wait(draft, Reason.CLAIM_NOT_FOUND, seen.context.claim_problem)
        draft.look_again_in(5.0)
    else:
        draft.request = gang_request(
            seen.job, missing, avoid=avoided_nodes(draft.restarts, seen.now)
        )


def _judge_running(draft: Draft, seen: Observed) -> None:
    """Whether the whole gang trains now, and if not, what it waits for."""
    if draft.placement is None:
        if draft.is_true(cond.RUNNING):
            draft.set(cond.RUNNING, "False", Reason.RECOVERING, "the gang waits for room")
        return
    lost = any(isinstance(action, DeletePod) for action in draft.actions)
    whole = draft.ready_replicas == seen.job.spec.replicas and not lost
    if whole and seen.job.spec.runtime == "torch":
        # Without a report, just after a restart of the operator, no news is no change.
        whole = seen.report.state == "running" if seen.report else draft.is_true(cond.RUNNING)
    if whole:
        if draft.set(cond.RUNNING, "True", Reason.TRAINING, "all replicas train"):
            again = seen.job.status.start_time is not None
            draft.event("Normal", "Recovered" if again else "Started", "all replicas train")
        draft.started = True
        return
    started = seen.job.status.start_time is not None
    reason = Reason.RECOVERING if started else Reason.STARTING
    draft.set(cond.RUNNING, "False", reason, _waiting_for(draft, seen))


def _waiting_for(draft: Draft, seen: Observed) -> str:
    """What keeps the gang from training, most telling first."""
    total = seen.job.spec.replicas
    parts = [f"{draft.ready_replicas} of {total} pods run"]
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
