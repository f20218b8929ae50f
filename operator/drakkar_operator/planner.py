"""What would become of jobs if they were submitted now, by the code that would decide it."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from drakkar.kube.rest import Object
from drakkar.planning import JobPlan, PlanAnswer, PlannedEviction
from drakkar.v1alpha1.trainingjob import TrainingJobStatus
from drakkar_operator.cluster.caches import Caches
from drakkar_operator.cluster.jobs import Jobs, project_job
from drakkar_operator.controller import Controller
from drakkar_operator.model import JobView
from drakkar_operator.outlook import forecasts
from drakkar_operator.reconcile import conditions as cond
from drakkar_operator.reconcile import trainingjob
from drakkar_operator.reconcile.places import placement
from drakkar_operator.scheduler import Scheduler
from drakkar_operator.scheduling.case import Case
from drakkar_operator.scheduling.forecast import Forecast
from drakkar_operator.scheduling.queueing import Decision
from drakkar_operator.scheduling.request import Key
from drakkar_operator.scheduling.workload import Pending


class NotAJobError(ValueError):
    """What was sent is no TrainingJob."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A job of the question: its answer if that needs no scheduling, else its request."""

    job: JobView
    answer: JobPlan | None = None
    pending: Pending | None = None


class Planner:
    """Answers for a leader: it alone knows all that waits. Writes nothing."""

    def __init__(
        self,
        *,
        jobs: Jobs,
        caches: Caches,
        controller: Controller,
        scheduler: Scheduler,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._jobs = jobs
        self._caches = caches
        self._controller = controller
        self._scheduler = scheduler
        self._clock = clock

    async def plan(self, raw: Sequence[Object]) -> PlanAnswer:
        """Plan jobs as the API server would store them. Raises NotAJobError, ApiError."""
        asked = [await self._judge(_view(each)) for each in raw]
        # No await from here: the case is of one moment.
        before = self._scheduler.case()
        case = before
        for each in asked:
            if each.pending is not None:
                case = case.asking(each.pending)
        decisions = case.decide()
        by_key = {decision.key: decision for decision in decisions}
        mine = [by_key[each.job.key] for each in asked if each.pending is not None]
        expected = forecasts(case, mine)
        return PlanAnswer(
            jobs=[
                each.answer or _answer(each.job, by_key[each.job.key], expected.get(each.job.key))
                for each in asked
            ],
            held_up=_held_up(before, by_key, {each.job.key for each in asked}),
        )

    async def _judge(self, job: JobView) -> _Asked:
        """All that is decided without room: as the reconciler does for a job that is there."""
        known = self._jobs.items.get("/".join(job.key))
        if known is not None and cond.finished(known.status.conditions):
            return _Asked(
                job, _plan(job, "ended", reason="a job of this name is there and has ended")
            )
        if known is not None and known.status.placement is not None:
            return _Asked(job, _plan(job, "runs", placement=known.status.placement))
        priority = self._caches.priority_of(job.spec.priority_class_name)
        created = known.created if known is not None else self._clock()
        job = replace(job, priority=priority, created=created, status=TrainingJobStatus())
        context = await self._controller.context(job)
        plan = trainingjob.plan(job, (), self._caches.nodes.items, None, self._clock(), context)
        if plan.request is not None:
            pending = Pending(job.key, plan.request, job.spec.queue, priority, created)
            return _Asked(job, pending=pending)
        status = plan.status
        for kind in (cond.FAILED, cond.SUSPENDED):
            if cond.is_true(status.conditions, kind):
                condition = cond.find(status.conditions, kind)
                outcome = "fails" if kind == cond.FAILED else "suspended"
                return _Asked(
                    job, _plan(job, outcome, reason=condition.message if condition else None)
                )
        return _Asked(job, _plan(job, "waits", reason=status.pending_reason))


def _view(raw: Object) -> JobView:
    if raw.get("kind") != "TrainingJob":
        raise NotAJobError(f"jobs: only a TrainingJob can be planned, found {raw.get('kind')!r}")
    try:
        return project_job(raw)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise NotAJobError(f"jobs: not as the API server stores a TrainingJob: {error!r}") from None


def _plan(job: JobView, outcome: str, **rest: object) -> JobPlan:
    return JobPlan.model_validate(
        {
            "namespace": job.namespace,
            "name": job.name,
            "outcome": outcome,
            "queue": job.spec.queue,
            **rest,
        }
    )


def _answer(job: JobView, decision: Decision, expected: Forecast | None) -> JobPlan:
    placed = decision.placed
    evictions = [
        PlannedEviction(
            namespace=each.key[0], name=each.key[1], cause=each.cause, message=each.message
        )
        for each in decision.evictions
    ]
    if placed is not None:
        place = placement(placed)
        return _plan(job, "starts", placement=place, evictions=evictions)
    reason, start = decision.reason, None
    if expected is not None:
        reason = f"{reason}; {expected.sentence(decision.unplaced)}"
        start = datetime.fromtimestamp(expected.at, UTC)
    return _plan(
        job,
        "waits",
        reason=reason,
        position=decision.position or None,
        expected_start=start,
        evictions=evictions,
    )


def _held_up(before: Case, after: dict[Key, Decision], asked: set[Key]) -> list[str]:
    """Waiting jobs that would be placed by a cycle now, but not with those that are planned."""
    return [
        "/".join(decision.key)
        for decision in before.decide()
        if decision.placed is not None
        and decision.key not in asked
        and after[decision.key].placed is None
    ]
