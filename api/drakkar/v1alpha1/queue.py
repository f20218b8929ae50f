"""Queue: who may use how much, and who goes first. Cluster-scoped."""

from datetime import datetime
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from drakkar.v1alpha1.meta import (
    PATTERN_MESSAGE,
    RESOURCE_KEYS,
    VALIDATIONS,
    Condition,
    Model,
    Name,
    Resources,
    rule,
    rules,
)

UNLIMITED = "unlimited"

_LIMIT_SCHEMA: JsonDict = {
    "x-kubernetes-int-or-string": True,
    "maxLength": 32,
    VALIDATIONS: [
        rule(
            f"type(self) == int ? self >= 0 : self == '{UNLIMITED}' || "
            "(isQuantity(self) && quantity(self).compareTo(quantity('0')) >= 0)",
            f"write a quantity of zero or more, such as 4, 500m or 16Gi, or {UNLIMITED}",
        )
    ],
}
Limits = Annotated[
    dict[
        Annotated[str, Field(max_length=253)],
        Annotated[int | str, Field(json_schema_extra=_LIMIT_SCHEMA)],
    ],
    Field(max_length=16, json_schema_extra={VALIDATIONS: [RESOURCE_KEYS]}),
]
"""Resource name -> quantity or "unlimited"."""

Labels = Annotated[
    dict[Annotated[str, Field(max_length=317)], Annotated[str, Field(max_length=63)]],
    Field(min_length=1, max_length=8),
]
"""Node label -> value."""

_ONLY_WITH_QUOTA = tuple(
    rule(
        f"!has(self.{field}) || self.{field}.all(k, has(self.quota) && k in self.quota)",
        f"{field} names a resource that quota does not: without a quota there is nothing to {verb}",
    )
    for field, verb in (("borrowing", "exceed"), ("lending", "lend"))
)


class Quota(Model):
    """What is a queue's own, how much more it may take, how much of it others may."""

    quota: Resources = Field(
        default_factory=dict,
        description="What the queue can count on, per resource. Its running jobs request no more "
        "than this plus borrowing. Unnamed: no limit.",
    )
    borrowing: Limits = Field(
        default_factory=dict,
        description="Most that it may use above its quota of what other queues below the same "
        "parent leave unused: a quantity or 'unlimited'. Unnamed: nothing.",
    )
    lending: Limits = Field(
        default_factory=dict,
        description="Most of its unused quota that other queues may borrow: a quantity or "
        "'unlimited'. Unnamed: all of it.",
    )


class Flavor(Quota):
    """A type of node with a quota of its own."""

    model_config: ClassVar[ConfigDict] = rules(*_ONLY_WITH_QUOTA)

    name: str = Field(
        min_length=1,
        max_length=63,
        pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$",
        description="Name in statuses and messages, such as h100.",
        json_schema_extra={
            PATTERN_MESSAGE: "write a short name: lower-case letters, digits, '-' and '.'"
        },
    )
    node_labels: Labels = Field(
        description="Labels of the nodes, such as nvidia.com/gpu.product: NVIDIA-H100-80GB-HBM3."
    )


class Preemption(Model):
    """Which running jobs must make room, and not before when."""

    within_queue: Literal["Never", "LowerPriority"] = Field(
        default="LowerPriority",
        description="Jobs of the same queue that a waiting job may displace.",
    )
    reclaim: Literal["Never", "LowerPriority", "Any"] = Field(
        default="Any",
        description="Jobs of queues that borrow, which a waiting job may displace to get the quota "
        "that its own queue lent.",
    )
    min_runtime_seconds: int = Field(
        default=60,
        ge=0,
        le=604_800,
        description="A job of this queue is not displaced before it has run this long.",
    )


class QueueSpec(Quota):
    """Limits of the jobs that name this queue or one below it."""

    model_config: ClassVar[ConfigDict] = rules(
        *_ONLY_WITH_QUOTA,
        rule(
            "has(self.parent) || (!has(self.borrowing) && !has(self.lending) && (!has(self.flavors)"
            " || self.flavors.all(f, !has(f.borrowing) && !has(f.lending))))",
            "queues borrow from and lend to those with the same parent: "
            "write spec.parent or remove borrowing and lending",
        ),
        rule(
            "!has(self.flavors) || "
            "self.flavors.all(a, self.flavors.exists_one(b, b.name == a.name))",
            "give each flavor a name of its own",
        ),
    )

    flavors: list[Flavor] = Field(
        default_factory=list,
        max_length=8,
        description="Quotas per type of node, besides the quota over all of them. A job that "
        "requests a resource named here runs on nodes of one flavor: the first in this order that "
        "has quota and room.",
    )
    parent: Name | None = Field(default=None, description="Queue whose quota this one shares.")
    weight: int = Field(
        default=1, ge=1, le=1000, description="Share among queues that compete for the same room."
    )
    backfill_seconds: int = Field(
        default=3600,
        ge=0,
        le=2_592_000,
        description="The first waiting job may be passed this long by jobs whose end is unknown; "
        "after that what it waits for is kept free for it.",
    )
    preemption: Preemption = Preemption()
    binding: Literal["direct", "pinned"] = Field(
        default="direct",
        description="direct: pods are created on their node. pinned: kube-scheduler binds them to it.",
    )


class FlavorStatus(Model):
    """What the queue's jobs use of one type of node."""

    name: str = Field(max_length=63)
    used: Resources = Field(default_factory=dict, description="What jobs on such nodes request.")
    borrowed: Resources = Field(default_factory=dict, description="What of it is above the quota.")
    lent: Resources = Field(default_factory=dict, description="What of the quota others use.")


class QueueStatus(Model):
    """What the queue's jobs, and those of the queues below it, use and wait for."""

    conditions: list[Condition] = Field(
        default_factory=list,
        max_length=16,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    used: Resources = Field(default_factory=dict, description="What the admitted jobs request.")
    borrowed: Resources = Field(default_factory=dict, description="What of it is above the quota.")
    lent: Resources = Field(
        default_factory=dict, description="What of the unused quota other queues use."
    )
    flavors: list[FlavorStatus] = Field(default_factory=list, max_length=8)
    admitted: int = Field(default=0, description="Jobs that hold a placement.")
    pending: int = Field(default=0, description="Jobs that wait.")
    share: float | None = Field(
        default=None,
        description="Its part of the cluster: of the resource that it uses most of.",
    )
    fair_share: float | None = Field(
        default=None,
        description="The part that its weight gives it among the queues that have jobs.",
    )
    recent: Resources = Field(
        default_factory=dict,
        description="Average use, newer use counting more; the operator continues from it.",
    )
    recent_time: datetime | None = Field(default=None, description="When recent was written.")
