"""What a plan asks the executor to do, in order, after the status is written."""

from dataclasses import dataclass
from typing import Literal

from drakkar.v1alpha1.trainingjob import TrainingJobStatus
from drakkar_operator.scheduling.request import GangRequest


@dataclass(frozen=True, slots=True)
class EnsureService:
    """The headless service exists by which a gang's replicas find each other."""


@dataclass(frozen=True, slots=True)
class CreatePod:
    """A replica's pod exists on this node."""

    replica: int
    node: str


@dataclass(frozen=True, slots=True)
class DeletePod:
    """This very pod (by UID) goes; ``grace_seconds`` None leaves it its own, 0 forces it."""

    name: str
    uid: str
    grace_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class DeleteJob:
    """The job's time to live is over."""


@dataclass(frozen=True, slots=True)
class RecordEvent:
    """Tell the user of a transition."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


Action = EnsureService | CreatePod | DeletePod | DeleteJob | RecordEvent


@dataclass(frozen=True, slots=True)
class Plan:
    """Outcome of looking at a job: the status to write first, then the actions."""

    status: TrainingJobStatus
    actions: tuple[Action, ...] = ()
    request: GangRequest | None = None
    """Ranks that need the scheduler."""
    requeue_after: float | None = None
    """Seconds until the job must be looked at again even if nothing happens."""
