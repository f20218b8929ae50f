"""The nodes of a cluster: starting them, waiting for them, and harming them on purpose."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from datetime import datetime

from drakkar.local import host, network
from drakkar.local.build import Programs
from drakkar.local.components import ControlPlaneFiles
from drakkar.local.errors import ClusterError
from drakkar.local.kubeapi import KubeApi, Object, node_is_ready
from drakkar.local.network import AddressPlan
from drakkar.local.node import NodeContext, NodeMachine
from drakkar.local.paths import ClusterPaths
from drakkar.local.process import ProcessTable, wait_until
from drakkar.local.progress import Progress
from drakkar.local.state import ClusterState, Fault
from drakkar.local.topology import NodeSpec

_READY_SECONDS = 240
_LOST_TAINTS = {"node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"}


class Fleet:
    """All nodes of one cluster. Faults are written to the cluster's record."""

    def __init__(
        self,
        paths: ClusterPaths,
        record: ClusterState,
        processes: ProcessTable,
        programs: Programs,
        progress: Progress,
    ) -> None:
        self._paths = paths
        self._record = record
        self._processes = processes
        self._progress = progress
        self._plan = AddressPlan(record.index)
        self._admin = ControlPlaneFiles(paths.root).client("admin")
        self._context = NodeContext(
            cluster=record.name,
            plan=self._plan,
            files=ControlPlaneFiles(paths.root),
            processes=processes,
            programs=programs,
            facts=host.host_facts(),
            images=paths.images,
        )

    def machines(self) -> list[NodeMachine]:
        return [self._machine(spec) for spec in self._record.topology.nodes]

    def machine(self, name: str) -> NodeMachine:
        """A node by its name."""
        for spec in self._record.topology.nodes:
            if spec.name == name:
                return self._machine(spec)
        names = ", ".join(self._record.topology.names)
        raise ClusterError(f"Cluster {self._record.name} has no node '{name}'; it has {names}.")

    def _machine(self, spec: NodeSpec) -> NodeMachine:
        number = self._record.number(spec.name)
        return NodeMachine(
            spec, number=number, folder=self._paths.node(spec.name), context=self._context
        )

    def ensure(self, machine: NodeMachine, api_ready: Callable[[], None]) -> None:
        """Start a node unless it runs, and wait until it is ready.

        `api_ready` returns once the API server answers; much of a start comes before that.
        """
        if machine.running():
            api_ready()
            machine.set_link(up=True)
        else:
            with self._progress.step(f"Starting {machine.spec.name}"):
                # Remains of its last life go first.
                machine.stop()
                since = int(time.time())
                machine.start(before_kubelet=api_ready)
                self._wait_until_ready(machine, since)
        self._offer_resources(machine.spec)

    def _wait_until_ready(self, machine: NodeMachine, since: int) -> None:
        """Wait until the node is ready and has said so since that moment (seconds)."""
        name = machine.spec.name
        kubelet = machine.process("kubelet")

        def ready() -> bool:
            if self._processes.pid(kubelet) is None:
                raise ClusterError(f"{kubelet} has ended: {self._processes.last_words(kubelet)}")
            node = api.find(f"/api/v1/nodes/{name}")
            return node is not None and takes_pods(node) and reported_at(node) >= since

        with KubeApi(self._admin) as api:
            wait_until(ready, seconds=_READY_SECONDS, what=f"The start of {name}", poll=0.2)

    def _offer_resources(self, spec: NodeSpec) -> None:
        """Put the extended resources into the node's status; a kubelet's start clears them."""
        if spec.resources:
            offered = {name: str(count) for name, count in spec.resources.items()}
            with KubeApi(self._admin) as api:
                api.patch(
                    f"/api/v1/nodes/{spec.name}/status",
                    {"status": {"capacity": offered, "allocatable": offered}},
                )

    def remove_all_but(self, keep: set[str]) -> None:
        """Take nodes out of the cluster for good."""
        for machine in self.machines():
            name = machine.spec.name
            if name in keep:
                continue
            with self._progress.step(f"Removing {name}"):
                machine.stop()
                shutil.rmtree(self._paths.node(name), ignore_errors=True)
                self._record.numbers.pop(name, None)
                self._record.faults.pop(name, None)
                with KubeApi(self._admin) as api:
                    if api.ready():
                        api.delete(f"/api/v1/nodes/{name}")

    def stop(self, name: str) -> None:
        """Cut a node's power."""
        self.machine(name).stop()
        self._record.faults[name] = Fault.by_this_process("stopped")
        self._faults_changed()

    def start(self, name: str) -> None:
        """Switch a node on and wait until it is ready."""
        self.ensure(self.machine(name), lambda: None)
        self._record.faults.pop(name, None)
        self._faults_changed()

    def set_link(self, name: str, *, up: bool) -> None:
        """Pull a node's network cable out or put it in again; its processes go on."""
        machine = self.machine(name)
        fault = self._record.faults.get(name)
        if fault and fault.kind == "stopped":
            raise ClusterError(f"Node {name} is switched off; its cable makes no difference.")
        machine.set_link(up=up)
        if up:
            self._record.faults.pop(name, None)
        else:
            self._record.faults[name] = Fault.by_this_process("cut")
        self._faults_changed()

    def clear_faults(self) -> None:
        """Note that every node runs and is connected."""
        self._record.faults = {}
        self._faults_changed()

    def _faults_changed(self) -> None:
        """Save, and lead the host's way to ClusterIPs through a node that can be reached."""
        self._record.save(self._paths)
        for spec in self._record.topology.nodes:
            if spec.name not in self._record.faults:
                network.route_services(self._plan, self._record.number(spec.name))
                return


def takes_pods(node: Object) -> bool:
    """Whether a node is ready and the controllers have taken their taints for lost nodes off."""
    taints = {taint["key"] for taint in node["spec"].get("taints") or []}
    return node_is_ready(node) and not taints & _LOST_TAINTS


def reported_at(node: Object) -> int:
    """When a kubelet last reported on its node's readiness, in seconds since 1970."""
    for condition in node.get("status", {}).get("conditions") or []:
        if condition["type"] == "Ready" and condition.get("lastHeartbeatTime"):
            return int(datetime.fromisoformat(condition["lastHeartbeatTime"]).timestamp())
    return 0
