"""Upstream Kubernetes as processes of this machine, without Docker and without a registry."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import yaml

from drakkar.local import build, cgroups, fake, host, kubeconfig, network, packages, runtime, state
from drakkar.local.components import ControlPlaneFiles
from drakkar.local.controlplane import PROCESSES, ControlPlane
from drakkar.local.errors import ClusterError
from drakkar.local.fleet import Fleet
from drakkar.local.kubeapi import KubeApi
from drakkar.local.network import AddressPlan
from drakkar.local.node import ROLES
from drakkar.local.paths import ClusterPaths, owner, state_root
from drakkar.local.process import ProcessTable, admin_path, boot_id
from drakkar.local.progress import Progress
from drakkar.local.providers.base import NodeStatus, Request, Status, nodes_from
from drakkar.local.state import ClusterState
from drakkar.local.topology import RACK_LABEL, ZONE_LABEL, default_topology

DEFAULT_NODES = 4


class Upstream:
    """The provider `upstream`. Everything it does can be repeated, and heals what is amiss."""

    def __init__(self, paths: ClusterPaths, progress: Progress) -> None:
        self._paths = paths
        self._progress = progress
        self._host_record = state_root() / "host.json"
        self.processes = ProcessTable(paths.run, paths.logs)

    @property
    def kubeconfig(self) -> Path:
        return self._paths.kubeconfig

    def up(self, request: Request) -> None:
        if os.geteuid() != 0:
            raise ClusterError("A local cluster needs root: run the command by sudo.")
        # Whatever could stop a start is found out before anything that runs is touched.
        packages.ensure_packages(self._progress)
        programs = build.ensure_programs(self._progress)
        runtime.host_mounts()
        with state.locked(self._paths.lock):
            record = state.load(self._paths)
            reason = obsolete(record) if record else None
            if record and reason is None:
                try:
                    self._bring_up(record, request, programs)
                    return
                except ClusterError as error:
                    reason = str(error)
            if reason:
                self._progress.note(f"Making cluster {self._paths.name} anew: {reason}")
            # Remains of a cluster without a usable record go, too.
            self._remove()
            self._bring_up(self._new_state(request, before=record), request, programs)

    def down(self) -> None:
        with state.locked(self._paths.lock):
            self._remove()
        self._paths.lock.unlink(missing_ok=True)

    def _new_state(self, request: Request, before: ClusterState | None) -> ClusterState:
        """A record for a new cluster, with the nodes asked for, else those there were before."""
        default = before.topology if before else default_topology(DEFAULT_NODES)
        with state.locked(state_root() / ".index.lock"):
            taken = [other.index for other in state.all_states()]
            record = ClusterState(
                name=self._paths.name,
                provider="upstream",
                index=network.free_index(taken, network.host_routes()),
                owner=owner(),
                boot=boot_id(),
                topology=request.topology or default,
            )
            record.save(self._paths)
        return record

    def _bring_up(self, record: ClusterState, request: Request, programs: build.Programs) -> None:
        record.programs = programs.folder
        if request.topology:
            self.fleet(record).remove_all_but(set(request.topology.names))
            record.topology = request.topology
        for spec in record.topology.nodes:
            record.number(spec.name)
        record.save(self._paths)
        host.prepare(self._host_record)
        network.create_bridge(AddressPlan(record.index), record.name)
        plane, fleet = self.control_plane(record), self.fleet(record)
        plane.prepare()
        plane.start_store()
        self._start_together(plane, fleet)
        fleet.clear_faults()
        with self._progress.step("Waiting for DNS"):
            plane.wait_for_dns()
        wanted = record.fake_nodes if request.fake_nodes is None else request.fake_nodes
        if wanted or record.fake_nodes:
            self.set_fake_nodes(wanted)
        kubeconfig.publish(yaml.safe_load(self.kubeconfig.read_text()))

    def _start_together(self, plane: ControlPlane, fleet: Fleet) -> None:
        """Start nodes at once; they get on with what needs no API server while that starts."""
        machines = fleet.machines()
        api_ready: Future[None] = Future()
        with ThreadPoolExecutor(len(machines)) as pool:
            starts = [pool.submit(fleet.ensure, node, api_ready.result) for node in machines]
            try:
                with self._progress.step("Starting the control plane"):
                    plane.wait_for_api()
                    plane.start_rest()
            except BaseException as error:
                api_ready.set_exception(error)
                raise
            api_ready.set_result(None)
            for start in starts:
                start.result()

    def _remove(self) -> None:
        """Take down whatever there is of this cluster, recorded or not."""
        if self._paths.root.exists():
            with self._progress.step(f"Taking cluster {self._paths.name} down"):
                self._remove_running()
                shutil.rmtree(self._paths.root, ignore_errors=True)
        else:
            self._remove_running()
        kubeconfig.withdraw(kubeconfig.context_name(self._paths.name))
        if not state.all_states():
            host.restore(self._host_record)

    def _remove_running(self) -> None:
        # A node's first process takes all the others with it, so that order does not matter.
        names = [process.name for process in self.processes.records()]
        with ThreadPoolExecutor(8) as pool:
            for _ in pool.map(lambda name: self.processes.stop(name, grace_seconds=0), names):
                pass
        group = cgroups.cgroup_path(self._paths.name)
        cgroups.kill(group)
        cgroups.remove(group)
        if shutil.which("ip", path=admin_path()):
            for plan in network.bridges_of(network.host_links(), self._paths.name):
                network.remove_bridge(plan)

    def control_plane(self, record: ClusterState) -> ControlPlane:
        return ControlPlane(self._paths, record, self.processes, _programs(record))

    def fleet(self, record: ClusterState) -> Fleet:
        programs = _programs(record)
        return Fleet(self._paths, record, self.processes, programs, self._progress)

    # Changes of a cluster that is up

    def stop_node(self, name: str) -> None:
        with state.locked(self._paths.lock):
            self.fleet(self.record()).stop(name)

    def start_node(self, name: str) -> None:
        with state.locked(self._paths.lock):
            self.fleet(self.record()).start(name)

    def set_node_link(self, name: str, *, up: bool) -> None:
        with state.locked(self._paths.lock):
            self.fleet(self.record()).set_link(name, up=up)

    def set_apiserver(self, *, running: bool) -> None:
        """Stop the API server, or start it and wait until it answers."""
        plane = self.control_plane(self.record())
        if running:
            plane.start_store()
            plane.wait_for_api()
        else:
            plane.stop_api()

    def set_fake_nodes(self, count: int, *, gpus: int = 8) -> None:
        """Have exactly so many fake nodes."""
        record = self.record()
        programs = build.ensure_programs(self._progress, ["kwok"])
        files = ControlPlaneFiles(self._paths.root)
        with self._progress.step(f"Making fake nodes: {count}"):
            changed = count != record.fake_nodes
            grace = fake.grace_seconds(count)
            slower = grace != record.grace_seconds
            record.fake_nodes, record.grace_seconds = count, grace
            record.save(self._paths)
            plane = self.control_plane(record)
            if slower:
                plane.restart_controllers()
            if changed:
                self.processes.stop(fake.PROCESS)
            if count:
                config = self._paths.root / "kwok.yaml"
                documents = [fake.kwok_config(), fake.finish_stage()]
                config.write_text(yaml.safe_dump_all(documents))
                command = fake.kwok_command(
                    programs.kwok,
                    kubeconfig=files.client("kwok"),
                    configs=[config, programs.kwok_stages],
                    plan=AddressPlan(record.index),
                    nodes=count,
                )
                plane.start(fake.PROCESS, command)
            with KubeApi(files.client("admin"), timeout_seconds=60) as api:
                fake.ensure(api, count, gpus=gpus)

    def load_image(self, archive: Path) -> list[str]:
        fleet = self.fleet(self.record())
        if not archive.is_file():
            raise ClusterError(f"There is no image archive {archive}.")
        # Kept, so that nodes which start later get it, too.
        kept = self._paths.images / f"loaded-{archive.stem}.tar"
        shutil.copyfile(archive, kept)
        passed_over = []
        for machine in fleet.machines():
            if machine.running():
                machine.load_image(kept)
            else:
                passed_over.append(machine.spec.name)
        return passed_over

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

    def healthy(self) -> bool:
        """Whether all that should run does, faults of tests under way aside."""
        record = state.load(self._paths)
        if record is None or obsolete(record):
            return False
        if not all(fault.still_wanted() for fault in record.faults.values()):
            return False
        if not all(self.processes.pid(name) for name in expected_processes(record)):
            return False
        with KubeApi(self.kubeconfig) as api:
            return api.ready()

    def status(self) -> Status:
        record = self.record()
        processes = {name: self.processes.pid(name) for name in expected_processes(record)}
        with KubeApi(self.kubeconfig) as api:
            if not api.ready():
                return Status("upstream", "not answering", [], processes)
            nodes = nodes_from(api, (ZONE_LABEL, RACK_LABEL))
        return Status("upstream", "ready", [_with_fault(n, record) for n in nodes], processes)


def obsolete(record: ClusterState) -> str | None:
    """Why a cluster cannot be gone on with, if so."""
    if record.boot != boot_id():
        return "the machine was started anew."
    if record.provider != "upstream":
        return f"it was made by provider {record.provider}."
    if record.owner != owner():
        return f"it belongs to another installation ({record.owner.get('environment')})."
    return None


def expected_processes(record: ClusterState) -> Iterator[str]:
    """The names of the processes that should be running."""
    yield from PROCESSES
    if record.fake_nodes:
        yield fake.PROCESS
    for spec in record.topology.nodes:
        fault = record.faults.get(spec.name)
        if not (fault and fault.kind == "stopped"):
            yield from (f"{spec.name}.{role}" for role in ROLES)


def _with_fault(node: NodeStatus, record: ClusterState) -> NodeStatus:
    """The node's state with what was done to it on purpose."""
    fault = record.faults.get(node.name)
    if fault is None:
        return node
    return NodeStatus(node.name, f"{node.state}, {fault.kind}", node.version, node.labels)


def _programs(record: ClusterState) -> build.Programs:
    if record.programs is None:
        raise ClusterError(
            f"Cluster {record.name} was never up: 'drakkar cluster up' tries it again."
        )
    return build.Programs(record.programs)
