"""A service's status in the making: what the steps of a plan write to."""

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

from drakkar.routing import RouteTable
from drakkar.v1alpha1.inferenceservice import (
    CanaryStatus,
    InferenceServiceStatus,
    Member,
    Revision,
    Traffic,
)
from drakkar.v1alpha1.meta import Condition
from drakkar.v1alpha1.trainingjob import Restart
from drakkar_operator.model import ServiceView
from drakkar_operator.reconcile import conditions as cond
from drakkar_operator.reconcile.actions import DeletePod, RecordEvent
from drakkar_operator.reconcile.restarts import at, merge
from drakkar_operator.reconcile.serving.autoscale import Memory
from drakkar_operator.reconcile.serving.observed import ServiceAction, ServicePlan
from drakkar_operator.scheduling.request import GangRequest

READY = "Ready"
RECONCILING = "Reconciling"
STALLED = "Stalled"
"""As kstatus reads them: ``kubectl wait --for=condition=Ready`` and ``helm --wait`` work."""
KEPT_RESTARTS = 20


@dataclass(slots=True)
class Draft:
    """Starts as the service's status; ends as a plan."""

    service: ServiceView
    now: float
    memory: Memory
    conditions: list[Condition] = field(init=False)
    members: dict[str, Member] = field(init=False)
    revisions: list[Revision] = field(init=False)
    stable: str | None = field(init=False)
    update: str | None = None
    """Revision that is to take the stable one's place."""
    canary: CanaryStatus | None = field(init=False)
    traffic: list[Traffic] = field(default_factory=list)
    restarts: list[Restart] = field(init=False)
    restart_count: int = field(init=False)
    desired: int = 0
    scaled: datetime | None = field(init=False)
    stalled: tuple[str, str] | None = None
    """(reason, message) of what only its owner can mend."""
    url: str | None = None
    selector: str | None = None
    actions: list[ServiceAction] = field(default_factory=list)
    requests: dict[str, GangRequest] = field(default_factory=dict)
    table: RouteTable | None = None
    requeue_after: float | None = None

    def __post_init__(self) -> None:
        status = self.service.status
        self.conditions = list(status.conditions)
        self.members = {member.name: member for member in status.members}
        self.revisions = list(status.revisions)
        self.stable = status.stable_revision
        self.canary = status.canary
        self.traffic = list(status.traffic)
        self.restarts = list(status.restarts)
        self.restart_count = status.restart_count
        self.desired = status.desired_replicas or 0
        self.scaled = status.scaled
        self.url, self.selector = status.url, status.selector

    @property
    def active(self) -> list[Member]:
        """The replicas that are not on their way out."""
        return [member for member in self.members.values() if member.state != "Draining"]

    def ready(self, revision: str | None = None) -> int:
        """Replicas that can answer, of a revision or of all."""
        return sum(
            member.state == "Ready" and revision in (None, member.revision)
            for member in self.members.values()
        )

    def revision(self, name: str) -> Revision | None:
        """A revision that is known."""
        return next((one for one in self.revisions if one.name == name), None)

    def view(self) -> ServiceView:
        """The service with the revisions as they are by now."""
        status = self.service.status.model_copy(update={"revisions": self.revisions})
        return replace(self.service, status=status)

    def change(self, member: Member, **fields: Any) -> Member:
        """Change a replica; its ``since`` moves with its state."""
        if "state" in fields and fields["state"] != member.state:
            fields["since"] = at(self.now)
        member = member.model_copy(update=fields)
        self.members[member.name] = member
        return member

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
            generation=self.service.generation,
        )
        return old is None or old.status != status

    def stall(self, reason: str, message: str) -> None:
        """What can't go on by itself; the first one said counts."""
        self.stalled = self.stalled or (reason, message)

    def event(self, type_: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        """Tell the user, once the status is written."""
        self.actions.append(RecordEvent(type_, reason, message))

    def record(self, restarts: list[Restart]) -> None:
        """Add interruptions that are not on record yet."""
        self.restarts, new = merge(self.restarts, restarts)
        self.restarts = self.restarts[-KEPT_RESTARTS:]
        for restart in new:
            self.restart_count += 1
            self.event("Warning", restart.reason, restart.message)

    def delete(self, name: str, uid: str, *, force: bool = False) -> None:
        """Delete a pod, at once if its node can't do it any more."""
        self.actions.append(DeletePod(name, uid, 0 if force else None))

    def look_again_in(self, seconds: float) -> None:
        """Reconcile again then, or earlier if something else asks for it."""
        soonest = seconds if self.requeue_after is None else min(self.requeue_after, seconds)
        self.requeue_after = max(0.0, soonest)

    def plan(self) -> ServicePlan:
        """The finished status with the actions."""
        members = sorted(self.members.values(), key=lambda member: int(member.name))
        status = InferenceServiceStatus(
            observed_generation=self.service.generation,
            conditions=self.conditions,
            url=self.url,
            replicas=len(self.active),
            ready_replicas=self.ready(),
            desired_replicas=self.desired,
            selector=self.selector,
            stable_revision=self.stable,
            traffic=self.traffic,
            canary=self.canary,
            members=members,
            revisions=self.revisions,
            restart_count=self.restart_count,
            restarts=self.restarts,
            scaled=self.scaled,
        )
        return ServicePlan(
            status,
            tuple(self.actions),
            dict(self.requests),
            self.table,
            self.memory,
            self.requeue_after,
        )
