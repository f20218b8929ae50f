"""Faults for a job on the local cluster: each is done, and undone where it would stay."""

import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from drakkar.constants import DEVICES_VARIABLE
from support.disk import Disk
from support.lab import Lab
from support.processes import environment

SECONDS = 240
"""For steps to follow a fault; most take a few."""
KINDS = (
    "process killed",
    "pod deleted",
    "node stopped",
    "network cut",
    "disk full",
    "disk slow",
    "checkpoint damaged",
    "rank stopped",
    "device broken",
)


@dataclass
class Chaos:
    """Faults over one job, one after the other, in the order that a seed gives."""

    lab: Lab
    disk: Disk
    job: str
    rng: random.Random
    done: list[tuple[str, float]] = field(default_factory=list)
    """Each fault with the seconds until steps followed that had not been made before."""
    _highest: int = 0

    def plan(self, count: int, kinds: Sequence[str] = KINDS) -> list[str]:
        """Each kind as often as any other, in random order; 0: each once."""
        possible = [kind for kind in kinds if self.disk.mounted or not kind.startswith("disk")]
        names: list[str] = []
        while len(names) < (count or len(possible)):
            names += self.rng.sample(possible, len(possible))
        return names[: count or None]

    def strike(self, kind: str) -> None:
        """Do it, see that it hurts, and wait until the job makes steps that it had not made before."""
        began = time.monotonic()
        act: Callable[[], None] = getattr(self, kind.replace(" ", "_"))
        act()
        self.until_beyond(self.reached() + 2, f"steps after: {kind}")
        self.done.append((kind, time.monotonic() - began))

    def until_beyond(self, step: int, what: str) -> None:
        """Wait until the job has passed a step. Raises AssertionError if it ends instead."""

        def reached() -> bool:
            phase = self.lab.status(self.job).get("phase")
            assert phase not in ("Complete", "Failed"), f"{phase} while waiting: {what}"
            return self.highest() > step

        self.lab.until(reached, SECONDS, f"{what}; done before: {self.done}")

    def highest(self) -> int:
        """The highest step that the job's status has ever shown."""
        progress = self.lab.status(self.job).get("progress") or {}
        self._highest = max(self._highest, int(progress.get("step", 0)))
        return self._highest

    def reached(self) -> int:
        """The newest step: the status lags a little behind what rank 0 writes, unless the disk is full."""
        return max(self.highest(), self.lab.history(self.job)[-1]["step"])

    # The faults

    def process_killed(self) -> None:
        victim = self.lab.kill_trainer(self.some_pod()["metadata"]["name"])
        self.until_gone(victim)

    def pod_deleted(self) -> None:
        pod = self.some_pod()
        self.lab.delete_pod(pod["metadata"]["name"])
        self.until_replaced([pod])

    def rank_stopped(self) -> None:
        """It stays so until its agent ends it."""
        name = self.some_pod()["metadata"]["name"]
        victim = self.lab.until(lambda: self.lab.trainers(name), 60, f"{name} has a trainer")[0]
        os.kill(victim, signal.SIGSTOP)
        self.until_gone(victim)

    def node_stopped(self) -> None:
        operators = {pod["spec"]["nodeName"] for pod in self.lab.operator_pods()}
        placed = self.lab.status(self.job)["placement"]["nodes"]
        name = self.rng.choice([node for node in placed if node not in operators])
        lost = [pod for pod in self.lab.pods(self.job) if pod["spec"].get("nodeName") == name]
        self.lab.cluster.node(name).stop()
        try:
            self.until_replaced(lost)
            self.until_beyond(self.reached() + 2, f"steps without {name}")
        finally:
            self.lab.cluster.node(name).start()
            self.disk.mount_on(name)

    def network_cut(self) -> None:
        """The pods of two nodes do not reach each other for a while; all else does."""
        one, other = self.rng.sample(self.running(2), 2)
        routes = [
            (one["spec"]["nodeName"], other["status"]["podIP"]),
            (other["spec"]["nodeName"], one["status"]["podIP"]),
        ]
        with ExitStack() as mended:
            for name, address in routes:
                node, route = self.lab.cluster.node(name), ("blackhole", f"{address}/32")
                node.run("ip", "route", "add", *route)
                mended.callback(node.run, "ip", "route", "del", *route)
            time.sleep(7)  # How long it lasts: longer than agents wait for each other.

    def disk_full(self) -> None:
        with self.disk.full():
            # Past the next save, which fails.
            self.until_beyond(self.highest() + 12, "training goes on without saves")

    def disk_slow(self) -> None:
        with self.disk.slow():
            time.sleep(4)  # How long it lasts: the training may go on meanwhile, or wait.

    def checkpoint_damaged(self) -> None:
        """The newest, while all memory is lost, so that storage is what is left."""
        folder = self.lab.folder(self.job)

        def enough() -> list[Path]:
            found = sorted(folder.glob("step-*"))
            return found if len(found) > 1 else []

        newest = self.lab.until(enough, SECONDS, "two checkpoints are published")[-1]
        victim = next(newest.glob("*.distcp"))
        content = bytearray(victim.read_bytes())
        content[len(content) // 2] ^= 0xFF
        victim.write_bytes(content)
        pods = self.lab.pods(self.job)
        for pod in pods:
            name = pod["metadata"]["name"]
            self.lab.api.delete(f"{self.lab.pods_path}/{name}?gracePeriodSeconds=0")
        self.until_replaced(pods)

    def device_broken(self) -> None:
        pod = self.some_pod()
        name = pod["metadata"]["name"]
        held = self.lab.until(
            lambda: environment(pod["metadata"]["uid"], DEVICES_VARIABLE), 60, f"{name} has devices"
        )
        node = self.lab.cluster.node(pod["spec"]["nodeName"])
        node.break_device(self.rng.choice(held.split(",")), "xid-79", message="off the bus")
        try:
            self.until_replaced([pod])
        finally:
            node.repair_devices()

    # Whom they hit

    def some_pod(self) -> dict[str, Any]:
        """A pod that runs."""
        return self.rng.choice(self.running(1))

    def running(self, count: int) -> Sequence[dict[str, Any]]:
        """The pods that run, once there are so many."""

        def found() -> list[dict[str, Any]]:
            pods = [
                pod
                for pod in self.lab.pods(self.job)
                if pod["status"].get("phase") == "Running"
                and pod["status"].get("podIP")
                and "deletionTimestamp" not in pod["metadata"]
            ]
            return pods if len(pods) >= count else []

        some: list[dict[str, Any]] = self.lab.until(found, 60, f"{count} pods run")
        return some

    def until_replaced(self, pods: Sequence[dict[str, Any]]) -> None:
        """Wait until none of these pods exists any more."""
        old = {pod["metadata"]["uid"] for pod in pods}
        self.lab.until(lambda: old.isdisjoint(self.uids()), SECONDS, f"pods {old} are replaced")

    def until_gone(self, pid: int) -> None:
        """Wait until a process has ended."""
        self.lab.until(lambda: not Path(f"/proc/{pid}").exists(), SECONDS, f"process {pid} ends")

    def uids(self) -> list[str]:
        """Of the job's pods."""
        return [pod["metadata"]["uid"] for pod in self.lab.pods(self.job)]
