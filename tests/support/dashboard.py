"""The API server as a process before a real cluster, and users with tokens."""

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from drakkar.local import Cluster
from drakkar.local.install import NAMESPACE
from drakkar.local.kubeapi import KubeApi
from support.lab import Lab

RBAC = "/apis/rbac.authorization.k8s.io/v1"


@contextlib.contextmanager
def dashboard(cluster: Cluster, folder: Path) -> Iterator[str]:
    """URL of a server for the cluster, with an empty SQLite database."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = (folder / "server.log").open("w")
    command = [
        *(sys.executable, "-m", "drakkar_server", "--host", "127.0.0.1", "--port", str(port)),
        *("--kubeconfig", str(cluster.kubeconfig), "--insecure-cookies", "1"),
        *("--database", f"sqlite+aiosqlite:///{folder}/history.db"),
    ]
    process = subprocess.Popen(command, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 120
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{url}/readyz", timeout=5).status_code == 200:
                    break
            said = (folder / "server.log").read_text()[-2000:]
            assert process.poll() is None, said
            assert time.monotonic() < deadline, f"the server is not ready\n{said}"
            time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait(30)
        log.close()


def token(lab: Lab, name: str, role: str | None = "edit") -> str:
    """A token of a new service account of the lab, with a role there and the right to plan."""
    core = f"/api/v1/namespaces/{lab.namespace}/serviceaccounts"
    lab.api.create(core, {"metadata": {"name": name}})
    if role:
        subject = {"kind": "ServiceAccount", "name": name, "namespace": lab.namespace}
        _bind(lab.api, lab.namespace, name, {"kind": "ClusterRole", "name": role}, subject)
        full = f"{lab.namespace}-{name}"
        _bind(lab.api, NAMESPACE, full, {"kind": "Role", "name": "drakkar-plan"}, subject)
        lab.clear_away(f"{RBAC}/namespaces/{NAMESPACE}/rolebindings/{full}")
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    return str(lab.api.post(f"{core}/{name}/token", asked)["status"]["token"])


def _bind(api: KubeApi, namespace: str, name: str, role: dict[str, str], subject: object) -> None:
    api.create(
        f"{RBAC}/namespaces/{namespace}/rolebindings",
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", **role},
            "subjects": [subject],
        },
    )
