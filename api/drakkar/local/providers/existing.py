"""A cluster that is there already, as the current kubeconfig says."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from drakkar.local.errors import ClusterError
from drakkar.local.paths import ClusterPaths
from drakkar.local.progress import Progress
from drakkar.local.providers.base import NodeStatus, Request, Status


class Existing:
    """The provider `existing`: looks, and changes nothing."""

    def __init__(self, paths: ClusterPaths, progress: Progress) -> None:
        del paths
        self._progress = progress

    @property
    def kubeconfig(self) -> Path:
        first = os.environ.get("KUBECONFIG", "").split(os.pathsep)[0]
        return Path(first) if first else Path.home() / ".kube/config"

    def up(self, request: Request) -> None:
        if request.topology or request.fake_nodes:
            raise ClusterError(
                "Nodes of an existing cluster are not ours to change:"
                " leave out --nodes, --topology and --fake-nodes."
            )
        with self._progress.step("Asking the current cluster"):
            status = self.status()
        self._progress.note(f"{status.server}: {len(status.nodes)} nodes")

    def down(self) -> None:
        """Nothing was made, so nothing is removed."""

    def status(self) -> Status:
        nodes = [
            NodeStatus(
                name=node.metadata.name,
                state="Ready"
                if any(c.type == "Ready" and c.status == "True" for c in node.status.conditions)
                else "NotReady",
                version=node.status.node_info.kubelet_version,
            )
            for node in self._list_nodes()
        ]
        return Status(provider="existing", server="ready", nodes=nodes)

    def load_image(self, archive: Path) -> list[str]:
        raise ClusterError(
            f"Images of an existing cluster come from its registry: push {archive.name} there."
        )

    def _list_nodes(self) -> list[Any]:
        # The Kubernetes client knows every way to log in; it is slow to import.
        import kubernetes

        client: Any = kubernetes.client
        config: Any = kubernetes.config

        try:
            config.load_kube_config(config_file=str(self.kubeconfig))
            nodes: list[Any] = client.CoreV1Api().list_node(_request_timeout=10).items
        except config.ConfigException as error:
            raise ClusterError(
                f"{self.kubeconfig} names no cluster: set KUBECONFIG, or use another provider."
                f" ({error})"
            ) from error
        except Exception as error:
            reason = str(error).strip().splitlines()
            raise ClusterError(
                f"The cluster of {self.kubeconfig} does not let us list its nodes:"
                f" {reason[0] if reason else type(error).__name__}"
            ) from error
        return nodes
