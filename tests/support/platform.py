"""The installed operator, as something to look at and to kill."""

import contextlib
import os
import signal
import time
from typing import Any

import httpx

from drakkar.local import Cluster, ClusterError
from drakkar.local.install import NAMESPACE
from drakkar.local.kubeapi import KubeApi
from support.processes import in_pod


class Platform:
    """Drakkar's Deployment on a cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self.api = KubeApi(cluster.kubeconfig, timeout_seconds=30)

    def pods(self) -> list[dict[str, Any]]:
        """The operator's pods."""
        return self.api.list(
            f"/api/v1/namespaces/{NAMESPACE}/pods",
            labelSelector="app.kubernetes.io/name=drakkar,app.kubernetes.io/component=operator",
        )

    def ready(self) -> bool:
        """Whether an operator's pod is ready."""
        for pod in self.pods():
            conditions = {c["type"]: c["status"] for c in pod["status"].get("conditions", ())}
            if conditions.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]:
                return True
        return False

    def wait_ready(self, seconds: float = 120) -> None:
        """Wait until an operator is ready."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                if self.ready():
                    return
            except (httpx.HTTPError, ClusterError):
                pass
            time.sleep(0.5)
        raise AssertionError(f"no operator is ready after {seconds:.0f} s")

    def crashes(self) -> int:
        """How often the operator's containers ended and were started anew."""
        return sum(
            int(container["restartCount"])
            for pod in self.pods()
            for container in pod["status"].get("containerStatuses", ())
        )

    def kill(self) -> int:
        """kill -9 every operator process, and have its pod replaced at once.

        The kubelet would start the container anew, too, but after some deaths only minutes later.
        """
        killed = 0
        for pod in self.pods():
            metadata = pod["metadata"]
            for pid in in_pod(metadata["uid"], command="drakkar_operator"):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    killed += 1
            self.api.delete(f"/api/v1/namespaces/{NAMESPACE}/pods/{metadata['name']}")
        return killed
