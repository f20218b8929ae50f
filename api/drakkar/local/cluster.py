"""A local cluster as an object, for tests and programs.

::

    from drakkar.local import Cluster

    cluster = Cluster.load_or_up(nodes=4)
    client = kubernetes.config.new_client_from_config(str(cluster.kubeconfig))

    cluster.node("node-2").stop()       # power off: every process of the node dies at once
    cluster.node("node-2").start()      # returns when the node is ready again
    cluster.node("node-3").cut()        # the network cable out, processes go on
    cluster.node("node-3").mend()
    cluster.apiserver.restart()
    cluster.set_fake_nodes(1000)
    cluster.processes()                 # name -> process id
"""

from __future__ import annotations

from pathlib import Path

from drakkar.local import devices, state
from drakkar.local.build import ensure_programs
from drakkar.local.errors import ClusterError
from drakkar.local.kubeapi import KubeApi
from drakkar.local.node import NodeMachine
from drakkar.local.paths import ClusterPaths, default_name
from drakkar.local.progress import Progress, Silent
from drakkar.local.providers import Provider, Request, Status, provider_for
from drakkar.local.providers.upstream import Upstream
from drakkar.local.state import ProviderName
from drakkar.local.topology import Topology, default_topology


class Cluster:
    """A cluster by name, whether or not it is up."""

    def __init__(
        self,
        name: str | None = None,
        *,
        provider: ProviderName | None = None,
        progress: Progress | None = None,
    ) -> None:
        """`provider` is the one that made the cluster, or `upstream`, unless given."""
        self.name = name or default_name()
        self._progress = progress or Silent()
        self._paths = ClusterPaths.of(self.name)
        record = state.load(self._paths)
        self.provider_name: ProviderName = provider or (record.provider if record else "upstream")

    @classmethod
    def load_or_up(
        cls,
        name: str | None = None,
        *,
        nodes: int | None = None,
        topology: Topology | None = None,
        progress: Progress | None = None,
    ) -> Cluster:
        """The cluster, brought up or healed if need be, with at least so many nodes.

        A cluster that is up and has enough nodes is left as it is, nodes included that a test
        under way has stopped.
        """
        cluster = cls(name, progress=progress)
        record = state.load(cluster._paths)
        if topology is None and nodes is not None:
            there = len(record.topology.nodes) if record else 0
            topology = default_topology(nodes) if there < nodes else None
        provider = cluster.provider
        if topology or not (isinstance(provider, Upstream) and provider.healthy()):
            cluster.up(topology=topology)
        return cluster

    def up(self, *, topology: Topology | None = None, fake_nodes: int | None = None) -> None:
        """Bring the cluster up, heal it, or change its nodes; None keeps what there is."""
        self.provider.up(Request(topology=topology, fake_nodes=fake_nodes))

    def down(self) -> None:
        """Remove the cluster and everything that was made for it."""
        self.provider.down()

    def status(self) -> Status:
        """How the cluster, its nodes and its processes are."""
        return self.provider.status()

    @property
    def provider(self) -> Provider:
        return provider_for(self.provider_name, self._paths, self._progress)

    @property
    def kubeconfig(self) -> Path:
        """A kubeconfig with administrator's rights."""
        return self.provider.kubeconfig

    @property
    def folder(self) -> Path:
        """Where the cluster keeps its state and its logs."""
        return self._paths.root

    def api(self) -> KubeApi:
        """A small client of the API server, as administrator."""
        return KubeApi(self.kubeconfig)

    def load_image(self, archive: Path) -> list[str]:
        """Put an archive's images on every node; returns the nodes passed over (switched off)."""
        return self.provider.load_image(archive)

    def node(self, name: str) -> Node:
        """A node, to switch it off and on."""
        upstream = self._upstream()
        upstream.fleet(upstream.record()).machine(name)
        return Node(name, upstream)

    @property
    def apiserver(self) -> ApiServer:
        """The API server, to stop and start it."""
        return ApiServer(self._upstream())

    def set_fake_nodes(self, count: int, *, gpus: int = 8) -> None:
        """Have exactly so many fake nodes, with so many `nvidia.com/gpu` each."""
        self._upstream().set_fake_nodes(count, gpus=gpus)

    def program(self, name: str) -> Path:
        """The path of `kubectl` or `helm` in versions that fit; built if need be."""
        programs = ensure_programs(self._progress, ["helm" if name == "helm" else "kube"])
        return programs.folder / name

    def processes(self) -> dict[str, int]:
        """The ids of the cluster's living processes by name (`node-1.kubelet`, `etcd`)."""
        records = self._upstream().processes.records()
        return {record.name: record.pid for record in records if record.alive()}

    def _upstream(self) -> Upstream:
        provider = self.provider
        if not isinstance(provider, Upstream):
            raise ClusterError(f"This needs --provider upstream, not {self.provider_name}.")
        return provider


class Node:
    """One node, as something that can fail."""

    def __init__(self, name: str, provider: Upstream) -> None:
        self.name = name
        self._provider = provider

    def stop(self) -> None:
        """Cut its power: every process and container of it is gone at once."""
        self._provider.stop_node(self.name)

    def start(self) -> None:
        """Switch it on; returns when the node is ready."""
        self._provider.start_node(self.name)

    def cut(self) -> None:
        """Pull out its network cable; its processes and containers go on."""
        self._provider.set_node_link(self.name, up=False)

    def mend(self) -> None:
        """Put the network cable in again."""
        self._provider.set_node_link(self.name, up=True)

    def restart_kubelet(self) -> None:
        """Kill its kubelet and start it anew; its containers go on."""
        self._machine().restart_kubelet()

    def break_device(
        self, device: str, code: str, *, message: str = "", severity: str | None = None
    ) -> None:
        """Inject a fault into a simulated device, by its index or id."""
        devices.inject(
            self._machine().kubelet_folder, device, code, message=message, severity=severity
        )

    def repair_devices(self, device: str | None = None) -> int:
        """Take back the faults of a simulated device, or of all; how many there were."""
        return devices.clear(self._machine().kubelet_folder, device)

    def broken_devices(self) -> list[dict[str, str]]:
        """The faults that were injected."""
        return devices.read(self._machine().kubelet_folder)

    @property
    def cgroup(self) -> str:
        """Name of the control group that all of its pods are in."""
        return self._machine().cgroup

    def run(self, *argv: str) -> str:
        """Run a command on the node, as root in its namespaces, and return its output."""
        return self._machine().run(list(argv))

    @property
    def running(self) -> bool:
        """Whether all its daemons live."""
        return self._machine().running()

    def _machine(self) -> NodeMachine:
        return self._provider.fleet(self._provider.record()).machine(self.name)


class ApiServer:
    """The API server, as something that can fail."""

    def __init__(self, provider: Upstream) -> None:
        self._provider = provider

    def stop(self) -> None:
        self._provider.set_apiserver(running=False)

    def start(self) -> None:
        """Returns when it answers."""
        self._provider.set_apiserver(running=True)

    def restart(self) -> None:
        """Returns when it answers again."""
        self.stop()
        self.start()
