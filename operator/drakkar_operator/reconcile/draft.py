"""A status in the making: what the steps of a plan write to."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from drakkar.v1alpha1.meta import Condition
from drakkar.v1alpha1.trainingjob import (
    CheckpointRecord,
    Goodput,
    Placement,
    Progress,
    Restart,
    TrainingJobStatus,
)
from drakkar_operator.model import JobView
from drakkar_operator.reconcile import conditions as cond
from drakkar_operator.reconcile.actions import Action, DeletePod, Plan, RecordEvent
from drakkar_operator.reconcile.restarts import at
from drakkar_operator.scheduling.request import GangRequest

Phase = Literal["Pending", "Starting", "Running", "Recovering", "Suspended", "Complete", "Failed"]


@dataclass(slots=True)
class Draft:
    """Starts as the job's status; ends as a Plan."""

    job: JobView
    now: float
    conditions: list[Condition] = field(init=False)
    placement: Placement | None = field(init=False)
    progress: Progress | None = field(init=False)
    goodput: Goodput | None = field(init=False)
    stragglers: list[str] = field(init=False)
    restarts: list[Restart] = field(init=False)
    restart_count: int = field(init=False)
    checkpoints: list[CheckpointRecord] = field(init=False)
    pending_reason: str | None = field(init=False)
    queue_position: int | None = field(init=False)
    expected_start: datetime | None = field(init=False)
    ready_replicas: int = 0
    completed: bool = False
    started: bool = False
    actions: list[Action] = field(default_factory=list)
    request: GangRequest | None = None
    requeue_after: float | None = None

    def __post_init__(self) -> None:
        status = self.job.status
        self.conditions = list(status.conditions)
        placement = status.placement
        fits = placement is not None and len(placement.nodes) in self.job.spec.sizes
        self.placement = placement if fits else None
        self.progress = status.progress
        self.goodput = status.goodput
        self.stragglers = list(status.stragglers)
        self.restarts = list(status.restarts)
        self.restart_count = status.restart_count
        self.checkpoints = list(status.checkpoints)
        self.pending_reason = status.pending_reason
        self.queue_position = status.queue_position
        self.expected_start = status.expected_start

    @property
    def replicas(self) -> int:
        """Size of the gang: its placement's or, without one, what it asks for."""
        return self.job.spec.size if self.placement is None else len(self.placement.nodes)

    def is_true(self, condition: str) -> bool:
        """Whether a condition holds by now."""
        return cond.is_true(self.conditions, condition)

    def set(self, condition: str, status: cond.Truth, reason: str, message: str) -> bool:
        """Set a condition; True if its status is another than before."""
        old = cond.find(self.conditions, condition)
        self.conditions = cond.with_condition(
            self.conditions,
            condition,
            status,
            reason,
            message,
            at=at(self.now),
            generation=self.job.generation,
        )
        return old is None or old.status != status

    def event(self, type_: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        """Tell the user, once the status is written."""
        self.actions.append(RecordEvent(type_, reason, message))

    def delete(self, name: str, uid: str, *, force: bool = False) -> None:
        """Delete a pod, at once if its node can't do it any more."""
        self.actions.append(DeletePod(name, uid, 0 if force else None))

    def look_again_in(self, seconds: float) -> None:
        """Reconcile again then, or earlier if something else asks for it."""
        soonest = seconds if self.requeue_after is None else min(self.requeue_after, seconds)
        self.requeue_after = max(0.0, soonest)

    def fail(self, reason: str, message: str) -> None:
        """End the job as failed."""
        self.set(cond.FAILED, "True", reason, message)
        if cond.find(self.conditions, cond.RUNNING):
            self.set(cond.RUNNING, "False", reason, message)
        self.pending_reason = None
        self.request = None
        self.completed = True
        self.event("Warning", reason, message)

    def plan(self) -> Plan:
        """The finished status with the actions."""
        old = self.job.status
        time = at(self.now)
        status = TrainingJobStatus(
            observed_generation=self.job.generation,
            phase=self._phase(),
            conditions=self.conditions,
            replicas=self.replicas,
            ready_replicas=self.ready_replicas,
            start_time=old.start_time or (time if self.started else None),
            completion_time=old.completion_time or (time if self.completed else None),
            placement=self.placement,
            progress=self.progress,
            goodput=self.goodput,
            stragglers=self.stragglers,
            restart_count=self.restart_count,
            restarts=self.restarts,
            checkpoints=self.checkpoints,
            pending_reason=self.pending_reason,
            # Of a gang that waits for room: nobody else stands in the line.
            queue_position=self.queue_position if self.pending_reason else None,
            expected_start=self.expected_start if self.pending_reason else None,
        )
        return Plan(status, tuple(self.actions), self.request, self.requeue_after)

    def _phase(self) -> Phase:
        if self.is_true(cond.FAILED):
            return "Failed"
        if self.is_true(cond.COMPLETE):
            return "Complete"
        if self.job.spec.suspend:
            return "Suspended"
        if self.is_true(cond.RUNNING):
            return "Running"
        if self.placement is None:
            return "Pending"
        return "Recovering" if self.job.status.start_time else "Starting"
