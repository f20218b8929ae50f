"""A cluster by kind (Kubernetes in Docker), where a Docker engine answers."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from drakkar.local import manifests, state
from drakkar.local.build import ensure_programs
from drakkar.local.errors import ClusterError
from drakkar.local.kubeapi import KubeApi
from drakkar.local.paths import ClusterPaths, checkout, owner
from drakkar.local.process import boot_id, run
from drakkar.local.progress import Progress
from drakkar.local.providers.base import Request, Status, nodes_from
from drakkar.local.runtime import RUNTIME_CLASS
from drakkar.local.state import ClusterState
from drakkar.local.topology import RACK_LABEL, ZONE_LABEL, default_topology

_WORKERS = 4


def docker_problem() -> str | None:
    """Why no Docker engine can be used, if so: a sentence with what would help."""
    if not shutil.which("docker"):
        return "The program 'docker' is missing: install Docker, or use --provider upstream."
    answer = subprocess.run(
        ["docker", "info", "--format", "{{.ServerVersion}}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    if answer.returncode != 0:
        return "No Docker engine answers: start it, or use --provider upstream."
    return None


IMAGE_VARIABLE = "DRAKKAR_KIND_IMAGE"
"""Environment variable that names the image of kind's nodes; by default kind's own."""


def creation_problem(output: str) -> str:
    """Why `kind create cluster` failed, from what it wrote: a sentence with what would help."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    if found := re.search(r'failed to pull image "([^"@]+)', output):
        last = lines[-1].removeprefix("Command Output: ")
        return (
            f"Docker can't pull the image of kind's nodes, {found[1]}: {last}. Load one with "
            f"'docker load' and name it in {IMAGE_VARIABLE}, or use --provider upstream."
        )
    errors = [line for line in lines if line.startswith("ERROR: ")] or lines[-1:]
    return f"'kind create cluster' failed: {' '.join(errors).removeprefix('ERROR: ')}"


class Kind:
    """The provider `kind`: nodes and their labels come from kind-config.yaml."""

    def __init__(self, paths: ClusterPaths, progress: Progress) -> None:
        self._paths = paths
        self._progress = progress

    @property
    def kubeconfig(self) -> Path:
        return self._paths.kubeconfig

    def up(self, request: Request) -> None:
        if request.topology and len(request.topology.nodes) != _WORKERS:
            raise ClusterError(
                "The nodes of kind are set in kind-config.yaml; leave out --nodes and --topology."
            )
        if request.fake_nodes:
            raise ClusterError("Fake nodes are made by --provider upstream only.")
        self._require()
        name = self._paths.name
        with state.locked(self._paths.lock):
            self._paths.root.mkdir(parents=True, exist_ok=True)
            if name not in run([self._program(), "get", "clusters"], check=False).split():
                with self._progress.step("Creating the kind cluster"):
                    self._create(name)
            self.kubeconfig.touch(mode=0o600)
            self.kubeconfig.write_text(run([self._program(), "get", "kubeconfig", "--name", name]))
            with KubeApi(self.kubeconfig) as api:
                path = f"/apis/node.k8s.io/v1/runtimeclasses/{RUNTIME_CLASS}"
                # The image of Drakkar is a whole one here: the handler is kind's ordinary one.
                api.apply(path, {**manifests.runtime_class(), "handler": "runc"})
            ClusterState(
                name=name,
                provider="kind",
                owner=owner(),
                boot=boot_id(),
                topology=default_topology(_WORKERS),
                # Addresses are Docker's business; the number is out of the upstream range.
                index=-1,
            ).save(self._paths)

    def down(self) -> None:
        with state.locked(self._paths.lock):
            if docker_problem() is None:
                run([self._program(), "delete", "cluster", "--name", self._paths.name])
            shutil.rmtree(self._paths.root, ignore_errors=True)
        self._paths.lock.unlink(missing_ok=True)

    def status(self) -> Status:
        with KubeApi(self.kubeconfig) as api:
            if not api.ready():
                return Status("kind", "not answering", [])
            return Status("kind", "ready", nodes_from(api, (ZONE_LABEL, RACK_LABEL)))

    def load_image(self, archive: Path) -> list[str]:
        self._require()
        run([self._program(), "load", "image-archive", archive, "--name", self._paths.name])
        return []

    def _program(self) -> str:
        """kind: that on PATH, else one that is built."""
        return shutil.which("kind") or str(ensure_programs(self._progress, ["kind"]).kind)

    def _require(self) -> None:
        problem = docker_problem()
        if problem:
            raise ClusterError(problem)

    def _create(self, name: str) -> None:
        root = checkout()
        config = (root or Path()) / "kind-config.yaml"
        if root is None or not config.is_file():
            raise ClusterError("kind-config.yaml is missing: run this from Drakkar's source tree.")
        command = [self._program(), "create", "cluster", "--name", name, "--config", str(config)]
        if image := os.environ.get(IMAGE_VARIABLE):
            command += ["--image", image]
        command += ["--kubeconfig", str(self.kubeconfig), "--wait", "120s"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ClusterError(creation_problem(done.stderr or done.stdout))
