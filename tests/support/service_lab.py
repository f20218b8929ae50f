"""InferenceServices on the real cluster: a tiny model on the lab's volume, asked as users ask."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai

from drakkar.constants import API_VERSION, GROUP, LABEL_ROLE, LABEL_SERVICE, ROUTER_ROLE, VERSION
from drakkar.local.images import DRAKKAR_IMAGE
from drakkar.local.kubeapi import KubeApi
from drakkar.local.runtime import RUNTIME_CLASS, python_in_pods
from support.lab import Lab, Object
from support.processes import in_pod
from support.tiny_models import save_tiny

RESOURCES: Object = {"requests": {"cpu": "250m", "memory": "512Mi"}}
MODEL: Object = {"pvc": {"claimName": "runs", "path": "tiny"}}


def program(text: str) -> Object:
    """Parts of a spec whose servers are this Python program."""
    command = [python_in_pods(), "-c", text]
    return {
        "runtime": {"name": "custom", "image": DRAKKAR_IMAGE, "command": command},
        "template": {"spec": {"runtimeClassName": RUNTIME_CLASS}},
    }


class ServiceLab:
    """A Lab whose volume holds a model with random weights, in the folder tiny."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.services = f"/apis/{GROUP}/{VERSION}/namespaces/{lab.namespace}/inferenceservices"
        folder: Path = lab.until(self._folder, 60, "the volume is bound")
        folder.mkdir(parents=True, exist_ok=True)
        save_tiny("llama", folder)
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)

    def _folder(self) -> Path | None:
        try:
            return self.lab.folder("tiny")
        except KeyError:
            # The claim has no volume yet.
            return None

    def submit(self, name: str, **spec: Any) -> None:
        """Create an InferenceService of the tiny model."""
        body = {
            "apiVersion": API_VERSION,
            "kind": "InferenceService",
            "metadata": {"name": name, "namespace": self.lab.namespace},
            "spec": {"model": MODEL, "resources": RESOURCES, **spec},
        }
        assert self.lab.api.create(self.services, body), f"{name} exists already"

    def change(self, name: str, **spec: Any) -> None:
        """Change parts of its spec, as kubectl patch does."""
        self.lab.api.patch(f"{self.services}/{name}", {"spec": spec})

    def status(self, name: str) -> Object:
        """What the operator says of it."""
        found: Object = self.lab.api.get(f"{self.services}/{name}").get("status") or {}
        return found

    def until(
        self, name: str, true: Callable[[Object], Any], what: str, seconds: float = 240
    ) -> Any:
        """Wait for the status to be so."""
        try:
            return self.lab.until(lambda: true(self.status(name)), seconds, what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{name}: {self.status(name)}") from None

    def ready(self, name: str, replicas: int = 1) -> None:
        """Wait until so many replicas answer."""
        self.until(
            name,
            lambda status: (
                condition(status, "Ready") == "True" and status.get("readyReplicas") == replicas
            ),
            f"{name} has {replicas} ready replicas",
        )

    def client(self, name: str, **options: Any) -> openai.OpenAI:
        """OpenAI's client, by way of the API server's proxy to the service."""
        # Closed with the process: the client needs it for as long as it lives.
        api = KubeApi(self.lab.cluster.kubeconfig, timeout_seconds=240)
        where = f"/api/v1/namespaces/{self.lab.namespace}/services/{name}:http/proxy/v1"
        return openai.OpenAI(
            base_url=str(api._client.base_url).rstrip("/") + where,
            api_key="unused",
            http_client=api._client,
            max_retries=0,
            **options,
        )

    def servers(self, name: str) -> list[Object]:
        """The pods of its replicas."""
        return self.lab.api.list(
            self.lab.pods_path,
            labelSelector=f"{LABEL_SERVICE}={name},app.kubernetes.io/name=inferenceservice",
        )

    def kill_engines(self, name: str) -> int:
        """kill -9 the processes of all its servers; returns how many there were."""
        return self._kill(self.servers(name))

    def kill_routers(self, name: str) -> int:
        """kill -9 all its routers; returns how many there were."""
        labels = f"{LABEL_SERVICE}={name},{LABEL_ROLE}={ROUTER_ROLE}"
        return self._kill(self.lab.api.list(self.lab.pods_path, labelSelector=labels))

    def _kill(self, pods: list[Object]) -> int:
        pids = [
            pid
            for pod in pods
            for pid in in_pod(pod["metadata"]["uid"], command="drakkar_workers.serve")
        ]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        return len(pids)

    @contextmanager
    def load(self, name: str, clients: int) -> Iterator["Tally"]:
        """So many clients that ask all the time."""
        tally, stop = Tally(), threading.Event()

        def ask() -> None:
            client = self.client(name)
            while not stop.is_set():
                tally.ask(client, name)

        threads = [threading.Thread(target=ask, daemon=True) for _ in range(clients)]
        for thread in threads:
            thread.start()
        try:
            yield tally
        finally:
            stop.set()
            for thread in threads:
                thread.join(timeout=240)


class Tally:
    """How requests ended."""

    def __init__(self) -> None:
        self.whole = 0
        self.errors: list[str] = []
        """What clients were told."""
        self.broken: list[str] = []
        """Connections that ended in the midst of an answer, or could not be made."""
        self.silent: list[str] = []
        """Streams that ended without a last word."""

    def ask(self, client: openai.OpenAI, name: str, tokens: int = 48) -> None:
        """One streamed completion, all of it."""
        reason, count = None, 0
        try:
            stream = client.completions.create(
                model=name, prompt="In the beginning", max_tokens=tokens, stream=True,
                extra_body={"ignore_eos": True},
            )  # fmt: skip
            for event in stream:
                count += 1
                reason = event.choices[0].finish_reason or reason
        except (openai.APIConnectionError, httpx.TransportError) as error:
            self.broken.append(f"{type(error).__name__}: {error}"[:300])
            return
        except openai.APIError as error:
            self.errors.append(f"{type(error).__name__}: {error}"[:300])
            return
        if reason is None:
            self.silent.append(f"ended after {count} events")
        else:
            self.whole += 1


def condition(status: Object, kind: str) -> str | None:
    """Status of a condition."""
    return next((c["status"] for c in status.get("conditions", ()) if c["type"] == kind), None)
