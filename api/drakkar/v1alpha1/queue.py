"""Queue: who may use how much. Cluster-scoped."""

from typing import Literal

from pydantic import Field

from drakkar.v1alpha1.meta import Condition, Model, Name, Resources


class QueueSpec(Model):
    """Limits of the jobs that name this queue."""

    quota: Resources = Field(
        default_factory=dict,
        description="Most that the queue's running jobs may request, per resource; unnamed: no limit.",
    )
    parent: Name | None = Field(default=None, description="Queue whose quota this one shares.")
    weight: int = Field(
        default=1, ge=1, le=1000, description="Share among queues that compete for the same room."
    )
    binding: Literal["direct", "pinned"] = Field(
        default="direct",
        description="direct: pods are created on their node. pinned: kube-scheduler binds them to it.",
    )


class QueueStatus(Model):
    """What the queue's jobs use and wait for."""

    conditions: list[Condition] = Field(
        default_factory=list,
        max_length=16,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    used: Resources = Field(default_factory=dict, description="What the admitted jobs request.")
    admitted: int = Field(default=0, description="Jobs that hold a placement.")
    pending: int = Field(default=0, description="Jobs that wait.")
