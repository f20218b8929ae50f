"""Queue: who may use how much. Cluster-scoped."""

from typing import Annotated, Literal

from pydantic import Field

from drakkar.v1alpha1.meta import Condition, Model, Name, Quantity


class QueueSpec(Model):
    """Limits of the jobs that name this queue."""

    quota: Annotated[dict[str, Quantity], Field(max_length=64)] = Field(
        default_factory=dict,
        description="Most that the queue's running jobs may request, per resource; unnamed: no limit.",
    )
    parent: Name | None = None
    weight: int = Field(default=1, ge=1, le=1000)
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
    used: dict[str, Quantity] = Field(default_factory=dict)
    admitted: int = Field(default=0, description="Jobs that hold a placement.")
    pending: int = Field(default=0, description="Jobs that wait.")
