"""What a TrainingJob needs next, decided from what is observed of it.

``plan`` is a pure function: the same job, pods, nodes, report and time give the same plan, so that
an operator that dies anywhere is continued by the next one. Three rules carry the weight:

- The placement is written to the status before the first pod is created. Its nodes are then
  reserved for the ranks that have no pod, so a half-created gang is finished, not planned anew.
- A pod's name is fixed by its replica; a lost pod must be gone before its successor exists.
- A gang that can't be whole again gives up all its pods, so that two gangs never wait for the
  halves of each other.

``placed``, ``unplaced`` and ``evicted`` turn the scheduler's verdict into a plan in the same way.
"""

from collections.abc import Mapping, Sequence

from drakkar.protocol import Report
from drakkar.v1alpha1.trainingjob import Placement, Progress, Restart
from drakkar_operator.model import JobView, NodeView, PodView
from drakkar_operator.reconcile import conditions as cond
from drakkar_operator.reconcile import ends, gang, goodput, losses
from drakkar_operator.reconcile.actions import Plan
from drakkar_operator.reconcile.conditions import Reason
from drakkar_operator.reconcile.draft import Draft
from drakkar_operator.reconcile.failures import final_report
from drakkar_operator.reconcile.observed import ORDINARY, Context, Observed
from drakkar_operator.reconcile.places import placement
from drakkar_operator.reconcile.restarts import at
from drakkar_operator.scheduling.decision import Eviction

LEAVING_SECONDS = 10.0


def plan(
    job: JobView,
    pods: Sequence[PodView],
    nodes: Mapping[str, NodeView],
    report: Report | None,
    now: float,
    context: Context = ORDINARY,
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
    if any(pod.deleting for pod in pods):
        # Its node may be lost while it leaves, which no event of the pod would tell.
        draft.look_again_in(LEAVING_SECONDS)
    if cond.finished(draft.conditions):
        ends.clean_up(draft, seen)
        return draft.plan()
    _read_report(draft, seen)
    for stops in (ends.invalid, ends.suspended, ends.complete, ends.config_error, ends.overdue):
        if stops(draft, seen):
            return draft.plan()
    losses.record_losses(draft, seen)
    losses.record_vanished(draft, seen)
    if losses.out_of_restarts(draft, seen):
        return draft.plan()
    gang.complete_gang(draft, seen)
    if not draft.completed:
        gang.judge_running(draft, seen)
    return draft.plan()


def placed(job: JobView, place: Placement, now: float) -> Plan:
    """The scheduler found room: the decision to write before any pod is created."""
    draft = Draft(job, now)
    draft.ready_replicas = job.status.ready_replicas or 0
    draft.placement = place
    draft.pending_reason = None
    where = f"{place.level} {place.domain}".strip()
    message = f"{draft.replicas} replicas placed in {where}"
    waited = cond.find(draft.conditions, cond.ADMITTED) is not None
    moved = not draft.set(cond.ADMITTED, "True", Reason.PLACED, message)
    if waited:
        # Of a gang that is placed at once the event of its start tells it.
        draft.event("Normal", "Moved" if moved else Reason.PLACED, message)
    if not job.status.start_time:
        # In the words of the next look, which then has no news to write.
        draft.set(cond.RUNNING, "False", Reason.STARTING, gang.pods_run(draft))
    return draft.plan()


def unplaced(
    job: JobView,
    reason: str,
    now: float,
    *,
    outlook: str = "",
    position: int | None = None,
    expected: float | None = None,
) -> Plan:
    """The scheduler found no room. A gang that lost ranks gives up the others' places too.

    ``expected`` is when room is expected (seconds since the epoch), ``outlook`` says so in words.
    """
    draft = Draft(job, now)
    draft.ready_replicas = job.status.ready_replicas or 0
    if draft.placement is not None:
        draft.placement = None
        draft.event("Warning", "GangReleased", f"no room to replace the lost replicas: {reason}")
    gang.wait(draft, Reason.WAITING, reason, outlook)
    draft.queue_position = position
    draft.expected_start = at(expected) if expected is not None else None
    return draft.plan()


def evicted(job: JobView, eviction: Eviction, now: float) -> Plan:
    """The gang gives up its place for another, and waits for one or has got it in exchange.

    Written before anything follows from it. The pods are in the wrong place from then on, so the
    next look at the job makes them leave: they save their state and go.
    """
    draft = Draft(job, now)
    draft.ready_replicas = job.status.ready_replicas or 0
    interruption = Restart(
        id=f"{eviction.cause}-{'-'.join(eviction.beneficiary)}-{int(now)}"[-128:],
        time=at(now),
        scope="gang",
        reason=eviction.cause,
        message=eviction.message[:1024],
        counted=False,
    )
    losses.record(draft, [interruption])
    if eviction.to is not None:
        draft.placement = placement(eviction.to, before=draft.placement)
    else:
        draft.placement = None
        draft.pending_reason = eviction.message[:2048]
        draft.set(cond.ADMITTED, "False", eviction.cause, eviction.message)
    if cond.find(draft.conditions, cond.RUNNING):
        draft.set(cond.RUNNING, "False", eviction.cause, eviction.message)
    return draft.plan()


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
    if report.ledger is not None:
        admitted = cond.find(draft.conditions, cond.ADMITTED)
        placed = admitted.last_transition_time.timestamp() if admitted else None
        draft.goodput = goodput.account(draft.goodput, seen.job.created, placed, report.ledger)
        if draft.progress is not None:
            update = {"goodput": round(draft.goodput.ratio, 3)}
            draft.progress = draft.progress.model_copy(update=update)
    _read_stragglers(draft, report)
    known = {record.path: record for record in [*draft.checkpoints, *report.checkpoints]}
    newest = sorted(known.values(), key=lambda record: record.step)
    draft.checkpoints = newest[-seen.job.spec.checkpoint.keep :]
    losses.record(draft, report.restarts)
    draft.restarts = goodput.with_losses(draft.restarts, report.recoveries)


def _read_stragglers(draft: Draft, report: Report) -> None:
    """Show the slow ranks; an event for each that was not slow before."""
    known = {line.partition(" is slow")[0] for line in draft.stragglers}
    for item in report.stragglers:
        if item.message.partition(" is slow")[0] not in known:
            draft.event("Warning", "Straggler", item.message)
    draft.stragglers = [item.message for item in report.stragglers]


def _readable(progress: Progress) -> Progress:
    """Figures in as many digits as mean something."""
    digits = {"loss": 4, "eval_loss": 4, "tokens_per_second": 0, "mfu": 4, "goodput": 3}
    known = {name: getattr(progress, name) for name in digits}
    rounded = {name: round(v, digits[name]) for name, v in known.items() if v is not None}
    return progress.model_copy(update=rounded)
