"""Topology: which node labels say how near nodes are to each other. Cluster-scoped."""

from pydantic import Field

from drakkar.v1alpha1.meta import Model
from drakkar.v1alpha1.trainingjob import LevelName


class Level(Model):
    """One level of the fabric."""

    name: LevelName
    node_label: str = Field(min_length=1, max_length=317)
    bandwidth_gbps: float | None = Field(
        default=None,
        gt=0,
        description="Bandwidth between two domains' nodes at this level, Gbit/s.",
    )


class TopologySpec(Model):
    """The levels, widest first; the last one is the host."""

    levels: list[Level] = Field(min_length=1, max_length=16)


class Domain(Model):
    """Nodes and devices below one domain of the widest level."""

    name: str = Field(max_length=253)
    nodes: int
    free: dict[str, int] = Field(default_factory=dict, description="Free devices per resource.")


class TopologyStatus(Model):
    """The tree as the operator sees it."""

    domains: list[Domain] = Field(default_factory=list, max_length=1024)
