"""The operator as a process of its own against a real API server.

Nodes are objects kept ready by the test, and a kubelet of the test's runs their pods: what is tried
here is the operator and the API server between them, kopf's watch included.
"""

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from drakkar.constants import API_VERSION
from drakkar.kube.connection import load_connection
from drakkar.kube.rest import ApiError, Object, Rest
from drakkar.local import Cluster, state
from drakkar.local.paths import ClusterPaths
from drakkar_operator.cluster import paths
from support.fake_kube import node, running, training_job

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]
CRDS = Path(__file__).parents[3] / "charts" / "drakkar" / "crds"
NAMESPACE = "operator-test"
JOBS = paths.training_jobs(NAMESPACE)
PODS = paths.pods(NAMESPACE)
TAINT = "drakkar.dev/integration-test"
GPU = "nvidia.com/gpu"
TOLERATION = {"key": TAINT, "operator": "Exists"}


class Lab:
    """A namespace, nodes of the test's own and their kubelet."""

    def __init__(self, rest: Rest, kubeconfig: Path, folder: Path) -> None:
        self.rest = rest
        self.kubeconfig = kubeconfig
        self.folder = folder
        self.created: dict[str, list[str]] = {}
        """UIDs per pod name, in order of appearance."""
        self.doubles: list[str] = []
        self._processes: list[asyncio.subprocess.Process] = []

    async def start(self, **options: Any) -> "Process":
        """An operator process."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        options = {
            "kubeconfig": self.kubeconfig,
            "namespace": NAMESPACE,
            "namespaces": NAMESPACE,
            "host": "127.0.0.1",
            "port": port,
            "lease_seconds": 4,
            "worker_image": "none",
            **options,
        }
        arguments = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        log = (self.folder / f"operator-{len(self._processes)}.log").open("wb")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "drakkar_operator", *arguments, stdout=log, stderr=log
        )
        self._processes.append(process)
        return Process(process, port)

    async def submit(self, name: str, **spec: Any) -> None:
        body = training_job(name, namespace=NAMESPACE, **spec)
        body["spec"]["template"]["spec"]["tolerations"] = [TOLERATION]
        body["spec"]["template"]["spec"]["nodeSelector"] = {TAINT: "yes"}
        body["spec"] = {name: value for name, value in body["spec"].items() if value is not None}
        await self.rest.post(JOBS, body)

    async def status(self, name: str) -> Object:
        status: Object = (await self.rest.get(f"{JOBS}/{name}")).get("status") or {}
        return status

    async def until(self, name: str, phase: str, seconds: float = 60.0) -> Object:
        """Wait for a phase; fails with the status."""
        status: Object = {}
        try:
            async with asyncio.timeout(seconds):
                while (status := await self.status(name)).get("phase") != phase:
                    await asyncio.sleep(0.2)
        except TimeoutError:
            logs = "".join(p.read_text()[-3000:] for p in self.folder.glob("operator-*.log"))
            raise AssertionError(f"{name} is not {phase}: {status}\n{logs}") from None
        return status

    async def pods(self) -> list[Object]:
        return list((await self.rest.get(PODS))["items"])

    async def finish(self) -> None:
        """All pods succeed."""
        for pod in await self.pods():
            ended = {"terminated": {"exitCode": 0}}
            status = {
                "phase": "Succeeded",
                "containerStatuses": [
                    {**pod["status"]["containerStatuses"][0], "state": ended, "ready": False}
                ],
            }
            path = f"{PODS}/{pod['metadata']['name']}/status"
            await self.rest.patch(path, {"status": status})

    async def be_kubelet(self) -> None:
        """Run bound pods, let deleted ones go, note which ever existed."""
        alive: dict[str, str] = {}
        while True:
            with contextlib.suppress(ApiError):
                for pod in await self.pods():
                    meta = pod["metadata"]
                    if meta["name"] not in alive or alive[meta["name"]] != meta["uid"]:
                        alive[meta["name"]] = meta["uid"]
                        self.created.setdefault(meta["name"], []).append(meta["uid"])
                    path = f"{PODS}/{meta['name']}"
                    if "deletionTimestamp" in meta:
                        await self.rest.delete(path, {"gracePeriodSeconds": 0})
                    elif pod["status"].get("phase") == "Pending" and pod["spec"].get("nodeName"):
                        status = running("127.0.0.1")
                        container = {
                            **status["containerStatuses"][0],
                            "image": "none",
                            "imageID": "",
                            "restartCount": 0,
                            "state": {"running": {"startedAt": _now()}},
                        }
                        status["containerStatuses"] = [container]
                        await self.rest.patch(f"{path}/status", {"status": status})
            await asyncio.sleep(0.1)

    async def keep_nodes(self, names: list[str]) -> None:
        """Heartbeats, without which the node controller would give the nodes up."""
        while True:
            for name in names:
                ready = {"type": "Ready", "status": "True", "lastHeartbeatTime": _now()}
                with contextlib.suppress(ApiError):
                    await self.rest.patch(
                        f"{paths.NODES}/{name}/status",
                        {"status": {"conditions": [ready]}},
                        kind="strategic",
                    )
            await asyncio.sleep(1.0)

    async def close(self) -> None:
        for process in self._processes:
            if process.returncode is None:
                process.kill()
            await process.wait()


class Process:
    """An operator process."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self.port = port

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()

    async def terminate(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return await self.process.wait()

    async def http(self, path: str) -> tuple[int, str]:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{self.port}{path}") as response,
        ):
            return response.status, await response.text()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


async def _ignore(status: int, call: Callable[[], Any]) -> None:
    try:
        await call()
    except ApiError as error:
        if error.status != status:
            raise


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A control plane of its own: elsewhere an installed operator would look after the jobs too."""
    name = "operator-test"
    was_up = state.load(ClusterPaths.of(name)) is not None
    cluster = Cluster.load_or_up(name, nodes=1)
    yield cluster
    if not was_up:
        cluster.down()


@pytest.fixture
async def lab(cluster: Cluster, tmp_path: Path) -> AsyncIterator[Lab]:
    rest = Rest(await load_connection(str(cluster.kubeconfig)))
    lab = Lab(rest, cluster.kubeconfig, tmp_path)
    for file in CRDS.glob("*.yaml"):
        crd = yaml.safe_load(file.read_text())
        path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{crd['metadata']['name']}"
        await rest.patch(path, crd, "apply", {"fieldManager": "test", "force": "true"})
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    await _ignore(409, lambda: rest.post("/api/v1/namespaces", space))
    nodes = [f"operator-test-{i}" for i in range(3)]
    for each in nodes:
        body = node(each, **{TAINT: "yes"})
        body["spec"]["taints"] = [{"key": TAINT, "effect": "NoSchedule"}]
        await _ignore(409, lambda body=body: rest.post(paths.NODES, body))
        await rest.patch(f"{paths.NODES}/{each}/status", {"status": body["status"]})
    helpers = [asyncio.create_task(c) for c in (lab.be_kubelet(), lab.keep_nodes(nodes))]
    yield lab
    await lab.close()
    for job in (await rest.get(JOBS))["items"]:
        await rest.delete(f"{JOBS}/{job['metadata']['name']}")
    for queue in (await rest.get(paths.QUEUES))["items"]:
        await rest.delete(f"{paths.QUEUES}/{queue['metadata']['name']}")
    # The garbage collector learns of new kinds late: the pods are not left to it.
    await rest.delete(PODS)
    async with asyncio.timeout(30):
        while await lab.pods():
            await asyncio.sleep(0.2)
    for helper in helpers:
        helper.cancel()
    for each in nodes:
        await _ignore(404, lambda each=each: rest.delete(f"{paths.NODES}/{each}"))
    await _ignore(
        404,
        lambda: rest.delete(
            f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/drakkar-operator"
        ),
    )
    await rest.close()


async def test_a_job_lives_and_the_process_leaves_in_order(lab: Lab) -> None:
    operator = await lab.start()
    await lab.submit("a", replicas=4)
    status = await lab.until("a", "Running")
    assert len(status["placement"]["nodes"]) == 4
    assert await operator.http("/healthz") == (200, "ok\n")
    assert await operator.http("/readyz") == (200, "ok\n")
    _, metrics = await operator.http("/metrics")
    assert "drakkar_operator_leader 1.0" in metrics
    assert "drakkar_operator_pods_created_total 4.0" in metrics
    await lab.rest.patch(f"{JOBS}/a", {"spec": {"suspend": True}})
    await lab.until("a", "Suspended")
    await lab.rest.patch(f"{JOBS}/a", {"spec": {"suspend": False}})
    await lab.until("a", "Running")
    await lab.finish()
    await lab.until("a", "Complete")
    assert await operator.terminate() == 0
    lease = await lab.rest.get(
        f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/drakkar-operator"
    )
    assert not lease["spec"].get("holderIdentity"), "the Lease is released"


async def test_a_second_process_takes_over_from_a_killed_one(lab: Lab) -> None:
    first = await lab.start()
    await lab.submit("a", replicas=3)
    await lab.until("a", "Running")
    await lab.start()
    await first.kill()
    await lab.rest.delete(f"{PODS}/a-1")
    await lab.submit("b", replicas=2)
    await lab.until("b", "Running")
    await lab.until("a", "Running")


async def test_operators_killed_in_the_middle_of_a_gang(lab: Lab) -> None:
    """At growing delays after the job is submitted: during placement, creation and running."""
    await lab.submit("a", replicas=20)
    for delay in (0.0, 0.1, 0.2, 0.4):
        operator = await lab.start()
        async with asyncio.timeout(60):
            while "drakkar_operator_leader 1.0" not in await _metrics(operator):
                await asyncio.sleep(0.05)
        await asyncio.sleep(delay)
        await operator.kill()
    await lab.start()
    await lab.until("a", "Running")
    assert {name: len(uids) for name, uids in lab.created.items()} == {
        f"a-{i}": 1 for i in range(20)
    }


async def test_the_api_server_is_restarted_and_cut_off(lab: Lab, cluster: Cluster) -> None:
    operator = await lab.start()
    await lab.submit("a", replicas=6)
    await asyncio.sleep(1.5)
    await asyncio.to_thread(cluster.apiserver.restart)
    await lab.until("a", "Running")
    await asyncio.to_thread(cluster.apiserver.stop)
    await asyncio.sleep(20)
    assert (await operator.http("/healthz"))[0] == 200, "no reason to restart the operator"
    await asyncio.to_thread(cluster.apiserver.start)
    await lab.submit("b", replicas=2)
    await lab.until("b", "Running", 90)
    assert operator.process.returncode is None
    assert all(len(uids) == 1 for uids in lab.created.values())


async def test_what_a_queue_lent_is_reclaimed_and_the_borrower_comes_back(lab: Lab) -> None:
    """Two queues of 8 devices each on nodes of 24 in all; the one that borrows is elastic."""
    for name, spec in (
        ("both", {"quota": {GPU: 16}}),
        ("lender", {"quota": {GPU: 8}, "parent": "both"}),
        (
            "borrower",
            {
                "quota": {GPU: 8},
                "borrowing": {GPU: 8},
                "parent": "both",
                "preemption": {"minRuntimeSeconds": 0},
            },
        ),
    ):
        body = {"apiVersion": API_VERSION, "kind": "Queue", "metadata": {"name": name}}
        await lab.rest.post(paths.QUEUES, {**body, "spec": spec})
    await lab.start()
    await lab.submit("big", queue="borrower", replicas=None, elastic={"min": 4, "max": 16})
    status = await lab.until("big", "Running")
    assert status["replicas"] == 16
    await lab.submit("owner", queue="lender", replicas=8)
    await lab.until("owner", "Running")
    async with asyncio.timeout(120):
        while (status := await lab.status("big")).get("replicas") != 8 or status[
            "phase"
        ] != "Running":
            await asyncio.sleep(0.2)
    assert [each["reason"] for each in status["restarts"]] == ["Reclaimed"]
    await lab.submit("late", queue="lender", replicas=1)
    async with asyncio.timeout(60):
        while "queue 'lender' allows 8" not in (await lab.status("late")).get("pendingReason", ""):
            await asyncio.sleep(0.2)


async def test_roles_are_placed_together_and_lost_nodes_replaced_in_their_groups(lab: Lab) -> None:
    worker = {"resource": GPU, "count": 4}
    roles = [
        {"name": "head", "replicas": 1, "resources": {"requests": {"cpu": "1"}}},
        {
            "name": "worker",
            "replicas": 4,
            "accelerators": worker,
            "groups": [{"size": 2, "level": "host"}],
        },
    ]
    await lab.start()
    await lab.submit("a", replicas=5, roles=roles, accelerators=None)
    before = (await lab.until("a", "Running"))["placement"]["nodes"]
    assert before[1] == before[2] != before[3] == before[4]
    lost = before[1]
    await lab.rest.patch(f"{paths.NODES}/{lost}", {"spec": {"unschedulable": True}})
    for pod in ("a-1", "a-2"):
        await lab.rest.delete(f"{PODS}/{pod}", {"gracePeriodSeconds": 0})
    async with asyncio.timeout(120):
        while (status := await lab.status("a"))["phase"] != "Running" or lost in status[
            "placement"
        ]["nodes"][1:3]:
            await asyncio.sleep(0.2)
    after = status["placement"]["nodes"]
    assert after[1] == after[2]
    assert after[3:] == before[3:], "the other group stays"


async def _metrics(operator: Process) -> str:
    try:
        return (await operator.http("/metrics"))[1]
    except aiohttp.ClientError:
        return ""
