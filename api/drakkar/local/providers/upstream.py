"""Upstream Kubernetes as processes of this machine, without Docker and without a registry."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from ipaddress import IPv4Network
from pathlib import Path

import yaml

from drakkar.local import (
    build,
    cgroups,
    controlplane,
    fake,
    host,
    images,
    kubeconfig,
    manifests,
    network,
    packages,
    runtime,
    state,
)
from drakkar.local.controlplane import ControlPlaneFiles
from drakkar.local.errors import ClusterError
from drakkar.local.kubeapi import KubeApi, Object, node_is_ready
from drakkar.local.network import AddressPlan
from drakkar.local.node import NodeContext, NodeMachine
from drakkar.local.paths import ClusterPaths, owner, state_root
from drakkar.local.process import ProcessTable, boot_id, wait_until
from drakkar.local.progress import Progress
from drakkar.local.providers.base import NodeStatus, Request, Status, nodes_from
from drakkar.local.state import ClusterState
from drakkar.local.topology import RACK_LABEL, ZONE_LABEL, NodeSpec, default_topology

DEFAULT_NODES = 4

STORAGE = "storage"
_API_SECONDS = 90
_NODE_SECONDS = 120


class Upstream:
    """The provider `upstream`: see the package's documentation for how it is built."""

    def __init__(self, paths: ClusterPaths, progress: Progress) -> None:
        self._paths = paths
        self._progress = progress
        self._files = ControlPlaneFiles(paths.root)
        self.processes = ProcessTable(paths.run, paths.logs)

    @property
    def kubeconfig(self) -> Path:
        return self._paths.kubeconfig

    # Up and down

    def up(self, request: Request) -> None:
        if os.geteuid() != 0:
            raise ClusterError("A local cluster needs root: run the command by sudo.")
        with state.locked(self._paths.lock):
            record = state.load(self._paths)
            reason = _obsolete(record) if record else None
            if reason:
                self._progress.note(f"Making cluster {self._paths.name} anew: {reason}.")
                record = None
            if record is None:
                # Remains of a cluster without a usable record go first.
                self._remove()
            try:
                self._bring_up(record or self._new_state(request), request)
            except ClusterError as error:
                if record is None:
                    raise
                self._progress.note(f"Making cluster {self._paths.name} anew: {error}")
                self._remove()
                self._bring_up(self._new_state(request), request)

    def down(self) -> None:
        with state.locked(self._paths.lock):
            self._remove()
        self._paths.lock.unlink(missing_ok=True)

    def _new_state(self, request: Request) -> ClusterState:
        with state.locked(state_root() / ".index.lock"):
            taken = [other.index for other in state.all_states()]
            record = ClusterState(
                name=self._paths.name,
                provider="upstream",
                index=network.free_index(taken, self._host_routes()),
                owner=owner(),
                boot=boot_id(),
                topology=request.topology or default_topology(DEFAULT_NODES),
            )
            record.save(self._paths)
        return record

    def _host_routes(self) -> list[IPv4Network]:
        packages.ensure_packages(self._progress)
        return network.host_routes()

    def _bring_up(self, record: ClusterState, request: Request) -> None:
        packages.ensure_packages(self._progress)
        programs = build.ensure_programs(self._progress)
        if request.topology:
            self._remove_nodes(record, set(request.topology.names))
            record.topology = request.topology
        for spec in record.topology.nodes:
            record.number(spec.name)
        record.programs = programs.folder
        record.save(self._paths)

        plan = AddressPlan(record.index)
        host.prepare(state_root() / "host.json")
        network.create_bridge(plan, record.name)
        controlplane.ensure_credentials(self._files, plan, kubeconfig.context_name(record.name))
        self._write_kubeconfig()
        self._write_images(programs)
        self._start_store(record)
        machines = [self.machine(record, spec) for spec in record.topology.nodes]
        # Nodes get on with what needs no API server while that starts.
        api_ready: Future[None] = Future()
        with ThreadPoolExecutor(len(machines) + 1) as pool:
            starts = [
                pool.submit(self._start_node, machine, api_ready.result) for machine in machines
            ]
            try:
                self._start_control_plane(record)
            except BaseException as error:
                api_ready.set_exception(error)
                raise
            api_ready.set_result(None)
            for start in starts:
                start.result()
        record.stopped, record.cut = [], []
        for machine in machines:
            machine.set_link(up=True)
        network.route_services(plan, machines[0].number)
        record.save(self._paths)
        with self._progress.step("Waiting for DNS"):
            self._wait_for_dns(plan)
        wanted = record.fake_nodes if request.fake_nodes is None else request.fake_nodes
        if wanted or record.fake_nodes:
            self.set_fake_nodes(record, wanted)
        kubeconfig.publish(yaml.safe_load(self.kubeconfig.read_text()))

    def _remove(self) -> None:
        """Take down whatever there is of this cluster, recorded or not."""
        record = state.load(self._paths)
        found = self.processes.records()
        if record or found or self._paths.root.exists():
            with self._progress.step(f"Taking cluster {self._paths.name} down"):
                # A node's first process takes all the others with it; order does not matter.
                with ThreadPoolExecutor(8) as pool:
                    for _ in pool.map(
                        lambda process: self.processes.stop(process.name, grace_seconds=0), found
                    ):
                        pass
                group = cgroups.cgroup_path(self._paths.name)
                cgroups.kill(group)
                cgroups.remove(group)
                if shutil.which("ip", path=packages.admin_path()):
                    for plan in network.bridges_of(network.host_links(), self._paths.name):
                        for number in range(1, 245) if record is None else record.numbers.values():
                            network.disconnect_node(plan, number)
                        network.remove_bridge(plan)
                shutil.rmtree(self._paths.root, ignore_errors=True)
        kubeconfig.withdraw(kubeconfig.context_name(self._paths.name))
        if not state.all_states():
            host.restore(state_root() / "host.json")

    def _remove_nodes(self, record: ClusterState, keep: set[str]) -> None:
        for spec in record.topology.nodes:
            if spec.name not in keep:
                self.machine(record, spec).stop()
                shutil.rmtree(self._paths.node(spec.name), ignore_errors=True)
                record.numbers.pop(spec.name, None)
                with KubeApi(self._files.client("admin")) as api:
                    if api.ready():
                        api.delete(f"/api/v1/nodes/{spec.name}")

    # The control plane

    def _write_kubeconfig(self) -> None:
        config = yaml.safe_load(self._files.client("admin").read_text())
        kubeconfig.write(self.kubeconfig, config)

    def _write_images(self, programs: build.Programs) -> None:
        folder = self._paths.images
        folder.mkdir(parents=True, exist_ok=True)
        archives = {
            "pause.tar": images.pause_image(programs.pause.read_bytes()),
            "drakkar.tar": images.drakkar_image(runtime.search_path()),
        }
        for name, content in archives.items():
            (folder / name).write_bytes(content)

    def _start_store(self, record: ClusterState) -> None:
        """Start what the API server keeps its objects in, and the API server."""
        plan, programs = AddressPlan(record.index), self._programs(record)
        etcd = controlplane.etcd_command(plan, self._paths.root / "etcd")
        self.processes.start(controlplane.ETCD, etcd, env=_environment())
        self.processes.start(
            controlplane.APISERVER,
            controlplane.apiserver_command(programs.kube, self._files, plan),
            env=_environment(),
        )

    def _start_control_plane(self, record: ClusterState) -> None:
        with self._progress.step("Starting the control plane"):
            self.wait_for_api()
            with KubeApi(self._files.client("admin")) as api:
                for path, obj in manifests.initial_objects():
                    api.apply(path, obj)
                for spec in record.topology.nodes:
                    self._declare_node(api, spec)
            self._start_controllers(record)
            plan, programs = AddressPlan(record.index), self._programs(record)
            scheduler = self._paths.root / "scheduler.yaml"
            scheduler.write_text(yaml.safe_dump(controlplane.scheduler_config(self._files)))
            self.processes.start(
                controlplane.SCHEDULER,
                controlplane.scheduler_command(programs.kube, self._files, plan, scheduler),
                env=_environment(),
            )
            servers = controlplane.resolvers(Path("/etc/resolv.conf").read_text())
            corefile = self._paths.root / "Corefile"
            corefile.write_text(controlplane.corefile(self._files, plan, servers))
            self.processes.start(
                controlplane.DNS,
                controlplane.dns_command(programs.coredns, corefile),
                env=_environment(),
            )
            self.processes.start(
                STORAGE,
                [
                    sys.executable,
                    "-m",
                    "drakkar.local.storage",
                    f"--kubeconfig={self._files.client('storage')}",
                    f"--folder={self._paths.volumes}",
                ],
            )

    def _start_controllers(self, record: ClusterState) -> None:
        command = controlplane.controllers_command(
            self._programs(record).kube,
            self._files,
            AddressPlan(record.index),
            grace_seconds=record.grace_seconds,
        )
        self.processes.start(controlplane.CONTROLLERS, command, env=_environment())

    def wait_for_api(self) -> None:
        """Wait until the API server answers, or has died."""
        name = controlplane.APISERVER

        def answers() -> bool:
            if self.processes.pid(name) is None:
                raise ClusterError(f"{name} has ended: {self.processes.last_words(name)}")
            return api.ready()

        with KubeApi(self._files.client("admin")) as api:
            wait_until(answers, seconds=_API_SECONDS, what=f"The start of {name}", poll=0.1)

    def _wait_for_dns(self, plan: AddressPlan) -> None:
        import httpx

        def answers() -> bool:
            try:
                url = f"http://{plan.host}:8181/ready"
                return httpx.get(url, timeout=1, trust_env=False).status_code == 200
            except httpx.HTTPError:
                return False

        wait_until(answers, seconds=30, what="The start of DNS", poll=0.1)

    def set_apiserver(self, *, running: bool) -> None:
        """Stop the API server, or start it and wait until it answers."""
        record = self.record()
        if not running:
            self.processes.stop(controlplane.APISERVER)
            return
        self._start_store(record)
        self.wait_for_api()

    # Nodes

    def machine(self, record: ClusterState, spec: NodeSpec) -> NodeMachine:
        """The node of that specification."""
        context = NodeContext(
            cluster=record.name,
            plan=AddressPlan(record.index),
            files=self._files,
            processes=self.processes,
            programs=self._programs(record),
            facts=host.host_facts(),
            images=self._paths.images,
        )
        folder = self._paths.node(spec.name)
        return NodeMachine(spec, number=record.number(spec.name), folder=folder, context=context)

    def _declare_node(self, api: KubeApi, spec: NodeSpec) -> None:
        """Make the Node with its labels and taints, or bring those up to date."""
        node = manifests.node_object(spec)
        path = f"/api/v1/nodes/{spec.name}"
        if not api.create("/api/v1/nodes", node):
            api.patch(path, {"metadata": {"labels": node["metadata"]["labels"]}})

    def _start_node(self, machine: NodeMachine, api_ready: Callable[[], None]) -> None:
        if not machine.running():
            with self._progress.step(f"Starting {machine.spec.name}"):
                machine.stop()
                since = int(time.time())
                machine.start(before_kubelet=api_ready)
                self._wait_for_node(machine, since)
        else:
            api_ready()
        self._offer_resources(machine.spec)

    def _wait_for_node(self, machine: NodeMachine, since: int) -> None:
        """Wait until the node is ready and has said so since that moment (seconds)."""
        name = machine.spec.name
        kubelet = machine.process("kubelet")

        def ready() -> bool:
            if self.processes.pid(kubelet) is None:
                raise ClusterError(f"{kubelet} has ended: {self.processes.last_words(kubelet)}")
            node = api.find(f"/api/v1/nodes/{name}")
            return node is not None and node_is_ready(node) and _reported_at(node) >= since

        with KubeApi(self._files.client("admin")) as api:
            wait_until(ready, seconds=_NODE_SECONDS, what=f"The start of {name}", poll=0.2)

    def _offer_resources(self, spec: NodeSpec) -> None:
        """Put the extended resources into the node's status; a kubelet's start clears them."""
        if spec.resources:
            capacity = {name: str(count) for name, count in spec.resources.items()}
            with KubeApi(self._files.client("admin")) as api:
                api.patch(
                    f"/api/v1/nodes/{spec.name}/status",
                    {"status": {"capacity": capacity, "allocatable": capacity}},
                )

    def node(self, name: str) -> tuple[ClusterState, NodeMachine]:
        """A node by its name, with the cluster's record."""
        record = self.record()
        for spec in record.topology.nodes:
            if spec.name == name:
                return record, self.machine(record, spec)
        names = ", ".join(record.topology.names)
        raise ClusterError(f"Cluster {record.name} has no node '{name}'; it has {names}.")

    def stop_node(self, name: str) -> None:
        """Cut a node's power."""
        with state.locked(self._paths.lock):
            record, machine = self.node(name)
            machine.stop()
            _note(record.stopped, name, present=True)
            _note(record.cut, name, present=False)
            record.save(self._paths)
            self._reroute_services(record)

    def start_node(self, name: str) -> None:
        """Switch a node on and wait until it is ready."""
        with state.locked(self._paths.lock):
            record, machine = self.node(name)
            self._start_node(machine, lambda: None)
            machine.set_link(up=True)
            _note(record.stopped, name, present=False)
            _note(record.cut, name, present=False)
            record.save(self._paths)
            self._reroute_services(record)

    def set_node_link(self, name: str, *, up: bool) -> None:
        """Pull a node's network cable out or put it in again; its processes go on."""
        with state.locked(self._paths.lock):
            record, machine = self.node(name)
            if name in record.stopped:
                raise ClusterError(f"Node {name} is switched off; its cable makes no difference.")
            machine.set_link(up=up)
            _note(record.cut, name, present=not up)
            record.save(self._paths)
            self._reroute_services(record)

    def _reroute_services(self, record: ClusterState) -> None:
        """The host's way to ClusterIPs leads through some node that can be reached."""
        for spec in record.topology.nodes:
            if spec.name not in record.stopped and spec.name not in record.cut:
                network.route_services(AddressPlan(record.index), record.number(spec.name))
                return

    # Fake nodes

    def set_fake_nodes(self, record: ClusterState, count: int, *, gpus: int = 8) -> None:
        """Have exactly so many fake nodes."""
        with self._progress.step(f"Making fake nodes: {count}"):
            programs = build.ensure_programs(self._progress, ["kwok"])
            grace = fake.grace_seconds(count)
            if grace != record.grace_seconds:
                record.grace_seconds = grace
                self.processes.stop(controlplane.CONTROLLERS)
                self._start_controllers(record)
            if count != record.fake_nodes or count == 0:
                self.processes.stop(fake.PROCESS)
            record.fake_nodes = count
            record.save(self._paths)
            if count:
                command = fake.kwok_command(
                    programs.kwok,
                    kubeconfig=self._files.client("kwok"),
                    stages=programs.kwok_stages,
                    plan=AddressPlan(record.index),
                    nodes=count,
                )
                self.processes.start(fake.PROCESS, command, env=_environment())
            with KubeApi(self._files.client("admin"), timeout_seconds=60) as api:
                names = {fake.node_name(number) for number in range(count)}
                there = fake.existing(api)
                fake.delete(api, sorted(there - names))
                missing = (n for n in range(count) if fake.node_name(n) not in there)
                fake.create(api, (fake.fake_node(n, gpus=gpus) for n in missing))

    # Looking

    def record(self) -> ClusterState:
        """The cluster's record; it is an error if there is none."""
        record = state.load(self._paths)
        if record is None:
            name = self._paths.name
            raise ClusterError(
                f"There is no cluster {name}: 'drakkar cluster up --name {name}' makes one."
            )
        return record

    def status(self) -> Status:
        record = self.record()
        processes = {name: self.processes.pid(name) for name in _expected(record)}
        with KubeApi(self.kubeconfig) as api:
            if not api.ready():
                return Status("upstream", "not answering", [], processes)
            nodes = nodes_from(api, (ZONE_LABEL, RACK_LABEL))
        return Status("upstream", "ready", [_with_fault(n, record) for n in nodes], processes)

    def load_image(self, archive: Path) -> list[str]:
        record = self.record()
        if not archive.is_file():
            raise ClusterError(f"There is no image archive {archive}.")
        kept = self._paths.images / f"loaded-{archive.stem}.tar"
        shutil.copyfile(archive, kept)
        passed_over = []
        for spec in record.topology.nodes:
            machine = self.machine(record, spec)
            if machine.running():
                machine.load_image(kept)
            else:
                passed_over.append(spec.name)
        return passed_over

    def _programs(self, record: ClusterState) -> build.Programs:
        if record.programs is None:
            raise ClusterError(f"Cluster {record.name} was never completely up.")
        return build.Programs(record.programs)


def _obsolete(record: ClusterState) -> str | None:
    """Why a cluster cannot be gone on with, if so."""
    if record.boot != boot_id():
        return "the machine was started anew"
    if record.provider != "upstream":
        return f"it was made by provider {record.provider}"
    if record.owner != owner():
        return f"it belongs to another installation ({record.owner.get('environment')})"
    return None


def _expected(record: ClusterState) -> Iterable[str]:
    """The names of the processes that should be running."""
    yield controlplane.ETCD
    yield controlplane.APISERVER
    yield controlplane.CONTROLLERS
    yield controlplane.SCHEDULER
    yield controlplane.DNS
    yield STORAGE
    if record.fake_nodes:
        yield fake.PROCESS
    for spec in record.topology.nodes:
        if spec.name not in record.stopped:
            for role in ("init", "containerd", "kubelet", "kube-proxy"):
                yield f"{spec.name}.{role}"


def _with_fault(node: NodeStatus, record: ClusterState) -> NodeStatus:
    """The node's state with what was done to it on purpose."""
    for names, word in ((record.stopped, "stopped"), (record.cut, "cut off")):
        if node.name in names:
            return NodeStatus(node.name, f"{node.state}, {word}", node.version, node.labels)
    return node


def _reported_at(node: Object) -> int:
    """When a kubelet last reported its node ready, in seconds since 1970."""
    import datetime

    for condition in node.get("status", {}).get("conditions") or []:
        if condition["type"] == "Ready":
            heartbeat = condition.get("lastHeartbeatTime") or "1970-01-01T00:00:00Z"
            return int(datetime.datetime.fromisoformat(heartbeat).timestamp())
    return 0


def _note(names: list[str], name: str, *, present: bool) -> None:
    if name in names:
        names.remove(name)
    if present:
        names.append(name)


def _environment() -> dict[str, str]:
    """A daemon's environment: nothing of the shell it happens to be started from."""
    return {"PATH": packages.admin_path(), "HOME": str(Path.home()), "LANG": "C.UTF-8"}
