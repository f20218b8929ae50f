"""Install Drakkar into a cluster: its kinds, then its chart by Helm."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from drakkar.local.build import ensure_programs
from drakkar.local.errors import ClusterError
from drakkar.local.kubeapi import KubeApi
from drakkar.local.paths import checkout
from drakkar.local.process import run
from drakkar.local.progress import Progress, Silent
from drakkar.local.runtime import python_in_pods

NAMESPACE = "drakkar-system"
DEVICES_NAMESPACE = "drakkar-devices"
"""Of the daemons that see folders of the nodes, which NAMESPACE does not allow."""
RELEASE = "drakkar"
VISITOR = "dashboard"
"""Service account in NAMESPACE with which the pages are looked at, on the local cluster."""
CODE_ANNOTATION = "drakkar.dev/code"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def install(
    kubeconfig: Path,
    *,
    values: Sequence[Path] = (),
    server: bool | None = None,
    progress: Progress | None = None,
) -> None:
    """Install or upgrade Drakkar in the cluster of a kubeconfig; returns when it is ready.

    The chart's values for the local cluster are used where it has the runtime class that mounts
    this environment; elsewhere the chart's defaults, which name images. ``values`` are further
    files of values. ``server`` says whether the API server with the pages comes along; by default
    it does on the local cluster, and elsewhere the values say. Raises ClusterError with what Helm
    or the API server said.
    """
    progress = progress or Silent()
    root = checkout()
    if root is None:
        raise ClusterError(
            "The chart comes with the source tree: install from a checkout, or use helm."
        )
    chart = root / "charts" / "drakkar"
    helm = ensure_programs(progress, ["helm"]).helm
    with KubeApi(kubeconfig, timeout_seconds=30) as api:
        with progress.step("Installing the kinds TrainingJob, Queue and Topology"):
            _apply_definitions(api, chart / "crds")
        _ensure_namespace(api, NAMESPACE, "restricted")
        local = api.find("/apis/node.k8s.io/v1/runtimeclasses/drakkar-local") is not None
        if local:
            _ensure_namespace(api, DEVICES_NAMESPACE, "privileged")
            if server is not False:
                _ensure_visitor(api)
    where: list[str | Path] = ["--kubeconfig", kubeconfig, "--namespace", NAMESPACE]
    _unlock(helm, where)
    command: list[str | Path] = [helm, "upgrade", "--install", RELEASE, chart]
    command += [*where, "--skip-crds"]
    if local:
        command += ["--values", chart / "values-local.yaml"]
        for name, value in local_settings(root).items():
            command += ["--set-string", f"{name}={value}"]
    for file in values:
        command += ["--values", file]
    if server is not None:
        command += ["--set", f"server.enabled={str(server).lower()}"]
    with progress.step("Installing Drakkar with Helm"):
        run([*command, "--wait", "--timeout", "110s"])


def _unlock(helm: Path, where: Sequence[str | Path]) -> None:
    """Remove a release that an interrupted Helm left half-made: Helm would refuse to touch it.

    Jobs and their kinds are not part of the release and stay.
    """
    answer = run([helm, "status", RELEASE, *where, "--output", "json"], check=False)
    try:
        state = str(json.loads(answer)["info"]["status"])
    except (ValueError, KeyError, TypeError):
        return
    if state.startswith("pending"):
        run([helm, "uninstall", RELEASE, *where])


def local_settings(root: Path) -> dict[str, str]:
    """Chart values that only this machine knows.

    The pods run from the checkout, so a digest of its code makes Helm replace them on a change.
    """
    python = python_in_pods()
    annotation = CODE_ANNOTATION.replace(".", "\\.")
    return {
        "python": python,
        "worker.python": python,
        f"podAnnotations.{annotation}": _digest(root),
    }


def _digest(root: Path) -> str:
    """Digest of the code that the operator, the server and the devices' daemons import."""
    digest = hashlib.sha256()
    components = ("operator/drakkar_operator", "api/drakkar_server", "gpu_plugins/drakkar_gpu")
    for folder in (*components, "api/drakkar"):
        for file in sorted((root / folder).rglob("*.py")):
            digest.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def _apply_definitions(api: KubeApi, folder: Path) -> None:
    """Apply the CRDs, which Helm would only ever install and not upgrade, until they are served."""
    names = []
    for file in sorted(folder.glob("*.yaml")):
        definition: dict[str, Any] = yaml.safe_load(file.read_text())
        names.append(definition["metadata"]["name"])
        api.apply(f"{DEFINITIONS}/{names[-1]}", definition)
    deadline = time.monotonic() + 30
    while missing := [name for name in names if not _established(api, name)]:
        if time.monotonic() > deadline:
            raise ClusterError(f"The API server does not serve {', '.join(missing)} after 30 s.")
        time.sleep(0.2)


def _established(api: KubeApi, name: str) -> bool:
    status = api.get(f"{DEFINITIONS}/{name}").get("status") or {}
    conditions = {c["type"]: c["status"] for c in status.get("conditions") or ()}
    return conditions.get("Established") == "True"


def _ensure_visitor(api: KubeApi) -> None:
    """The account that `drakkar dashboard` signs in with: on this machine's own cluster it may do
    what the cluster's kubeconfig may."""
    account = {"name": VISITOR, "namespace": NAMESPACE}
    api.apply(
        f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{VISITOR}",
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account},
    )
    group = "rbac.authorization.k8s.io"
    name = f"{RELEASE}-{VISITOR}"
    api.apply(
        f"/apis/{group}/v1/clusterrolebindings/{name}",
        {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "ServiceAccount", **account}],
        },
    )


def _ensure_namespace(api: KubeApi, name: str, level: str) -> None:
    labels = {"pod-security.kubernetes.io/enforce": level}
    metadata = {"name": name, "labels": labels}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}
    api.apply(f"/api/v1/namespaces/{name}", namespace)
