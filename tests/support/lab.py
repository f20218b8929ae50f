"""A namespace on the real cluster to try jobs in: submit, watch, hurt, look at what is left."""

import json
import math
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from drakkar.constants import API_VERSION, GROUP, LABEL_JOB, VERSION
from drakkar.local import Cluster, ClusterError
from drakkar.local.install import NAMESPACE
from drakkar.local.kubeapi import KubeApi
from drakkar.local.paths import data_folder
from drakkar.quantity import amount
from drakkar_operator.render.resources import pod_requests
from support.processes import in_pod

Object = dict[str, Any]

SMALL_MODEL = {"layers": 3, "hidden": 96, "heads": 4}
"""Learns visibly in seconds on a shared core."""

PLAIN: Object = {"runtime": "plain", "faultTolerance": {"maxRestarts": 0}}
"""Of a job whose pods run without an agent, and never again."""


def pretrain(steps: int, **config: Any) -> Object:
    """A recipe of so many steps of a tiny model."""
    settings = {
        "model": SMALL_MODEL,
        "steps": steps,
        "batchSize": 16,
        "sequenceLength": 64,
        "learningRate": 6e-3,
        "minLearningRate": 6e-4,
        "warmupSteps": min(10, steps),
        "evalEvery": max(steps // 4, 1),
        "evalBatches": 4,
        "sampleTokens": 40,
        **config,
    }
    return {"name": "pretrain", "config": settings}


def sleeper(seconds: float, cpu: str = "100m") -> Object:
    """A pod template that does nothing for a while and succeeds."""
    command = ["/bin/sh", "-c", f"trap 'exit 0' TERM; sleep {seconds} & wait $!"]
    resources = {"requests": {"cpu": cpu, "memory": "16Mi"}}
    container = {"name": "trainer", "command": command, "resources": resources}
    return {"spec": {"containers": [container], "terminationGracePeriodSeconds": 5}}


class Lab:
    """A namespace that enforces the restricted Pod Security Standard, with a checkpoint volume."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.api = KubeApi(cluster.kubeconfig, timeout_seconds=30)
        self.jobs = f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/trainingjobs"
        self.pods_path = f"/api/v1/namespaces/{namespace}/pods"
        self._shared: list[str] = []
        """Paths of the objects outside the namespace that are to be cleared away."""

    def open(self) -> None:
        """Create the namespace and its volume; one left by an earlier run is waited out."""
        path = f"/api/v1/namespaces/{self.namespace}"
        self.until(lambda: self.api.find(path) is None, 120, f"an old {self.namespace} is gone")
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        name = self.namespace
        self.api.create(
            "/api/v1/namespaces",
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}},
        )
        self.api.create(
            f"/api/v1/namespaces/{name}/persistentvolumeclaims",
            {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": "runs", "namespace": name},
                "spec": {
                    "accessModes": ["ReadWriteMany"],
                    "resources": {"requests": {"storage": "1Gi"}},
                },
            },
        )

    def close(self) -> None:
        """Delete the namespace with all that is in it, and wait until its pods are gone."""
        self.api.delete(f"/api/v1/namespaces/{self.namespace}")
        self.until(lambda: not self.api.list(self.pods_path), 120, "the pods are gone")
        for path in self._shared:
            self.api.delete(path)
        self.api.close()

    def submit(self, name: str, **spec: Any) -> None:
        """Create a TrainingJob; with a recipe it checkpoints to the lab's volume."""
        if "recipe" in spec:
            storage = {"storage": {"persistentVolumeClaim": {"claimName": "runs"}}}
            spec["checkpoint"] = {"everySteps": 10, **storage, **spec.get("checkpoint", {})}
            spec.setdefault("resources", {"requests": {"cpu": "250m", "memory": "512Mi"}})
        job = {
            "apiVersion": API_VERSION,
            "kind": "TrainingJob",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": spec,
        }
        assert self.api.create(self.jobs, job), f"a job named {name} exists already"

    def queue(self, name: str, **spec: Any) -> str:
        """Create a Queue for this lab alone; returns its full name."""
        body = {"apiVersion": API_VERSION, "kind": "Queue", "spec": spec}
        return self._share(f"/apis/{GROUP}/{VERSION}/queues", name, body)

    def priority(self, name: str, value: int) -> str:
        """Create a PriorityClass for this lab alone; returns its full name."""
        body = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "value": value}
        return self._share("/apis/scheduling.k8s.io/v1/priorityclasses", name, body)

    def _share(self, collection: str, name: str, body: Object) -> str:
        full = f"{self.namespace[-40:].strip('-')}-{name}"
        self.api.delete(f"{collection}/{full}")
        assert self.api.create(collection, {**body, "metadata": {"name": full}})
        self.clear_away(f"{collection}/{full}")
        return full

    def clear_away(self, path: str) -> None:
        """Delete this object outside the namespace when the lab is closed."""
        self._shared.append(path)

    def job(self, name: str) -> Object:
        """The job as it is now."""
        return self.api.get(f"{self.jobs}/{name}")

    def status(self, name: str) -> Object:
        """Its status, empty before the operator has seen it."""
        status: Object = self.job(name).get("status") or {}
        return status

    def delete(self, name: str) -> None:
        """Delete a job and wait until its pods are gone."""
        self.api.delete(f"{self.jobs}/{name}")
        self.until(lambda: not self.pods(name), 60, f"pods of {name} are gone")

    def pods(self, job: str) -> list[Object]:
        """Pods of a job, in order of replica."""
        found = self.api.list(self.pods_path, labelSelector=f"{LABEL_JOB}={job}")
        return sorted(found, key=lambda pod: str(pod["metadata"]["name"]))

    def pod(self, name: str) -> Object:
        """A pod by name."""
        return self.api.get(f"{self.pods_path}/{name}")

    def free_cpu(self) -> dict[str, int]:
        """Millicores left per node."""
        free = {
            node["metadata"]["name"]: amount("cpu", node["status"]["allocatable"]["cpu"])
            for node in self.api.list("/api/v1/nodes")
            if not node["spec"].get("taints")
        }
        for pod in self.api.list("/api/v1/pods"):
            node = pod["spec"].get("nodeName")
            if node in free and pod["status"].get("phase") not in ("Succeeded", "Failed"):
                free[node] -= pod_requests(pod["spec"]).get("cpu", 0)
        return free

    def operator_pods(self) -> list[Object]:
        """Pods of Drakkar itself."""
        return self.api.list(f"/api/v1/namespaces/{NAMESPACE}/pods")

    def delete_pod(self, name: str) -> None:
        """Delete a pod as kubectl does."""
        self.api.delete(f"{self.pods_path}/{name}")

    def until(self, true: Callable[[], Any], seconds: float, what: str) -> Any:
        """Wait for something; what the API server refuses while it restarts is asked again."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                if result := true():
                    return result
            except (httpx.HTTPError, ClusterError):
                pass
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {seconds:.0f} s: {what}\n{self.describe()}")
            time.sleep(0.3)

    def phase(self, name: str, *phases: str, seconds: float = 180) -> Object:
        """Wait until the job is in one of these phases; a failed job stops the wait."""

        def reached() -> Object | None:
            status = self.status(name)
            phase = status.get("phase")
            if phase == "Failed" and "Failed" not in phases:
                raise AssertionError(f"{name} failed\n{self.describe()}")
            return status if phase in phases else None

        found: Object = self.until(reached, seconds, f"{name} is {' or '.join(phases)}")
        return found

    def suspend(self, name: str) -> None:
        """Suspend a job and wait until its spec may be changed: all its pods are gone."""
        self.api.patch(f"{self.jobs}/{name}", {"spec": {"suspend": True}})

        def suspended() -> bool:
            conditions = self.status(name).get("conditions", ())
            return any(c["type"] == "Suspended" and c["status"] == "True" for c in conditions)

        self.until(suspended, 120, f"{name} is suspended")
        self.until(lambda: not self.pods(name), 60, f"the pods of {name} are gone")

    def step(self, name: str, at_least: int, seconds: float = 120) -> int:
        """Wait until the job's status shows a step."""

        def reached() -> int:
            progress = self.status(name).get("progress") or {}
            step = int(progress.get("step", -1))
            return step if step >= at_least else 0

        return int(self.until(reached, seconds, f"{name} is at step {at_least}"))

    def describe(self) -> str:
        """Jobs, pods and the last log lines, for the message of a failed test."""
        lines = []
        try:
            lines += [
                f"{job['metadata']['name']}: {json.dumps(job.get('status'))[:3000]}"
                for job in self.api.list(self.jobs)
            ]
            for pod in self.api.list(self.pods_path):
                status = pod["status"]
                name = pod["metadata"]["name"]
                states = [c.get("state") for c in status.get("containerStatuses", ())]
                lines.append(
                    f"{name} {status.get('phase')} {status.get('reason', '')} "
                    f"{pod['spec'].get('nodeName')} {json.dumps(states)[:400]}"
                )
                lines.append(self.log(name, tail=8))
        except (httpx.HTTPError, ClusterError) as error:
            lines.append(f"(no more: {error})")
        return "\n".join(lines)

    def log(self, pod: str, tail: int = 200) -> str:
        """The end of a pod's log."""
        response = self.api._client.get(
            f"{self.pods_path}/{pod}/log", params={"tailLines": str(tail)}, timeout=10
        )
        return response.text

    def folder(self, job: str) -> Path:
        """The job's checkpoint folder, as it lies on this machine."""
        claim = self.api.get(f"/api/v1/namespaces/{self.namespace}/persistentvolumeclaims/runs")
        volume = self.api.get(f"/api/v1/persistentvolumes/{claim['spec']['volumeName']}")
        return Path(volume["spec"]["hostPath"]["path"]) / job

    def history(self, job: str, folder: Path | None = None) -> list[Object]:
        """Every step that rank 0 ever made, in the order it made them."""
        lines = ((folder or self.folder(job)) / "metrics.jsonl").read_text().splitlines()
        return [record for line in lines if "loss" in (record := json.loads(line))]

    def trainers(self, pod: str) -> list[int]:
        """Process ids of a pod's trainer processes; the agent names them rank-N."""
        return in_pod(self.pod(pod)["metadata"]["uid"], name="rank-")

    def kill_trainer(self, pod: str) -> int:
        """kill -9 one trainer process of a pod."""
        victim = self.until(lambda: self.trainers(pod), 30, f"{pod} has a trainer")[0]
        os.kill(victim, signal.SIGKILL)
        return int(victim)


def unigram_entropy(held_out: float = 0.05, data_set: str = "bible-kjv") -> float:
    """Nats per byte of the held-out end of a text for a model that knows byte frequencies alone."""
    text = (data_folder() / f"{data_set}.txt").read_bytes()
    split = len(text) - int(len(text) * held_out)
    known, unknown = Counter(text[:split]), Counter(text[split:])
    total = split + 256
    return sum(n * -math.log((known[b] + 1) / total) for b, n in unknown.items()) / len(
        text[split:]
    )
