"""Schedulers of gangs that are measured against each other, each by what it asks users to write."""

import asyncio
import os
import signal
import string
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import yaml

from drakkar.constants import API_VERSION
from drakkar.kube.rest import ApiError, Object, Rest
from drakkar.local import Cluster
from drakkar.local.fake import ANNOTATION, RUNS_FOR
from drakkar_operator.cluster import paths

ROOT = Path(__file__).resolve().parents[2]
NAMESPACE = "gang-bench"
GPU = "nvidia.com/gpu"
LABEL_GANG = "bench.drakkar.dev/gang"
QPS = 5000
"""Requests a second that every contender's client may make: as kube-scheduler is set up here."""
TOLERATION = {"key": ANNOTATION, "operator": "Exists"}


@dataclass(frozen=True, slots=True)
class Gang:
    """Equal pods that start together. Level: a topology level that all of them must share."""

    name: str
    pods: int
    gpus: int = 1
    level: str | None = None
    seconds: float | None = None
    """How long its pods run; None: until they are deleted."""


def pod_template(gang: Gang) -> Object:
    """What every contender's pods look like."""
    amounts = {"cpu": "1", "memory": "1Gi", GPU: str(gang.gpus)}
    annotations = {RUNS_FOR: f"{gang.seconds}s"} if gang.seconds is not None else {}
    return {
        "metadata": {"labels": {LABEL_GANG: gang.name}, "annotations": annotations},
        "spec": {
            "containers": [
                {
                    "name": "trainer",
                    "image": "none",
                    "resources": {"requests": amounts, "limits": {GPU: str(gang.gpus)}},
                }
            ],
            "tolerations": [TOLERATION],
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
        },
    }


class Contender(Protocol):
    """Starts and stops its own processes, and writes gangs in its own way."""

    name: str
    atomic: bool
    """Whether it promises all of a gang's pods or none."""

    async def start(self, rest: Rest, cluster: Cluster) -> None:
        """Returns when it works."""

    async def stop(self) -> None:
        """End what ``start`` began."""

    async def submit(self, rest: Rest, gang: Gang) -> None:
        """Write the objects of one gang."""

    async def withdraw(self, rest: Rest, gang: Gang) -> None:
        """Delete them."""

    async def verdict(self, rest: Rest, gang: Gang) -> str | None:
        """What it says to users of a gang that does not fit; None as long as it says nothing."""

    def processes(self) -> dict[str, int]:
        """Name -> process id of those that are not part of the cluster."""


class Drakkar:
    """The operator of this checkout, as a process of its own."""

    name = "drakkar"
    atomic = True

    def __init__(self, folder: Path, profile: Path | None = None) -> None:
        self._folder = folder
        self._profile = profile
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self, rest: Rest, cluster: Cluster) -> None:
        for file in sorted((ROOT / "charts" / "drakkar" / "crds").glob("*.yaml")):
            crd = yaml.safe_load(file.read_text())
            path = (
                f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{crd['metadata']['name']}"
            )
            await rest.patch(path, crd, "apply", {"fieldManager": "bench", "force": "true"})
        await until(lambda: _served(rest), 60, "the kinds are served")
        # The API server works for some seconds on what new kinds mean to its clients.
        await asyncio.sleep(5.0)
        profiled = ["-m", "cProfile", "-o", str(self._profile)] if self._profile else []
        command = [
            *(sys.executable, "-P", *profiled, "-m", "drakkar_operator"),
            *(f"--kubeconfig={cluster.kubeconfig}", f"--namespace={NAMESPACE}", "--port=0"),
            *(f"--namespaces={NAMESPACE}", "--host=127.0.0.1", "--worker-image=none"),
            *(f"--qps={QPS}", "--lease-seconds=15"),
        ]
        log = (self._folder / "operator.log").open("wb")
        self._process = subprocess.Popen(command, stdout=log, stderr=log)  # noqa: ASYNC220
        await until(self._working, 60, f"the operator works ({self._folder}/operator.log)")

    async def _working(self) -> bool:
        return '"working"' in (self._folder / "operator.log").read_text()

    async def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(self._process.wait, 30)

    async def submit(self, rest: Rest, gang: Gang) -> None:
        template = pod_template(gang)
        spec: Object = {"replicas": gang.pods, "runtime": "plain", "template": template}
        if gang.level:
            spec["topology"] = {"required": gang.level}
        body = {
            "apiVersion": API_VERSION,
            "kind": "TrainingJob",
            "metadata": {"name": gang.name, "namespace": NAMESPACE},
            "spec": spec,
        }
        await rest.post(paths.training_jobs(NAMESPACE), body)

    async def withdraw(self, rest: Rest, gang: Gang) -> None:
        await rest.delete(paths.training_job(NAMESPACE, gang.name))

    async def verdict(self, rest: Rest, gang: Gang) -> str | None:
        found = await rest.get(paths.training_job(NAMESPACE, gang.name))
        reason: str | None = (found.get("status") or {}).get("pendingReason")
        return reason

    def processes(self) -> dict[str, int]:
        return {"operator": self._process.pid} if self._process else {}


class Plain:
    """kube-scheduler with pods as they are: no gangs, no topology. The floor of all others."""

    name = "kube-scheduler"
    atomic = False

    async def start(self, rest: Rest, cluster: Cluster) -> None:
        pass

    async def stop(self) -> None:
        pass

    async def submit(self, rest: Rest, gang: Gang) -> None:
        async def create(replica: int) -> None:
            pod = pod_template(gang)
            pod["metadata"]["name"] = f"{gang.name}-{replica}"
            await rest.post(paths.pods(NAMESPACE), {"apiVersion": "v1", "kind": "Pod", **pod})

        await gather(create(replica) for replica in range(gang.pods))

    async def withdraw(self, rest: Rest, gang: Gang) -> None:
        async def remove(replica: int) -> None:
            path = f"{paths.pods(NAMESPACE)}/{gang.name}-{replica}"
            await rest.delete(path, {"gracePeriodSeconds": 0})

        await gather(remove(replica) for replica in range(gang.pods))

    async def verdict(self, rest: Rest, gang: Gang) -> str | None:
        found = await rest.get(
            paths.pods(NAMESPACE), {"labelSelector": f"{LABEL_GANG}={gang.name}"}
        )
        for pod in found["items"]:
            for condition in pod["status"].get("conditions") or ():
                if condition["type"] == "PodScheduled" and condition["status"] == "False":
                    return str(condition["message"])
        return None

    def processes(self) -> dict[str, int]:
        return {}


@dataclass
class Manifests:
    """Any other scheduler, by its own manifests in a folder named after it.

    ``install.yaml`` is applied first (its images must be there). ``gang.yaml`` is written once per
    gang, ``pod.yaml`` once per pod; in them $name, $replica, $pods, $gpus, $level and $seconds stand
    for the gang's, and pods carry the label bench.drakkar.dev/gang. Either of the two may be absent.
    ``ready.txt`` names the Deployments to wait for, NAMESPACE/NAME in each line.
    """

    folder: Path
    atomic: bool = True
    name: str = field(init=False)

    def __post_init__(self) -> None:
        self.name = self.folder.name

    async def start(self, rest: Rest, cluster: Cluster) -> None:
        kubectl = [str(cluster.program("kubectl")), f"--kubeconfig={cluster.kubeconfig}"]
        apply = [*kubectl, "apply", "--server-side", "--force-conflicts", "-f"]
        file = self.folder / "install.yaml"
        await asyncio.to_thread(subprocess.run, [*apply, str(file)], check=True)
        ready = self.folder / "ready.txt"
        for line in ready.read_text().split() if ready.exists() else ():
            namespace, _, name = line.partition("/")
            wait = ["rollout", "status", f"deployment/{name}", "-n", namespace, "--timeout=300s"]
            await asyncio.to_thread(subprocess.run, [*kubectl, *wait], check=True)

    async def stop(self) -> None:
        """It stays installed: bring up a fresh cluster for the next contender."""

    async def submit(self, rest: Rest, gang: Gang) -> None:
        for item in self._objects("gang.yaml", gang):
            await rest.post(_collection(item), item)
        pods = [p for at in range(gang.pods) for p in self._objects("pod.yaml", gang, at)]
        await gather(rest.post(_collection(item), item) for item in pods)

    async def withdraw(self, rest: Rest, gang: Gang) -> None:
        pods = [p for at in range(gang.pods) for p in self._objects("pod.yaml", gang, at)]
        for item in [*self._objects("gang.yaml", gang), *pods]:
            await rest.delete(f"{_collection(item)}/{item['metadata']['name']}")

    async def verdict(self, rest: Rest, gang: Gang) -> str | None:
        return await Plain().verdict(rest, gang)

    def processes(self) -> dict[str, int]:
        """Its pods run in containers, whose CPU shows as the cluster's own."""
        return {}

    def _objects(self, file: str, gang: Gang, replica: int = 0) -> list[Object]:
        path = self.folder / file
        if not path.exists():
            return []
        values = {
            "name": gang.name,
            "replica": replica,
            "pods": gang.pods,
            "gpus": gang.gpus,
            "level": gang.level or "",
            "seconds": gang.seconds or 0,
        }
        return list(yaml.safe_load_all(string.Template(path.read_text()).substitute(values)))


def _collection(item: Object) -> str:
    """Path of an object's collection in the benchmark's namespace; plurals end in s."""
    group, _, version = str(item["apiVersion"]).rpartition("/")
    root = f"/apis/{group}/{version}" if group else f"/api/{version}"
    return f"{root}/namespaces/{NAMESPACE}/{str(item['kind']).lower()}s"


async def _served(rest: Rest) -> bool:
    try:
        await rest.get(paths.training_jobs(NAMESPACE))
        await rest.get(paths.QUEUES)
        await rest.get(paths.TOPOLOGIES)
    except ApiError:
        return False
    return True


async def until(true: Any, seconds: float, what: str) -> None:
    """Wait for an awaitable condition. Raises TimeoutError that says for what."""
    deadline = time.monotonic() + seconds
    while not await true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:.0f} s: {what}")
        await asyncio.sleep(0.1)


async def gather(calls: Any, at_once: int = 32) -> None:
    """Await many calls, so many at a time."""
    pending: Iterator[Any] = iter(calls)

    async def work() -> None:
        for call in pending:
            await call

    await asyncio.gather(*(work() for _ in range(at_once)))


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
