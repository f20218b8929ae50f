"""Simulated accelerators on real kubelets: who gets which, and what happens when one breaks."""

import json
import os
import signal
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from drakkar.cli.main import app
from drakkar.constants import (
    ANNOTATION_DEVICES,
    CONDITION_CHECK,
    CONDITION_DEVICES,
    DEVICES_VARIABLE,
    LEVEL_HOST,
    TAINT_CHECK,
    TAINT_FAULT,
)
from drakkar.devices import NodeDevices, parse_devices
from drakkar.local import cgroups
from drakkar.local.install import DEVICES_NAMESPACE
from support.lab import Lab, Object, pretrain
from support.processes import in_pod

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

RESOURCE = "drakkar.dev/gpu"
PERIOD = 333_000
"""Of the CPU's limit, microseconds."""
KINDS = ["system", "numa", "bridge", "switch", "fabric", "chip"]


class Devices:
    """The accelerators of the lab's cluster."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    def node(self, name: str) -> Object:
        return self.lab.api.get(f"/api/v1/nodes/{name}")

    def nodes(self) -> list[str]:
        found = self.lab.api.list("/api/v1/nodes")
        return sorted(n["metadata"]["name"] for n in found if ANNOTATION_DEVICES in _annotations(n))

    def free(self, name: str) -> int:
        """Healthy devices that the kubelet of a node offers."""
        return int(self.node(name)["status"]["allocatable"].get(RESOURCE, "0"))

    def until_free(self, name: str, count: int) -> None:
        self.lab.until(lambda: self.free(name) == count, 90, f"{name} offers {count} devices")

    def until_whole(self) -> None:
        for name in self.nodes():
            self.until_free(name, 8)

    def told(self, name: str) -> NodeDevices:
        (found,) = parse_devices(_annotations(self.node(name))[ANNOTATION_DEVICES])
        return found

    def of(self, pod: Object) -> set[str]:
        """Ids of the devices of a pod, by the environment of its process."""
        return set(self.environment(pod)[DEVICES_VARIABLE].split(","))

    def environment(self, pod: Object, name: str = "") -> dict[str, str]:
        """The environment of a process of the pod."""

        def read() -> dict[str, str] | None:
            for pid in in_pod(pod["metadata"]["uid"], name=name):
                try:
                    text = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
                except OSError:
                    continue
                pairs = (item.split("=", 1) for item in text.split("\0") if "=" in item)
                found = dict(pairs)
                if DEVICES_VARIABLE in found:
                    return found
            return None

        found: dict[str, str] = self.lab.until(read, 60, f"{pod['metadata']['name']} has devices")
        return found


def _annotations(node: Object) -> dict[str, str]:
    return node["metadata"].get("annotations") or {}


def value(told: NodeDevices, chosen: tuple[str, ...]) -> tuple[Any, ...]:
    """(worst link, sum of links) of a set, from what the node tells of its links."""
    known = {frozenset((told.devices[i].id, told.devices[j].id)): (kind, gbps or 0.0)
             for i, j, kind, gbps in told.links}  # fmt: skip
    links = [known.get(frozenset(pair), ("system", 0.0)) for pair in combinations(chosen, 2)]
    ranked = sorted((KINDS.index(kind), gbps) for kind, gbps in links)
    return (ranked[0] if ranked else (), sum(k for k, _ in ranked), sum(g for _, g in ranked))


def holder(seconds: int = 600) -> Object:
    """A pod template that holds what it is given."""
    command = ["/bin/sh", "-c", f"trap 'exit 0' TERM; sleep {seconds} & wait $!"]
    resources = {"requests": {"cpu": "10m", "memory": "16Mi"}}
    container = {"name": "trainer", "command": command, "resources": resources}
    return {"spec": {"containers": [container], "terminationGracePeriodSeconds": 2}}


@pytest.fixture
def devices(lab: Lab) -> Iterator[Devices]:
    """Nodes whose devices are all well and free, at the beginning and at the end."""
    found = Devices(lab)
    lab.until(lambda: len(found.nodes()) >= 4, 60, "four nodes tell of their devices")
    found.until_whole()
    yield found
    for name in found.nodes():
        lab.cluster.node(name).repair_devices()
    found.until_whole()
    for name in found.nodes():
        others = [
            t for t in found.node(name)["spec"].get("taints") or () if t["key"] != TAINT_CHECK
        ]
        lab.api.patch(f"/api/v1/nodes/{name}", {"spec": {"taints": others or None}})


def hold(lab: Lab, name: str, replicas: int, count: int, **spec: Any) -> list[Object]:
    """Run pods that hold so many devices each."""
    lab.submit(
        name,
        replicas=replicas,
        runtime="plain",
        accelerators={"resource": RESOURCE, "count": count},
        **{"template": holder(), **spec},
    )
    lab.phase(name, "Running")
    return lab.pods(name)


def test_pods_get_devices_of_their_own_that_are_linked_best(lab: Lab, devices: Devices) -> None:
    pods = [*hold(lab, "three", 4, 3), *hold(lab, "two", 4, 2), *hold(lab, "one", 3, 1)]
    held: dict[str, dict[str, set[str]]] = defaultdict(dict)
    for pod in pods:
        held[pod["spec"]["nodeName"]][pod["metadata"]["name"]] = devices.of(pod)
    for node, given in held.items():
        told = devices.told(node)
        everything = {device.id for device in told.devices}
        assert sum(len(ids) for ids in given.values()) == len(set().union(*given.values()))
        assert set().union(*given.values()) <= everything
        order = sorted(given, key=lambda pod: ("three", "two", "one").index(pod.split("-")[0]))
        for position, pod in enumerate(order):
            # What was free to it, less what pods of its own job got at the same time.
            others = [p for p in order if p.split("-")[0] == pod.split("-")[0] and p != pod]
            taken = set().union(set(), *(given[p] for p in [*order[:position], *others]))
            best = max(
                value(told, c) for c in combinations(sorted(everything - taken), len(given[pod]))
            )
            assert value(told, tuple(sorted(given[pod]))) == best, (node, pod, given)


def test_trainers_see_their_devices(lab: Lab, devices: Devices) -> None:
    """Also: a device that breaks moves its rank, with the cause in status."""
    lab.submit(
        "gpt",
        replicas=2,
        accelerators={"resource": RESOURCE, "count": 8},
        recipe=pretrain(steps=40, batchSize=32, sequenceLength=128),
    )
    lab.step("gpt", 12)
    for pod in lab.pods("gpt"):
        node = pod["spec"]["nodeName"]
        seen = devices.environment(pod, name="rank-")
        assert seen[DEVICES_VARIABLE] == ",".join(f"SIM-{node}-{i}" for i in range(8))
        assert seen["CUDA_VISIBLE_DEVICES"] == "0,1,2,3,4,5,6,7"
    before = lab.status("gpt")["placement"]["nodes"]
    victim = before[1]
    lab.cluster.node(victim).break_device("5", "xid-79", message="GPU has fallen off the bus")
    devices.until_free(victim, 7)
    status = lab.phase("gpt", "Complete", seconds=240)
    assert status["restarts"][0]["reason"] == "DeviceFault"
    assert status["restarts"][0]["message"] == (
        f"gpt-1 on {victim}: device SIM-{victim}-5: xid-79: GPU has fallen off the bus"
    )
    assert status["restarts"][0]["node"] == victim
    assert status["restartCount"] == 0
    after = status["placement"]["nodes"]
    assert after[0] == before[0]
    assert after[1] not in before
    assert lab.history("gpt")[-1]["step"] == 40
    node = devices.node(victim)
    condition = next(c for c in node["status"]["conditions"] if c["type"] == CONDITION_DEVICES)
    assert condition["status"] == "False"
    assert f"SIM-{victim}-5: xid-79: GPU has fallen off the bus" in condition["message"]
    assert [t["key"] for t in node["spec"]["taints"]] == [TAINT_FAULT]
    lab.cluster.node(victim).repair_devices()
    devices.until_free(victim, 8)
    lab.until(lambda: not devices.node(victim)["spec"].get("taints"), 30, "the taint is gone")


def test_holders_outlive_kubelet_and_plugin_and_lose_nothing(lab: Lab, devices: Devices) -> None:
    (pod,) = hold(lab, "holder", 1, 3)
    node, held = pod["spec"]["nodeName"], devices.of(pod)
    machine = lab.cluster.node(node)

    def unchanged() -> None:
        (now,) = lab.pods("holder")
        assert now["metadata"]["uid"] == pod["metadata"]["uid"]
        (state,) = now["status"]["containerStatuses"]
        assert (state["restartCount"], "running" in state["state"]) == (0, True)
        assert devices.of(now) == held

    def other(name: str) -> None:
        """A pod beside the holder gets well devices that are free."""
        hold(lab, name, 1, 4, **at(node))
        (found,) = lab.pods(name)
        assert not devices.of(found) & held
        lab.delete(name)

    before = registrations(lab, node)
    machine.restart_kubelet()
    lab.until(lambda: registrations(lab, node) > before, 60, "the plugin is registered again")
    devices.until_free(node, 8)
    unchanged()
    other("after-kubelet")

    killed = kill_plugin(lab, node)
    lab.until(lambda: killed.isdisjoint(daemon_processes(lab, node)) and
              daemon_ready(lab, node), 90, "the daemon is back")  # fmt: skip
    devices.until_free(node, 8)
    unchanged()
    other("after-plugin")

    # What passes by takes no pod away; nobody new gets the device meanwhile.
    index = sorted(held)[0].rsplit("-", 1)[1]
    machine.break_device(index, "thermal", message="95 C")
    devices.until_free(node, 7)
    unchanged()
    other("after-fault")
    unchanged()
    assert lab.status("holder")["restarts"] == []


def at(node: str) -> Object:
    """Spec of a job that can run on this node only."""
    return {"template": pinned(node)}


def pinned(node: str) -> Object:
    template = holder()
    template["spec"]["nodeSelector"] = {LEVEL_HOST: node}
    return template


def daemon(lab: Lab, node: str) -> Object:
    """The pod of a node's daemon."""
    path = f"/api/v1/namespaces/{DEVICES_NAMESPACE}/pods"
    (found,) = lab.api.list(path, fieldSelector=f"spec.nodeName={node}")
    return found


def daemon_processes(lab: Lab, node: str) -> set[int]:
    return set(in_pod(daemon(lab, node)["metadata"]["uid"], command="drakkar_gpu"))


def daemon_ready(lab: Lab, node: str) -> bool:
    status = daemon(lab, node)["status"]
    return all(c["ready"] for c in status.get("containerStatuses") or [{"ready": False}])


def kill_plugin(lab: Lab, node: str) -> set[int]:
    """kill -9 a node's daemon."""
    killed = daemon_processes(lab, node)
    assert killed
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    return killed


def registrations(lab: Lab, node: str) -> int:
    """How often the daemon registered its resource at a kubelet."""
    name = daemon(lab, node)["metadata"]["name"]
    response = lab.api._client.get(f"/api/v1/namespaces/{DEVICES_NAMESPACE}/pods/{name}/log")
    return sum(RESOURCE in line and '"registered"' in line for line in response.text.splitlines())


def test_a_claim_is_scheduled_and_prepared_and_counts_with_the_rest(
    lab: Lab, devices: Devices
) -> None:
    claims = f"/apis/resource.k8s.io/v1/namespaces/{lab.namespace}/resourceclaims"
    request = {"name": "gpus", "exactly": {"deviceClassName": "gpu.drakkar.dev", "count": 3}}
    same = {"requests": ["gpus"], "matchAttribute": "gpu.drakkar.dev/fabricIsland"}
    claim = {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaim",
        "metadata": {"name": "three", "namespace": lab.namespace},
        "spec": {"devices": {"requests": [request], "constraints": [same]}},
    }
    slices = "/apis/resource.k8s.io/v1/resourceslices"
    lab.until(lambda: len(lab.api.list(slices)) >= 4, 60, "every node has a slice")
    assert lab.api.create(claims, claim)
    assert lab.api.create(lab.pods_path, claimer(lab.namespace))
    pod = lab.until(lambda: running(lab.pod("claimer")), 90, "the claimer runs")
    node = pod["spec"]["nodeName"]
    found = lab.api.get(f"{claims}/three")
    uid = found["metadata"]["uid"]
    results = found["status"]["allocation"]["devices"]["results"]
    given = {int(r["device"].rsplit("-", 1)[1]) for r in results}
    assert {index // 4 for index in given} in ({0}, {1}), "three of one fabric island"
    # What the kubelet had the driver prepare, and what containerd made of it in the container.
    spec = json.loads(lab.cluster.node(node).run("cat", f"/run/cdi/drakkar.dev-claim-{uid}.json"))
    (made,) = spec["devices"]
    ids = ",".join(f"SIM-{node}-{index}" for index in sorted(given))
    assert f"{DEVICES_VARIABLE}={ids}" in made["containerEdits"]["env"]
    seen = devices.environment(pod)
    assert seen[DEVICES_VARIABLE] == ids
    assert seen["CUDA_VISIBLE_DEVICES"] == ",".join(map(str, sorted(given)))
    # The device plugin gives them to nobody, and the node offers less.
    devices.until_free(node, 5)
    (other,) = hold(lab, "other", 1, 5, **at(node))
    assert not devices.of(other) & set(ids.split(","))
    lab.delete("other")
    lab.delete_pod("claimer")
    lab.until(lambda: lab.api.find(f"{lab.pods_path}/claimer") is None, 60, "it is gone")
    devices.until_free(node, 8)


def claimer(namespace: str) -> Object:
    """A pod that uses the claim."""
    container = {
        "name": "c",
        "image": "localhost/drakkar:dev",
        "imagePullPolicy": "Never",
        "command": ["/bin/sh", "-c", "trap 'exit 0' TERM; sleep 600 & wait $!"],
        "resources": {"claims": [{"name": "gpus"}]},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "claimer", "namespace": namespace},
        "spec": {
            "runtimeClassName": "drakkar-local",
            "terminationGracePeriodSeconds": 2,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "resourceClaims": [{"name": "gpus", "resourceClaimName": "three"}],
            "containers": [container],
        },
    }


def running(pod: Object) -> Object | None:
    """The pod if it runs."""
    return pod if pod["status"].get("phase") == "Running" else None


def test_a_check_finds_a_throttled_node_and_a_slow_link_and_releases_them(
    lab: Lab, devices: Devices
) -> None:
    nodes = devices.nodes()[:4]
    operators = {pod["spec"]["nodeName"] for pod in lab.operator_pods()}
    throttled, narrow = [name for name in nodes if name not in operators][-2:]
    with ThreadPoolExecutor() as pool, slow_link(lab, narrow):
        checking = pool.submit(check, lab, nodes)
        # With so little CPU PyTorch would take minutes to start: it may do so before.
        lab.until(lambda: "met 4 of 4" in log_of_check(lab, throttled), 120, "the nodes have met")
        with hardly_any_cpu(lab, throttled):
            answer = checking.result(timeout=420)
    assert answer.exit_code == 1, answer.output
    found = {name: checked(devices.node(name)) for name in nodes}
    assert found[throttled] == ("False", "SlowCompute"), answer.output
    assert found[narrow] == ("False", "SlowLink"), answer.output
    others = [found[name] for name in nodes if name not in (throttled, narrow)]
    assert others == [("True", "Passed")] * 2, answer.output
    tainted = [name for name in nodes if TAINT_CHECK in taint_keys(devices.node(name))]
    assert tainted == [throttled, narrow]
    answer = check(lab, nodes)
    assert answer.exit_code == 0, answer.output
    assert {checked(devices.node(name)) for name in nodes} == {("True", "Passed")}
    assert not [name for name in nodes if TAINT_CHECK in taint_keys(devices.node(name))]


def log_of_check(lab: Lab, node: str) -> str:
    """What the pod of the check on a node has said."""
    for pod in lab.api.list(lab.pods_path, labelSelector="drakkar.dev/check"):
        if pod["spec"]["nodeName"] == node:
            return lab.log(pod["metadata"]["name"])
    return ""


@contextmanager
def slow_link(lab: Lab, name: str) -> Iterator[None]:
    """Give a node's cable 10 Mbit/s."""
    node = lab.cluster.node(name)
    shaper = ("rate", "10mbit", "burst", "64kb", "latency", "200ms")
    node.run("tc", "qdisc", "add", "dev", "eth0", "root", "tbf", *shaper)
    try:
        yield
    finally:
        node.run("tc", "qdisc", "del", "dev", "eth0", "root")


@contextmanager
def hardly_any_cpu(lab: Lab, name: str) -> Iterator[None]:
    """Give a node's pods 0.3 % of a CPU together.

    On a machine that is busy with other things all nodes are slow: this one must be far slower.
    """
    group = cgroups.MOUNT / "cpu" / lab.cluster.node(name).cgroup.strip("/")
    limit_cpu(group, 1_000)  # the least that there is
    try:
        yield
    finally:
        limit_cpu(group, None)


def limit_cpu(group: Path, quota: int | None) -> None:
    """Microseconds of CPU in each third of a second for a node's pods together; None: all."""
    if group.is_dir():
        (group / "cpu.cfs_period_us").write_text(str(PERIOD))
        (group / "cpu.cfs_quota_us").write_text(str(-1 if quota is None else quota))
    else:
        unified = cgroups.MOUNT / group.relative_to(cgroups.MOUNT / "cpu")
        (unified / "cpu.max").write_text(f"{'max' if quota is None else quota} {PERIOD}")


def check(lab: Lab, nodes: list[str]) -> Result:
    """drakkar node check, with limits that nodes which share a machine keep."""
    limits = ["--compute", "0.3", "--link", "0.15", "--in-turn", "--timeout", "400"]
    where = ["--kubeconfig", str(lab.cluster.kubeconfig), "--namespace", lab.namespace]
    return CliRunner().invoke(app, ["node", "check", *nodes, *limits, *where])


def checked(node: Object) -> tuple[str, str]:
    """What the last check said of a node."""
    found = next(c for c in node["status"]["conditions"] if c["type"] == CONDITION_CHECK)
    return found["status"], found["reason"]


def taint_keys(node: Object) -> set[str]:
    return {taint["key"] for taint in node["spec"].get("taints") or ()}
