"""Running the control plane: what starts in which order, and when it is ready."""

from __future__ import annotations

import sys
from pathlib import Path

import httpx
import yaml

from drakkar.local import components, images, kubeconfig, manifests, runtime
from drakkar.local.build import Programs
from drakkar.local.components import ControlPlaneFiles
from drakkar.local.errors import ClusterError
from drakkar.local.kubeapi import KubeApi
from drakkar.local.network import AddressPlan
from drakkar.local.paths import ClusterPaths
from drakkar.local.process import ProcessTable, wait_until
from drakkar.local.state import ClusterState

STORAGE = "storage"
PROCESSES = (
    components.ETCD,
    components.APISERVER,
    components.CONTROLLERS,
    components.SCHEDULER,
    components.DNS,
    STORAGE,
)

# Ample: a machine may be busy with much else.
_API_SECONDS = 180
_DNS_SECONDS = 90


class ControlPlane:
    """The processes of one cluster that run on the host."""

    def __init__(
        self,
        paths: ClusterPaths,
        record: ClusterState,
        processes: ProcessTable,
        programs: Programs,
    ) -> None:
        self._paths = paths
        self._record = record
        self._processes = processes
        self._programs = programs
        self._plan = AddressPlan(record.index)
        self._files = ControlPlaneFiles(paths.root)

    def prepare(self) -> None:
        """Make certificates, kubeconfigs and the images that every node gets."""
        context = kubeconfig.context_name(self._record.name)
        components.ensure_credentials(self._files, self._plan, context)
        config = yaml.safe_load(self._files.client("admin").read_text())
        kubeconfig.write(self._paths.kubeconfig, config)
        self._paths.images.mkdir(parents=True, exist_ok=True)
        archives = {
            "pause.tar": images.pause_image(self._programs.pause.read_bytes()),
            "drakkar.tar": images.drakkar_image(runtime.environment_in_pods()),
        }
        for name, content in archives.items():
            (self._paths.images / name).write_bytes(content)

    def start_store(self) -> None:
        """Start etcd and the API server; `wait_for_api` waits for them."""
        etcd = components.etcd_command(self._programs.etcd, self._plan, self._paths.root / "etcd")
        self.start(components.ETCD, etcd)
        kube = self._programs.kube
        command = components.apiserver_command(kube, self._files, self._plan)
        self.start(components.APISERVER, command)

    def start_rest(self) -> None:
        """Make the objects every cluster has, and start what works on objects."""
        with KubeApi(self._files.client("admin")) as api:
            for path, obj in manifests.initial_objects():
                api.apply(path, obj)
            for spec in self._record.topology.nodes:
                node = manifests.node_object(spec)
                if not api.create("/api/v1/nodes", node):
                    labels = {"metadata": {"labels": node["metadata"]["labels"]}}
                    api.patch(f"/api/v1/nodes/{spec.name}", labels)
        self.start_controllers()
        config = self._write("scheduler.yaml", yaml.safe_dump(self._scheduler_config()))
        kube = self._programs.kube
        command = components.scheduler_command(kube, self._files, self._plan, config)
        self.start(components.SCHEDULER, command)
        servers = components.resolvers(_read("/etc/resolv.conf"))
        corefile = components.corefile(self._files, self._plan, servers)
        config = self._write("Corefile", corefile)
        self.start(components.DNS, components.dns_command(self._programs.coredns, config))
        self._processes.start(
            STORAGE,
            [
                sys.executable,
                "-m",
                "drakkar.local.storage",
                f"--kubeconfig={self._files.client('storage')}",
                f"--folder={self._paths.volumes}",
            ],
        )

    def start_controllers(self) -> None:
        """Start the controller manager with the record's grace for silent nodes."""
        command = components.controllers_command(
            self._programs.kube,
            self._files,
            self._plan,
            grace_seconds=self._record.grace_seconds,
        )
        self.start(components.CONTROLLERS, command)

    def restart_controllers(self) -> None:
        self._processes.stop(components.CONTROLLERS)
        self.start_controllers()

    def start(self, name: str, command: list[str]) -> None:
        """Start a process with nothing of the shell that this one happens to run in."""
        env = {"HOME": str(Path.home()), "LANG": "C.UTF-8"}
        self._processes.start(name, command, env=env)

    def stop_api(self) -> None:
        # Left alone it would wait for its watchers to go, which is of no use here.
        self._processes.stop(components.APISERVER, grace_seconds=1)

    def wait_for_api(self) -> None:
        """Wait until the API server answers, or has died."""
        name = components.APISERVER

        def answers() -> bool:
            if self._processes.pid(name) is None:
                raise ClusterError(f"{name} has ended: {self._processes.last_words(name)}")
            return api.ready()

        with KubeApi(self._files.client("admin")) as api:
            wait_until(answers, seconds=_API_SECONDS, what=f"The start of {name}", poll=0.1)

    def wait_for_dns(self) -> None:
        """Wait until CoreDNS has read the cluster's services and answers."""
        url = f"http://{self._plan.host}:{components.DNS_READY_PORT}/ready"

        def answers() -> bool:
            try:
                return httpx.get(url, timeout=1, trust_env=False).status_code == 200
            except httpx.HTTPError:
                return False

        wait_until(answers, seconds=_DNS_SECONDS, what="The start of DNS", poll=0.1)

    def _scheduler_config(self) -> dict[str, object]:
        return components.scheduler_config(self._files)

    def _write(self, name: str, text: str) -> Path:
        path = self._paths.root / name
        path.write_text(text)
        return path


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
