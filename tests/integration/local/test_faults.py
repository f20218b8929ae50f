"""Faults and ends, on a cluster of their own, so that others can go on using the shared one."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from drakkar.local import Cluster, ClusterError, NodeSpec, Taint, Topology, default_topology
from drakkar.local.kubeapi import node_is_ready
from drakkar.local.network import AddressPlan, host_links
from drakkar.local.process import run, started_at, wait_until
from drakkar.local.state import all_states
from drakkar.local.topology import RACK_LABEL

pytestmark = pytest.mark.cluster

NAME = "trial"
SETTLING_SECONDS = 20.0
"""On a busy machine the kernel takes its time to reap what was killed, and other clusters change."""


@pytest.fixture(scope="module")
def trial() -> Iterator[Cluster]:
    """A cluster of two nodes for this module alone."""
    cluster = Cluster(NAME)
    cluster.down()
    cluster.up(topology=default_topology(2))
    yield cluster
    cluster.down()


def ready(cluster: Cluster, node: str) -> bool:
    with cluster.api() as api:
        return node_is_ready(api.get(f"/api/v1/nodes/{node}"))


def seconds_until(condition: Callable[[], bool], *, limit: float, what: str) -> float:
    start = time.monotonic()
    wait_until(condition, seconds=limit, what=what, poll=0.2)
    return time.monotonic() - start


def machine_state() -> dict[str, Any]:
    """What a cluster must leave as it was, without what belongs to other clusters."""
    others = tuple(AddressPlan(s.index).bridge for s in all_states() if s.name != NAME)
    settings = ("net.ipv4.ip_forward", "vm.overcommit_memory", "kernel.panic")
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    return {
        "links": sorted(n for link in host_links() if not (n := link["ifname"]).startswith(others)),
        "routes": [
            route
            for route in run(["ip", "-4", "route"]).splitlines()
            if not any(bridge in route for bridge in others)
        ],
        "rules": sorted(
            f"{item['table']['family']} {item['table']['name']}"
            for item in json.loads(run(["nft", "--json", "list", "ruleset"]))["nftables"]
            if "table" in item and item["table"]["name"] not in others
        ),
        "mounts": sorted(mount for mount in mounts if "/containerd/" not in mount),
        "settings": [Path("/proc/sys", name.replace(".", "/")).read_text() for name in settings],
        "groups": [str(path) for path in Path("/sys/fs/cgroup").glob(f"**/drakkar/{NAME}")],
        "processes": mentioning(NAME),
    }


def mentioning(name: str) -> list[str]:
    """Command lines of processes which have to do with a cluster of that name."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if f"/drakkar/{name}/" in command:
            found.append(command)
    return found


def test_down_leaves_nothing(namespace_in: Callable[[Cluster], Any], pod: Any) -> None:
    cluster = Cluster(NAME)
    cluster.down()
    before = machine_state()
    cluster.up(topology=default_topology(2))
    kube = namespace_in(cluster)
    for node in ("node-1", "node-2"):
        kube.create("pods", pod(f"on-{node}", "sleep", "600", node=node))
    kube.wait_for_pods("on-node-1", "on-node-2")
    processes = cluster.processes()
    cluster.down()
    deadline = time.monotonic() + SETTLING_SECONDS
    while (after := machine_state()) != before and time.monotonic() < deadline:
        time.sleep(0.5)
    assert after == before
    assert not cluster.folder.exists()
    assert [name for name, pid in processes.items() if started_at(pid)] == []
    cluster.down()


def test_a_node_loses_power_and_comes_back(trial: Cluster, namespace_in: Any, pod: Any) -> None:
    kube = namespace_in(trial)
    kube.create("pods", pod("stays", "sleep", "600", node="node-2"))
    kube.wait_for_pods("stays")
    node = trial.node("node-2")
    node.stop()
    assert not node.running
    assert not [name for name in trial.processes() if name.startswith("node-2.")]
    noticed = seconds_until(lambda: not ready(trial, "node-2"), limit=25, what="The notice")
    assert noticed < 20
    restarts = kube.pod("stays")["status"]["containerStatuses"][0]["restartCount"]
    node.start()
    assert ready(trial, "node-2")

    def restarted() -> bool:
        status = kube.pod("stays")["status"]["containerStatuses"][0]
        return bool(status["restartCount"] > restarts and status["ready"])

    wait_until(restarted, seconds=60, what="The pod's restart", poll=0.5)
    assert kube.kubectl("exec", "stays", "--", "echo", "hello") == "hello\n"


def test_a_cable_is_pulled_out_and_put_in(trial: Cluster, namespace_in: Any, pod: Any) -> None:
    kube = namespace_in(trial)
    kube.create("pods", pod("stays", "sleep", "600", node="node-2"))
    kube.wait_for_pods("stays")
    node = trial.node("node-2")
    node.cut()
    assert node.running
    wait_until(lambda: not ready(trial, "node-2"), seconds=25, what="The notice", poll=0.2)
    node.mend()
    wait_until(lambda: ready(trial, "node-2"), seconds=30, what="The return", poll=0.2)
    kube.wait_for_pods("stays")
    assert kube.pod("stays")["status"]["containerStatuses"][0]["restartCount"] == 0


def test_the_api_server_restarts_and_storage_goes_on(trial: Cluster, namespace_in: Any) -> None:
    kube = namespace_in(trial)
    trial.apiserver.stop()
    assert not kube.api.ready()
    trial.apiserver.start()
    trial.apiserver.restart()
    spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Mi"}}}
    kube.create("persistentvolumeclaims", {"metadata": {"name": "later"}, "spec": spec})
    path = kube.path("persistentvolumeclaims", "later")
    wait_until(
        lambda: kube.api.get(path)["status"]["phase"] == "Bound", seconds=30, what="The volume"
    )


def test_up_heals_what_has_died(trial: Cluster) -> None:
    before = trial.processes()
    with trial.api() as api:
        uid = api.get("/api/v1/namespaces/kube-system")["metadata"]["uid"]
    for name in ("etcd", "kube-apiserver", "coredns", "node-1.kubelet", "node-2.init"):
        os.kill(before[name], signal.SIGKILL)
    again = Cluster.load_or_up(NAME, nodes=2)
    assert set(again.processes()) == set(before)
    assert ready(again, "node-1")
    assert ready(again, "node-2")
    # Healed, not made anew: what it held is still there. (A controller may have ended by itself
    # while there was no API server, and was started again.)
    with again.api() as api:
        assert api.get("/api/v1/namespaces/kube-system")["metadata"]["uid"] == uid


def test_nodes_follow_the_topology(trial: Cluster) -> None:
    third = NodeSpec(
        name="node-3",
        rack="rack-9",
        labels={"disk": "ssd"},
        taints=[Taint(key="dedicated", value="training")],
        resources={"drakkar.dev/slot": 8},
        cpu="500m",
        memory="1Gi",
    )
    trial.up(topology=Topology(nodes=[*default_topology(2).nodes, third]))
    with trial.api() as api:
        node = api.get("/api/v1/nodes/node-3")
    assert node["metadata"]["labels"][RACK_LABEL] == "rack-9"
    assert node["metadata"]["labels"]["disk"] == "ssd"
    assert [taint["key"] for taint in node["spec"]["taints"]] == ["dedicated"]
    offered = node["status"]["allocatable"]
    assert offered["drakkar.dev/slot"] == "8"
    assert offered["cpu"] == "500m"
    trial.up(topology=default_topology(2))
    with trial.api() as api:
        assert len(api.list("/api/v1/nodes")) == 2


def test_fake_nodes_run_pods_and_go(trial: Cluster, namespace_in: Any) -> None:
    trial.set_fake_nodes(20, gpus=8)
    kube = namespace_in(trial)

    def fakes() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = kube.api.list("/api/v1/nodes", labelSelector="type=kwok")
        return found

    wait_until(lambda: all(map(node_is_ready, fakes())), seconds=30, what="Ready", poll=0.5)
    assert len(fakes()) == 20
    container = {
        "name": "main",
        "image": "none",
        "resources": {"limits": {"nvidia.com/gpu": "8"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    toleration = {"key": "kwok.x-k8s.io/node", "operator": "Exists"}
    spec = {"containers": [container], "tolerations": [toleration]}
    kube.create("pods", {"metadata": {"name": "big"}, "spec": spec})
    wait_until(lambda: kube.pod("big")["status"]["phase"] == "Running", seconds=20, what="The pod")
    assert kube.pod("big")["spec"]["nodeName"].startswith("fake-")
    trial.set_fake_nodes(0)
    assert fakes() == []
    assert ready(trial, "node-1")


def test_what_is_not_there_is_said_in_a_sentence(trial: Cluster) -> None:
    with pytest.raises(ClusterError, match="has no node 'node-7'; it has node-1, node-2"):
        trial.node("node-7")
    with pytest.raises(ClusterError, match="There is no cluster nowhere"):
        Cluster("nowhere").status()
