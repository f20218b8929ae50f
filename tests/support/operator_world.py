"""Operators in memory and in virtual time: start, kill, cut off and replace them at will."""

import asyncio
import itertools
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from drakkar.kube.rest import ApiError, Object
from drakkar_operator.app import Core
from drakkar_operator.cluster.jobs import Jobs
from drakkar_operator.cluster.services import Services
from drakkar_operator.metrics import Metrics
from drakkar_operator.settings import Settings
from support.fake_kube import JOBS, FakeKube, Kubelet, MemoryRest, node

EPOCH = 1_800_000_000.0
_names = itertools.count()


def now() -> float:
    return asyncio.get_running_loop().time()


class Process:
    """One operator process."""

    def __init__(self, kube: FakeKube, **settings: Any) -> None:
        self.rest, self.lease_rest = MemoryRest(kube), MemoryRest(kube)
        self.core = Core(
            Settings(identity=f"operator-{next(_names)}", **settings),
            self.rest,
            self.lease_rest,
            Metrics(),
            clock=now,
            wall=lambda: EPOCH + now(),
        )
        self.kube = kube
        self.stop = asyncio.Event()
        self.task = asyncio.create_task(
            self.core.run(
                self.stop,
                self._watch("trainingjobs", self.core.jobs),
                self._watch("inferenceservices", self.core.services),
            )
        )

    async def _watch(self, plural: str, store: Jobs | Services) -> None:
        """What kopf does in a real process."""
        path = f"/apis/drakkar.dev/v1alpha1/{plural}"
        while True:
            try:
                await store.resync()
                version = str(self.kube.version)
                async for event in self.rest.watch(path, {"resourceVersion": version}, silence=1e9):
                    if event["type"] in ("ADDED", "MODIFIED", "DELETED"):
                        store.take(event["type"], event["object"])
            except ApiError:
                await asyncio.sleep(1)

    async def kill(self) -> None:
        """End without a word: the Lease is kept, nothing is finished."""

        async def dead(*_: object, **__: object) -> None:
            await asyncio.Event().wait()

        self.rest._call = self.lease_rest._call = dead  # type: ignore[method-assign, assignment]
        self.core.leader._lease = None
        self.core.recorder._queue = asyncio.Queue()
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def terminate(self) -> None:
        """SIGTERM."""
        self.stop.set()
        await self.task


class World:
    """A cluster with nodes and kubelets."""

    def __init__(self, nodes: int = 4, **labels: str) -> None:
        self.kube = FakeKube()
        self.kubelet = Kubelet(self.kube)
        for i in range(nodes):
            self.kube.put("nodes", node(f"n{i}", **labels))
        self._kubelet_task = asyncio.create_task(self.kubelet.run())

    async def close(self) -> None:
        self._kubelet_task.cancel()
        with suppress(asyncio.CancelledError):
            await self._kubelet_task

    def job(self, name: str) -> Object:
        return self.kube.get(JOBS, name)

    def status(self, name: str) -> Object:
        status: Object = self.job(name).get("status") or {}
        return status

    def phase(self, name: str) -> str | None:
        return self.status(name).get("phase")

    def pods(self, name: str) -> list[Object]:
        return [
            pod
            for pod in self.kube.all("pods")
            if pod["metadata"]["labels"].get("drakkar.dev/job") == name
        ]

    async def until(
        self, condition: Callable[[], Any], seconds: float = 120.0, every: float = 0.1
    ) -> None:
        """Wait in virtual time; fails with the jobs' statuses if it takes too long."""
        end = now() + seconds
        while not condition():
            if now() > end:
                statuses = [(j["metadata"]["name"], j.get("status")) for j in self.kube.all(JOBS)]
                raise AssertionError(f"not within {seconds} s: {statuses}")
            await asyncio.sleep(every)
