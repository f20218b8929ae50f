"""The gang of a TrainingJob: its devices, roles, rank groups, size, and how close it must be."""

from typing import Annotated, ClassVar, Final, Literal

from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from drakkar.v1alpha1.meta import (
    PATTERN_MESSAGE,
    VALIDATIONS,
    Model,
    Opaque,
    Resources,
    rule,
    rules,
)

LevelName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=63,
        pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$",
        json_schema_extra={
            PATTERN_MESSAGE: "write the name of a topology level, such as zone, block, rack or host"
        },
    ),
]


class Accelerators(Model):
    """Devices of each replica."""

    resource: str = Field(
        max_length=253,
        pattern=r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$",
        description="Extended resource that the device plugin advertises, such as nvidia.com/gpu.",
        json_schema_extra={
            PATTERN_MESSAGE: "write an extended resource as DOMAIN/NAME, such as nvidia.com/gpu"
        },
    )
    count: int = Field(ge=1, le=64, description="Devices per replica.")


class RankGroup(Model):
    """Consecutive replicas that talk most to each other and share a domain."""

    size: int = Field(ge=2, le=4096, description="Replicas in each group, such as 4.")
    level: LevelName = Field(description="Each group runs inside one domain of this level.")


RankGroups = Annotated[
    list[RankGroup],
    Field(
        max_length=4,
        json_schema_extra={
            VALIDATIONS: [
                rule(
                    "self.all(i, self.all(j, i.size >= j.size || j.size % i.size == 0)) "
                    "&& self.all(i, self.exists_one(j, j.size == i.size))",
                    "each size in groups must be a multiple of the size before it, "
                    "such as 2, 8 and 32",
                ),
                rule(
                    "self.map(group, group.size).isSorted()",
                    "write the groups from the smallest size to the largest",
                ),
            ]
        },
    ),
]
"""Groups inside groups, smallest first."""


class TopologySpread(Model):
    """How many replicas may be lost at once with a domain."""

    level: LevelName = Field(description="Level whose domains fail as a whole, such as rack.")
    max_per_domain: int = Field(
        ge=1, le=4096, description="Most replicas in one domain of this level."
    )


class TopologyRequest(Model):
    """How close together the gang must be placed."""

    model_config: ClassVar[ConfigDict] = rules(
        rule(
            "!(has(self.required) && has(self.preferred))",
            "write required (the gang waits for such room) or preferred (it makes do), not both",
        ),
    )

    required: LevelName | None = Field(
        default=None,
        description="The gang runs inside one domain of this level (zone, block, rack, host) or waits.",
    )
    preferred: LevelName | None = Field(
        default=None,
        description="The gang runs inside one domain of this level if there is room, else as close as can be.",
    )
    spread: TopologySpread | None = Field(
        default=None,
        description="No domain of a level holds more than so many replicas (of each role, if there are "
        "roles): what fails together. The gang is as close together as this allows.",
    )
    groups: RankGroups = Field(
        default_factory=list,
        description="Rank groups, the smallest first: tensor-parallel replicas in one host or NVLink "
        "domain, pipeline neighbours in one rack. Each size divides the next.",
    )


_RESOURCES_SCHEMA: JsonDict = {
    VALIDATIONS: [
        rule(
            "!has(self.requests) || !has(self.limits) || self.requests.all(k, "
            "!(k in self.limits) || !isQuantity(string(self.requests[k])) "
            "|| !isQuantity(string(self.limits[k])) "
            "|| quantity(string(self.requests[k])).compareTo(quantity(string(self.limits[k]))) <= 0)",
            "a request exceeds its limit: raise the limit or lower the request",
        )
    ]
}

# The API server looks no deeper into a template than these rules need.
_TEMPLATE_SCHEMA: JsonDict = {
    "x-kubernetes-preserve-unknown-fields": True,
    "properties": {
        "spec": {
            "type": "object",
            "x-kubernetes-preserve-unknown-fields": True,
            "properties": {
                "containers": {
                    "type": "array",
                    "maxItems": 64,
                    "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                },
                "nodeName": {"type": "string", "maxLength": 253},
            },
        }
    },
}


DEVICES_TWICE: Final = (
    "!has(self.accelerators) || !has(self.resources) "
    "|| ((!has(self.resources.requests) "
    "|| !(self.accelerators.resource in self.resources.requests)) "
    "&& (!has(self.resources.limits) "
    "|| !(self.accelerators.resource in self.resources.limits)))"
)
NODE_NAME: Final = (
    "!has(self.template) || !has(self.template.spec) || !has(self.template.spec.nodeName)"
)
"""CEL: the template leaves the choice of the node to Drakkar."""

ResourcesByKind = Annotated[
    dict[Literal["requests", "limits"], Resources],
    Field(json_schema_extra=_RESOURCES_SCHEMA),
]
Template = Annotated[Opaque, Field(json_schema_extra=_TEMPLATE_SCHEMA)]


class Role(Model):
    """Replicas of a gang that differ from the others: a coordinator without devices, workers."""

    model_config: ClassVar[ConfigDict] = rules(
        rule(
            "!has(self.groups) || self.groups.all(group, self.replicas % group.size == 0)",
            "the role's replicas must be a multiple of every size in its groups: change one of them",
        ),
        rule(NODE_NAME, "Drakkar chooses the nodes: remove nodeName, use nodeSelector or topology"),
        rule(DEVICES_TWICE, "devices are counted in accelerators: remove them from resources"),
    )

    name: str = Field(
        min_length=1,
        max_length=63,
        pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$",
        description="Name of the role; its pods see it as DRAKKAR_ROLE and have it as a label.",
        json_schema_extra={
            PATTERN_MESSAGE: "write lower-case letters, digits and '-', such as coordinator"
        },
    )
    replicas: int = Field(ge=1, le=4096, description="Pods of this role.")
    accelerators: Accelerators | None = None
    resources: ResourcesByKind | None = Field(
        default=None, description="CPU and memory of each replica's trainer container."
    )
    template: Template | None = Field(
        default=None, description="Pod template of this role; spec.template unless set."
    )
    groups: RankGroups = Field(
        default_factory=list, description="Rank groups of this role, as in spec.topology.groups."
    )


class Elastic(Model):
    """The size of a gang that makes do with fewer replicas."""

    model_config: ClassVar[ConfigDict] = rules(
        rule("self.min <= self.max", "elastic.min exceeds elastic.max: change one of them"),
    )

    min: int = Field(ge=1, le=4096, description="Fewest replicas that the job runs with.")
    max: int = Field(ge=1, le=4096, description="Most replicas that it takes.")
