"""What every provider does."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from drakkar.local.kubeapi import KubeApi, node_is_ready
from drakkar.local.topology import Topology


@dataclass(frozen=True, slots=True)
class Request:
    """What a cluster should be like. None leaves a running cluster as it is."""

    topology: Topology | None = None
    fake_nodes: int | None = None


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """One node, as `status` shows it."""

    name: str
    state: str
    version: str = ""
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Status:
    """A cluster, as `status` shows it."""

    provider: str
    server: str
    """Whether the API server answers: 'ready' or 'not answering'."""
    nodes: list[NodeStatus]
    processes: dict[str, int | None] = field(default_factory=dict)
    """Name -> id of its processes; None for one that should run and does not."""


class Provider(Protocol):
    """Brings a cluster up and takes it down."""

    @property
    def kubeconfig(self) -> Path:
        """A kubeconfig with administrator's rights."""

    def up(self, request: Request) -> None:
        """Make the cluster so, whatever state it is in; return when it is ready."""

    def down(self) -> None:
        """Remove the cluster and everything made for it; absent is fine."""

    def status(self) -> Status:
        """How the cluster is."""

    def load_image(self, archive: Path) -> list[str]:
        """Put an archive's images on every node; return the names of nodes passed over."""


def nodes_from(api: KubeApi, labels: tuple[str, ...] = ()) -> list[NodeStatus]:
    """The nodes as the API server knows them."""
    return [
        NodeStatus(
            name=node["metadata"]["name"],
            state="Ready" if node_is_ready(node) else "NotReady",
            version=node.get("status", {}).get("nodeInfo", {}).get("kubeletVersion", ""),
            labels={
                key: value
                for key, value in (node["metadata"].get("labels") or {}).items()
                if key in labels
            },
        )
        for node in api.list("/api/v1/nodes")
    ]
