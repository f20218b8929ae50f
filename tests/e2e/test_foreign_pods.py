"""Gangs beside pods that are not Drakkar's, which take the same room at the same moment."""

import contextlib
import itertools
import random
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from drakkar.local import ClusterError
from support.lab import PLAIN, Lab, sleeper

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

GANGS = 4
STREAM_SECONDS = 20.0


class Foreigners:
    """Pods that are put on nodes without asking anybody, one after the other."""

    def __init__(self, lab: Lab, millicores: int) -> None:
        self._lab = lab
        self._millicores = millicores
        self._nodes = sorted(lab.free_cpu())
        self._chance = random.Random(7)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.created = 0

    @contextlib.contextmanager
    def coming(self) -> Iterator[None]:
        """They come while this lasts; those that are left go at its end."""
        self._thread.start()
        try:
            yield
        finally:
            self._stop.set()
            self._thread.join()

    def _run(self) -> None:
        for number in itertools.count():
            if self._stop.wait(0.15):
                return
            with contextlib.suppress(httpx.HTTPError, ClusterError):
                self._lab.api.create(self._lab.pods_path, self._pod(number))
                self.created += 1

    def _pod(self, number: int) -> dict[str, Any]:
        spec = sleeper(self._chance.choice((1, 2, 3)), cpu=f"{self._millicores}m")["spec"]
        container = {
            **spec["containers"][0],
            "image": "localhost/drakkar:dev",
            "imagePullPolicy": "Never",
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            },
        }
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"foreign-{number}", "labels": {"foreign": "yes"}},
            "spec": {
                "nodeName": self._chance.choice(self._nodes),
                "containers": [container],
                "restartPolicy": "Never",
                "runtimeClassName": "drakkar-local",
                "terminationGracePeriodSeconds": 1,
                "automountServiceAccountToken": False,
                "securityContext": {
                    "runAsNonRoot": True,
                    "runAsUser": 65532,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
            },
        }


def refused(pods: list[dict[str, Any]]) -> list[str]:
    """Pods that a kubelet did not admit."""
    return [
        pod["metadata"]["name"]
        for pod in pods
        if pod["status"].get("phase") == "Failed"
        and str(pod["status"].get("reason", "")).startswith("OutOf")
    ]


def test_gangs_come_through_a_stream_of_foreign_pods_whole_and_uncounted(lab: Lab) -> None:
    """A gang's pod that a kubelet refuses costs the gang nothing but another placement."""
    room = min(lab.free_cpu().values())
    foreign = Foreigners(lab, millicores=room // 2)
    with foreign.coming():
        end = time.monotonic() + STREAM_SECONDS
        for at in range(GANGS):
            # Two to a node at most, and so many that they meet the foreign ones.
            lab.submit(f"gang-{at}", replicas=4, template=sleeper(1, cpu=f"{room // 2}m"), **PLAIN)
            time.sleep(1.0)
        while time.monotonic() < end:
            time.sleep(0.2)
        met = refused(lab.api.list(lab.pods_path))
    assert foreign.created > 20
    assert met, "nobody was refused: the test has not tried what it is for"
    for at in range(GANGS):
        status = lab.phase(f"gang-{at}", "Complete", seconds=120)
        assert status.get("restartCount", 0) == 0, status["restarts"]
