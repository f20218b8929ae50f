"""Conditions of a job: reasons in one place, one way to set them (KEP-1623)."""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Literal

from drakkar.v1alpha1.meta import Condition

ADMITTED = "Admitted"
RUNNING = "Running"
COMPLETE = "Complete"
FAILED = "Failed"
SUSPENDED = "Suspended"

MESSAGE_LIMIT = 4096
"""Longer messages are cut."""
Truth = Literal["True", "False", "Unknown"]


class Reason(StrEnum):
    """Reasons of conditions and events; part of the interface, so never renamed."""

    PLACED = "Placed"
    WAITING = "WaitingForRoom"
    QUEUE_NOT_FOUND = "QueueNotFound"
    CLAIM_NOT_FOUND = "ClaimNotFound"
    CREATION_FAILED = "PodCreationFailed"
    STARTING = "Starting"
    TRAINING = "Training"
    RECOVERING = "Recovering"
    FINISHED = "Finished"
    SUSPENDING = "Suspending"
    SUSPENDED = "Suspended"
    RESUMED = "Resumed"
    INVALID_SPEC = "InvalidSpec"
    CONFIG_ERROR = "ConfigError"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    RESTARTS_EXCEEDED = "MaxRestartsExceeded"


def find(conditions: Sequence[Condition], type_: str) -> Condition | None:
    """The condition of that type, if it was ever set."""
    return next((c for c in conditions if c.type == type_), None)


def is_true(conditions: Sequence[Condition], type_: str) -> bool:
    """Whether the condition is set and True."""
    condition = find(conditions, type_)
    return condition is not None and condition.status == "True"


def finished(conditions: Sequence[Condition]) -> bool:
    """Whether the job has ended, well or not, and holds nothing any more."""
    return is_true(conditions, COMPLETE) or is_true(conditions, FAILED)


def with_condition(
    conditions: Sequence[Condition],
    type_: str,
    status: Truth,
    reason: str,
    message: str,
    *,
    at: datetime,
    generation: int,
) -> list[Condition]:
    """The conditions with this one set; its transition time moves only if its status changes."""
    old = find(conditions, type_)
    new = Condition(
        type=type_,
        status=status,
        reason=reason,
        message=message[:MESSAGE_LIMIT],
        last_transition_time=old.last_transition_time if old and old.status == status else at,
        observed_generation=generation,
    )
    if old is None:
        return [*conditions, new]
    return [new if c.type == type_ else c for c in conditions]
