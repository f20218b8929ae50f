"""What ``drakkar plan`` asks of the operator, and the answer: JSON over HTTP.

The command reaches the operator through the API server's proxy to its Service, so that Kubernetes
decides who may ask (verb ``create`` on ``services/proxy``, name ``SERVICE:plan``).
"""

from datetime import datetime
from typing import Any, Final, Literal

from pydantic import Field

from drakkar.v1alpha1.meta import Model
from drakkar.v1alpha1.trainingjob import Placement

OPERATOR_NAMESPACE: Final = "drakkar-system"
OPERATOR_SERVICE: Final = "drakkar-operator"
PLAN_PORT: Final = "plan"
"""Name of the Service's port where ``POST /plan`` is answered."""
DEBUG_PORT: Final = "debug"
"""Name of the Service's port where ``GET /snapshot`` is answered."""
REFUSAL: Final = "OperatorRefused"
"""``reason`` of a meta/v1 Status that the operator itself answers with."""
MOST_JOBS: Final = 100
"""Jobs that are planned at once."""


class PlanRequest(Model):
    """Jobs that would be submitted together, as the API server would store them."""

    jobs: list[dict[str, Any]] = Field(min_length=1, max_length=MOST_JOBS)


class PlannedEviction(Model):
    """A running gang that would give up its place."""

    namespace: str
    name: str
    cause: str
    message: str


class JobPlan(Model):
    """What would become of one job.

    outcome: ``starts`` with a placement; ``waits`` for the reason given; ``fails`` as it is written;
    ``suspended``; or, for a job that is there already, ``runs`` where it is placed or ``ended``.
    """

    namespace: str
    name: str
    outcome: Literal["starts", "waits", "fails", "suspended", "runs", "ended"]
    placement: Placement | None = None
    reason: str | None = None
    queue: str | None = None
    position: int | None = Field(
        default=None, description="Place among the waiting jobs of its queue, from 1."
    )
    expected_start: datetime | None = Field(
        default=None, description="When running jobs are expected to have made room."
    )
    evictions: list[PlannedEviction] = Field(default_factory=list)


class PlanAnswer(Model):
    """The operator's answer, one plan for each job in the order asked."""

    jobs: list[JobPlan]
    held_up: list[str] = Field(
        default_factory=list,
        description="Waiting jobs (namespace/name) that would start now if these were not there.",
    )
