"""What nodes a local cluster has, and where they stand on the imagined fabric.

A topology file is YAML::

    nodes:
      - name: node-1
        rack: rack-1
        labels: {disk: ssd}
        taints: [{key: dedicated, value: training, effect: NoSchedule}]
        resources: {drakkar.dev/slot: 8}
        cpu: "1"
        memory: 8Gi
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from drakkar.constants import DEFAULT_LEVELS, LEVEL_HOST
from drakkar.local.errors import ClusterError
from drakkar.quantity import parse

_LABELS = dict(DEFAULT_LEVELS)
ZONE_LABEL, BLOCK_LABEL, RACK_LABEL = (_LABELS[level] for level in ("zone", "block", "rack"))
HOST_LABEL = LEVEL_HOST

NODES_PER_RACK = 2
NODES_PER_BLOCK = 8
MAX_NODES = 200


class Taint(BaseModel):
    """A node taint, as in `node.spec.taints`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str
    value: str = ""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] = "NoSchedule"


class NodeSpec(BaseModel):
    """One node: where it stands, what it offers, whom it turns away."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,40}[a-z0-9])?$")
    zone: str = "zone-1"
    block: str = "block-1"
    rack: str = "rack-1"
    labels: dict[str, str] = {}
    taints: list[Taint] = []
    resources: dict[str, int] = {}
    """Extended resources put in the node's status, so that pods can ask for them."""
    cpu: str | None = None
    """At most this much of the machine's CPU is offered to pods; None offers all of it."""
    memory: str | None = None

    @field_validator("cpu", "memory", mode="before")
    @classmethod
    def _is_quantity(cls, value: object) -> object:
        if value is None:
            return None
        if parse(str(value)) < 0:
            raise ValueError(f"{value!r} is negative")
        return str(value)

    def node_labels(self) -> dict[str, str]:
        """Every label of the Node object that does not come from the kubelet."""
        return {
            HOST_LABEL: self.name,
            ZONE_LABEL: self.zone,
            BLOCK_LABEL: self.block,
            RACK_LABEL: self.rack,
            **self.labels,
        }


class Topology(BaseModel):
    """The nodes of a cluster in order."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    nodes: list[NodeSpec] = Field(min_length=1, max_length=MAX_NODES)

    @field_validator("nodes")
    @classmethod
    def _names_differ(cls, nodes: list[NodeSpec]) -> list[NodeSpec]:
        twice = [name for name, count in Counter(n.name for n in nodes).items() if count > 1]
        if twice:
            raise ValueError(f"node {twice[0]} is listed twice")
        return nodes

    @property
    def names(self) -> list[str]:
        return [node.name for node in self.nodes]


def default_topology(nodes: int) -> Topology:
    """`node-1` to `node-N` in one zone: racks of two nodes, blocks of four racks."""
    if not 1 <= nodes <= MAX_NODES:
        raise ClusterError(f"A local cluster has 1 to {MAX_NODES} nodes, not {nodes}.")
    return Topology(
        nodes=[
            NodeSpec(
                name=f"node-{i + 1}",
                block=f"block-{i // NODES_PER_BLOCK + 1}",
                rack=f"rack-{i // NODES_PER_RACK + 1}",
            )
            for i in range(nodes)
        ]
    )


def load_topology(path: Path) -> Topology:
    """Read a topology file; what is wrong with it is said in one sentence."""
    try:
        return Topology.model_validate(yaml.safe_load(path.read_text()))
    except OSError as error:
        raise ClusterError(f"The topology file {path} cannot be read: {error.strerror}.") from error
    except yaml.YAMLError as error:
        raise ClusterError(f"The topology file {path} is no YAML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ClusterError(
            f"The topology file {path} is wrong at {where}: {first['msg']}."
        ) from error
