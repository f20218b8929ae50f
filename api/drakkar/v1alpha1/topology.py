"""Topology: which node labels say how near nodes are to each other. Cluster-scoped."""

from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field

from drakkar.constants import LEVEL_HOST
from drakkar.v1alpha1.gang import LevelName
from drakkar.v1alpha1.meta import PATTERN_MESSAGE, Model, rule, rules


class Level(Model):
    """One level of the fabric."""

    name: LevelName
    node_label: str = Field(
        min_length=1,
        max_length=317,
        pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$",
        description="Label whose value names the node's domain at this level.",
        json_schema_extra={
            PATTERN_MESSAGE: "write the key of a node label, such as topology.kubernetes.io/zone"
        },
    )
    bandwidth_gbps: float | None = Field(
        default=None,
        gt=0,
        description="Bandwidth between two domains' nodes at this level, Gbit/s.",
    )


class TopologySpec(Model):
    """The levels, widest first; the last one is the host."""

    model_config: ClassVar[ConfigDict] = rules(
        rule(
            "self.levels.all(a, self.levels.exists_one(b, b.name == a.name))",
            "give each level a name of its own",
        ),
        rule(
            "self.levels.all(a, self.levels.exists_one(b, b.nodeLabel == a.nodeLabel))",
            "give each level a node label of its own",
        ),
        rule(
            f"self.levels[self.levels.size() - 1].nodeLabel == '{LEVEL_HOST}'",
            f"the last level is the host: write nodeLabel: {LEVEL_HOST} there",
        ),
    )

    levels: list[Level] = Field(
        min_length=1, max_length=16, description="From the widest domain to the host."
    )


class Domain(Model):
    """Nodes and devices below one domain of the widest level."""

    name: str = Field(max_length=253)
    nodes: int
    free: Annotated[dict[Annotated[str, Field(max_length=253)], int], Field(max_length=64)] = Field(
        default_factory=dict, description="Free devices per resource."
    )


class TopologyStatus(Model):
    """The tree as the operator sees it."""

    domains: list[Domain] = Field(default_factory=list, max_length=1024)
