"""The operator dies and the API server goes away; jobs take no notice."""

import itertools
import json
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from drakkar.local import ClusterError
from support.lab import Lab, pretrain
from support.platform import Platform

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

DEATHS = 20


class Witness:
    """Watches a job's pods from the API server's own stream, and notes what must never be."""

    def __init__(self, lab: Lab, job: str) -> None:
        self.lab = lab
        self.job = job
        self.created: dict[str, str] = {}
        self.live: dict[str, set[str]] = {}
        self.twins: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @contextmanager
    def watching(self) -> Iterator["Witness"]:
        """Watch while the block runs."""
        self._thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            self._thread.join(timeout=20)

    def _run(self) -> None:
        version = "0"
        while not self._stop.is_set():
            try:
                for event in self.lab.api.watch(self.lab.pods_path, version, seconds=3):
                    if event["type"] == "ERROR":
                        version = "0"
                        break
                    version = event["object"]["metadata"]["resourceVersion"]
                    if event["type"] != "BOOKMARK":
                        self._see(event["type"], event["object"])
                    if self._stop.is_set():
                        return
            except (httpx.HTTPError, ClusterError, json.JSONDecodeError):
                time.sleep(0.5)

    def _see(self, kind: str, pod: dict[str, object]) -> None:
        metadata, status = pod["metadata"], pod["status"]
        assert isinstance(metadata, dict)
        assert isinstance(status, dict)
        labels = metadata.get("labels", {})
        if labels.get("drakkar.dev/job") != self.job:
            return
        replica, uid = labels["drakkar.dev/replica"], metadata["uid"]
        live = self.live.setdefault(replica, set())
        if kind == "DELETED" or status.get("phase") in ("Succeeded", "Failed"):
            live.discard(uid)
        else:
            live.add(uid)
        if len(live) > 1:
            self.twins.append(f"replica {replica}: {sorted(live)}")
        self.created[uid] = metadata["name"]


def test_the_operator_may_be_killed_at_any_time(lab: Lab, platform: Platform) -> None:
    """It dies again and again, at random times of jobs' lives, from before they are placed on."""
    dice = random.Random(7)
    deaths = 0
    for number in itertools.count():
        if deaths >= DEATHS:
            break
        name = f"gpt-{number}"
        witness = Witness(lab, name)
        with witness.watching():
            lab.submit(name, replicas=4, recipe=pretrain(steps=100))
            deadline = time.monotonic() + 240
            while lab.status(name).get("phase") != "Complete":
                assert time.monotonic() < deadline, lab.describe()
                assert lab.status(name).get("phase") != "Failed", lab.describe()
                if deaths < DEATHS:
                    deaths += platform.kill() > 0
                    if deaths % 4 == 3 and lab.status(name).get("phase") == "Running":
                        lab.delete_pod(f"{name}-1")
                    # Some live to lead and work, others don't get that far.
                    time.sleep(dice.uniform(0.5, 14.0))
        status = lab.status(name)
        assert status["restartCount"] == 0
        assert status["progress"]["step"] == 100
        assert witness.twins == []
        assert len(witness.created) >= 4, "the witness saw too little"
        lab.delete(name)


def test_an_absent_api_server_stops_no_training(lab: Lab) -> None:
    lab.submit("gpt", replicas=4, recipe=pretrain(steps=150, batchSize=64, sequenceLength=128))
    lab.step("gpt", 12)
    witness = Witness(lab, "gpt")
    with witness.watching():
        lab.cluster.apiserver.restart()
        time.sleep(2)
        folder = lab.folder("gpt")
        reached = lab.history("gpt", folder)[-1]["step"]
        lab.cluster.apiserver.stop()
        try:
            time.sleep(30)
            after = lab.history("gpt", folder)[-1]["step"]
        finally:
            lab.cluster.apiserver.start()
        assert after > reached, "the training stopped with the API server"
        status = lab.phase("gpt", "Complete", seconds=240)
    assert status["restarts"] == []
    assert witness.twins == []
    assert len(witness.created) == 4
    steps = [record["step"] for record in lab.history("gpt")]
    assert steps == list(range(1, 151))
