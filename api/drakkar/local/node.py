"""One node: a machine of its own as far as Linux namespaces make one.

A node has an own process, mount and network namespace. Their first process is the `pause`
program, which collects orphans; all else of the node (containerd, its shims, every container,
kubelet, kube-proxy) lives below it. Killing that one process is a loss of power: the kernel ends
all the others at once, and the node's mounts and its end of the network cable go with them.

Inside, `/run` is empty at start, and `/var/log` and `/var/lib/kubelet` are the node's own, so
that everything lies where it lies on a real node, device plugin sockets included.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from drakkar.local import cgroups, kubelet, network, runtime
from drakkar.local.build import Programs
from drakkar.local.components import ControlPlaneFiles, write_client
from drakkar.local.errors import ClusterError
from drakkar.local.host import KUBELET_FOLDER, HostFacts
from drakkar.local.kubeconfig import context_name
from drakkar.local.network import AddressPlan
from drakkar.local.pki import Identity
from drakkar.local.process import ProcessTable, run, wait_until
from drakkar.local.topology import NodeSpec

ROLES = ("init", "containerd", "kubelet", "kube-proxy")

# The kernel's lists of links and routes change one at a time anyway.
_NETWORK_LOCK = threading.Lock()


def fstab(own: Mapping[Path, Path]) -> str:
    """What is mounted on a node, as mount(8) reads it: an empty /run, and its own folders."""
    lines = ["tmpfs /run tmpfs mode=0755,nosuid,nodev 0 0"]
    for source, target in own.items():
        escaped = str(source).replace("\\", r"\134").replace(" ", r"\040")
        lines.append(f"{escaped} {target} none bind 0 0")
    return "\n".join([*lines, ""])


@dataclass(frozen=True, slots=True)
class NodeContext:
    """What all nodes of a cluster have in common."""

    cluster: str
    plan: AddressPlan
    files: ControlPlaneFiles
    processes: ProcessTable
    programs: Programs
    facts: HostFacts
    images: Path
    """A folder of image archives that every node gets."""


class NodeMachine:
    """Starts and stops the processes of one node."""

    def __init__(self, spec: NodeSpec, *, number: int, folder: Path, context: NodeContext) -> None:
        self.spec = spec
        self.number = number
        self._folder = folder
        self._context = context

    @property
    def kubelet_folder(self) -> Path:
        """The host's path of what is the kubelet's folder on the node."""
        return self._folder / "kubelet"

    @property
    def cgroup(self) -> str:
        return cgroups.cgroup_path(self._context.cluster, self.spec.name)

    def process(self, role: str) -> str:
        """The name of one of the node's processes: one of ROLES."""
        return f"{self.spec.name}.{role}"

    def running(self) -> bool:
        """Whether all its processes live."""
        return all(self._context.processes.pid(self.process(role)) for role in ROLES)

    def start(self, *, before_kubelet: Callable[[], None]) -> None:
        """Bring the node up as after switching a machine on.

        `before_kubelet` is called when containers could run, and returns once the API server
        answers: what comes before needs no API server and so need not wait for it.
        """
        self._write_files()
        cgroups.create(self.cgroup)
        init = self._start_init()
        with _NETWORK_LOCK:
            network.connect_node(self._context.plan, self.number, init)
        containerd = self._context.programs.containerd
        self._start("containerd", [containerd, "--config", self._folder / "containerd.toml"])
        self._wait_for_containerd()
        for archive in sorted(self._context.images.glob("*.tar")):
            self.load_image(archive)
        before_kubelet()
        self.start_kubelet()
        kube = self._context.programs.kube
        self._start(
            "kube-proxy", [kube, "kube-proxy", f"--config={self._folder / 'kube-proxy.yaml'}"]
        )

    def start_kubelet(self) -> None:
        """Start the kubelet, which must not run."""
        # It refuses to start without its group, which is empty until then: a release agent of the
        # machine may have removed it.
        cgroups.create(self.cgroup)
        kube = self._context.programs.kube
        self._start(
            "kubelet",
            [
                kube,
                "kubelet",
                f"--config={self._folder / 'kubelet.yaml'}",
                f"--kubeconfig={self._context.files.client(self.spec.name)}",
                f"--hostname-override={self.spec.name}",
                f"--node-ip={self._context.plan.node_address(self.number)}",
                f"--root-dir={KUBELET_FOLDER}",
                f"--cert-dir={self._folder / 'pki'}",
            ],
        )

    def restart_kubelet(self) -> None:
        """Kill the kubelet and start it anew; its containers go on."""
        self._context.processes.stop(self.process("kubelet"), grace_seconds=0)
        self.start_kubelet()

    def stop(self) -> None:
        """Switch the node off, without a warning to anybody. Its disk keeps what is on it."""
        processes = self._context.processes
        for role in ROLES:
            processes.stop(self.process(role), grace_seconds=0)
        with _NETWORK_LOCK:
            network.disconnect_node(self._context.plan, self.number)
        cgroups.kill(self.cgroup)
        cgroups.remove(self.cgroup)

    def set_link(self, *, up: bool) -> None:
        """Pull out the network cable, or put it in."""
        network.set_link(self._context.plan, self.number, up=up)

    def load_image(self, archive: Path) -> None:
        """Put the images of an archive on the node."""
        self.run([self._context.programs.ctr, "--namespace=k8s.io", "images", "import", archive])

    def run(self, argv: list[str | Path], *, check: bool = True) -> str:
        """Run a command on the node and return its output."""
        return run([*self._enter(), *argv], check=check)

    def _enter(self) -> list[str | Path]:
        pid = self._context.processes.pid(self.process("init"))
        if pid is None:
            raise ClusterError(
                f"Node {self.spec.name} is switched off:"
                f" 'drakkar cluster node start {self.spec.name}' starts it."
            )
        return ["nsenter", f"--target={pid}", "--mount", "--net", "--pid"]

    def _start(self, role: str, argv: list[str | Path]) -> None:
        env = {"HOME": "/root", "LANG": "C.UTF-8"}
        self._context.processes.start(
            self.process(role), [*self._enter(), *argv], wrapped=True, env=env
        )

    def _start_init(self) -> int:
        """Make the namespaces and lay out the node's own folders in them."""
        pid = self._context.processes.start(
            self.process("init"),
            [
                "unshare",
                "--net",
                "--mount",
                "--propagation=private",
                "--pid",
                "--fork",
                "--kill-child",
                "--mount-proc",
                self._context.programs.pause,
            ],
            wrapped=True,
        )
        # The namespaces are complete once unshare has become pause.
        program = Path(f"/proc/{pid}/exe")
        wait_until(
            lambda: program.resolve().name == "pause",
            seconds=10,
            what=f"The start of node {self.spec.name}",
            poll=0.005,
        )
        self.run(["mount", "--all", "--fstab", self._folder / "fstab"])
        return pid

    def _wait_for_containerd(self) -> None:
        pid = self._context.processes.pid(self.process("init"))
        # Seen from outside through the node's own root folder.
        socket = Path(f"/proc/{pid}/root{runtime.CONTAINERD_SOCKET}")
        wait_until(socket.exists, seconds=30, what=f"The start of containerd on {self.spec.name}")

    def _write_files(self) -> None:
        """Write the configuration of everything that runs on the node."""
        context, folder = self._context, self._folder
        for name in ("log", "kubelet", "cni", "pki", "containerd"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        own = {folder / "log": Path("/var/log"), self.kubelet_folder: KUBELET_FOLDER}
        (folder / "fstab").write_text(fstab(own))
        spec_path = folder / "runtime-spec.json"
        base = json.loads(run([context.programs.ctr, "oci", "spec"]))
        mounted = runtime.with_host_mounts(base, runtime.host_mounts())
        spec_path.write_text(json.dumps(mounted))
        (folder / "containerd.toml").write_text(
            runtime.containerd_config(
                root=folder / "containerd",
                shim=context.programs.shim,
                base_spec=spec_path,
                cni_config=folder / "cni",
                facts=context.facts,
            )
        )
        pods = context.plan.node_pods(self.number)
        cni = runtime.cni_config(pods=pods, data=folder / "addresses")
        (folder / "cni/10-pods.conflist").write_text(json.dumps(cni))
        # Pods with dnsPolicy Default, too, ask the cluster's DNS, which passes on what it does
        # not know: the host's resolver may be an address that only the host can reach.
        (folder / "resolv.conf").write_text(f"nameserver {context.plan.host}\n")
        write_client(
            context.files,
            context.plan,
            context_name(context.cluster),
            self.spec.name,
            Identity(f"system:node:{self.spec.name}", ["system:nodes"]),
        )
        address = context.plan.node_address(self.number)
        serving = context.files.authority.issue(
            f"{self.spec.name}-serving",
            Identity(f"system:node:{self.spec.name}", hosts=[self.spec.name, address]),
        )
        config = kubelet.kubelet_config(
            self.spec,
            plan=context.plan,
            cgroup=self.cgroup,
            authority=context.files.authority.certificate,
            serving=serving,
            resolver=folder / "resolv.conf",
            facts=context.facts,
        )
        (folder / "kubelet.yaml").write_text(yaml.safe_dump(config))
        proxy = kubelet.kube_proxy_config(
            self.spec,
            plan=context.plan,
            number=self.number,
            kubeconfig=context.files.client("kube-proxy"),
        )
        (folder / "kube-proxy.yaml").write_text(yaml.safe_dump(proxy))
