"""Pods as small as can be, and namespaces that vanish after a test."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from drakkar.local import Cluster
from drakkar.local.process import run, wait_until

Object = dict[str, Any]


class Kube:
    """A namespace of a cluster, by kubectl where a person would use it."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self._kubectl = cluster.program("kubectl")
        self.api = cluster.api()

    def kubectl(self, *arguments: str) -> str:
        own = [self._kubectl, f"--kubeconfig={self.cluster.kubeconfig}", "-n", self.namespace]
        return run([*own, *arguments])

    def path(self, kind: str, name: str = "") -> str:
        return f"/api/v1/namespaces/{self.namespace}/{kind}" + (f"/{name}" if name else "")

    def create(self, kind: str, obj: Object) -> None:
        assert self.api.create(self.path(kind), obj)

    def pod(self, name: str) -> Object:
        return self.api.get(self.path("pods", name))

    def wait_for_pods(self, *names: str, seconds: float = 60) -> None:
        def ready() -> bool:
            pods = [self.pod(name) for name in names]
            conditions = [pod["status"].get("conditions") or [] for pod in pods]
            return all(
                any(c["type"] == "Ready" and c["status"] == "True" for c in found)
                for found in conditions
            )

        wait_until(ready, seconds=seconds, what=f"The start of {', '.join(names)}", poll=0.2)


@pytest.fixture
def namespace_in() -> Iterator[Callable[[Cluster], Kube]]:
    """Makes namespaces under the strictest Pod Security level; they go after the test."""
    made: list[Kube] = []

    def make(cluster: Cluster) -> Kube:
        name = f"local-{uuid.uuid4().hex[:8]}"
        kube = Kube(cluster, name)
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        kube.api.create("/api/v1/namespaces", {"metadata": {"name": name, "labels": labels}})
        account = kube.path("serviceaccounts", "default")
        wait_until(lambda: kube.api.find(account) is not None, seconds=20, what="The account")
        made.append(kube)
        return kube

    yield make
    for kube in made:
        if kube.api.ready():
            kube.api.delete(f"/api/v1/namespaces/{kube.namespace}")


@pytest.fixture
def kube(cluster: Cluster, namespace_in: Callable[[Cluster], Kube]) -> Kube:
    """A namespace of the shared cluster."""
    return namespace_in(cluster)


@pytest.fixture
def pod() -> Callable[..., Object]:
    """Builds pods; see `restricted_pod`."""
    return restricted_pod


def restricted_pod(
    name: str, *command: str, node: str | None = None, claim: str | None = None
) -> Object:
    """A pod that passes the restricted level and runs a command with the host's Python."""
    container: Object = {
        "name": "main",
        "image": "localhost/drakkar:dev",
        "command": list(command),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    spec: Object = {
        "runtimeClassName": "drakkar-local",
        "hostname": name,
        "subdomain": "peers",
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 1,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
    }
    if node:
        spec["nodeName"] = node
    if claim:
        container["volumeMounts"] = [{"name": "shared", "mountPath": "/shared"}]
        spec["volumes"] = [{"name": "shared", "persistentVolumeClaim": {"claimName": claim}}]
    return {"metadata": {"name": name, "labels": {"app": "peer"}}, "spec": spec}
