"""The track on which contenders run: nodes, gangs to submit, and a watch that takes the times."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field

from drakkar.kube.connection import load_connection
from drakkar.kube.rest import ApiError, Object, Rest
from drakkar.local import Cluster
from drakkar.local.fake import fake_node, node_name
from drakkar.local.topology import BLOCK_LABEL, RACK_LABEL
from drakkar_operator.cluster import paths
from support.contenders import LABEL_GANG, NAMESPACE, Contender, Gang, cpu_seconds, gather, until

PODS = paths.pods(NAMESPACE)
MEASURED = ("kube-apiserver", "etcd", "kube-scheduler", "kwok")
"""Processes of the cluster whose CPU is told, besides the contender's own."""


@dataclass(frozen=True, slots=True)
class Row:
    """One figure."""

    workload: str
    what: str
    value: float
    lower: bool = False
    """Less is better."""


@dataclass
class Run:
    """What became of some gangs. Times in seconds since the first was submitted."""

    gangs: Sequence[Gang]
    started: float
    bound_at: dict[str, tuple[str, str, float]] = field(default_factory=dict)
    """Pod -> (gang, node, time)."""
    finished_at: dict[str, float] = field(default_factory=dict)
    used: dict[str, float] = field(default_factory=dict)
    """CPU seconds per process."""
    names: set[str] = field(init=False)

    def __post_init__(self) -> None:
        self.names = {gang.name for gang in self.gangs}

    @property
    def bound(self) -> float:
        """When the last pod was bound."""
        return max(at for _, _, at in self.bound_at.values())

    @property
    def finished(self) -> float:
        """When the last pod had succeeded."""
        return max(self.finished_at.values())

    @property
    def pods_per_second(self) -> float:
        return len(self.bound_at) / self.bound

    @property
    def gangs_per_second(self) -> float:
        return len(self.gangs) / self.bound

    def nodes(self, gang: str) -> list[str]:
        """Nodes of a gang's pods."""
        return [node for of, node, _ in self.bound_at.values() if of == gang]

    def cpu(self, workload: str) -> list[Row]:
        """What the run cost."""
        return [
            Row(workload, f"CPU s {name}", seconds, lower=True)
            for name, seconds in sorted(self.used.items())
        ]


class Track:
    """One contender on a cluster with fake nodes. Made by ``on``."""

    def __init__(self, cluster: Cluster, rest: Rest, contender: Contender) -> None:
        self.contender = contender
        self._cluster = cluster
        self._rest = rest
        self._run: Run | None = None
        self._alive: set[str] = set()
        self._changed = asyncio.Event()

    @classmethod
    @asynccontextmanager
    async def on(cls, cluster: Cluster, contender: Contender) -> AsyncIterator["Track"]:
        """Start the contender in an empty namespace; stop it at the end."""
        rest = Rest(await load_connection(str(cluster.kubeconfig)), connections=96)
        space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
        with suppress(ApiError):
            await rest.post("/api/v1/namespaces", space)
        track = cls(cluster, rest, contender)
        # What a run that was ended left behind.
        await track.clear()
        listed = await rest.get(PODS)
        watching = asyncio.create_task(track._watch(listed["metadata"]["resourceVersion"]))
        try:
            await contender.start(rest, cluster)
            yield track
        finally:
            await contender.stop()
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            await rest.close()

    async def nodes(
        self,
        count: int,
        *,
        rack: Callable[[int], str] | None = None,
        block: Callable[[int], str] | None = None,
    ) -> None:
        """Exactly so many ready fake nodes, in the racks and blocks given or the usual ones."""
        await asyncio.to_thread(self._cluster.set_fake_nodes, count)

        async def label(number: int) -> None:
            labels = dict(fake_node(number)["metadata"]["labels"])
            labels |= {RACK_LABEL: rack(number)} if rack else {}
            labels |= {BLOCK_LABEL: block(number)} if block else {}
            change = {"metadata": {"labels": labels}, "spec": {"unschedulable": None}}
            await self._rest.patch(f"{paths.NODES}/{node_name(number)}", change)

        await gather(label(number) for number in range(count))
        await until(lambda: self._ready(count), 120, f"{count} nodes are ready")
        # What the controllers have to do about new nodes is no contender's work.
        await asyncio.sleep(2.0)

    async def _ready(self, count: int) -> bool:
        found = await self._rest.get(paths.NODES, {"labelSelector": "type=kwok"})
        ready = [
            node
            for node in found["items"]
            if any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"].get("conditions") or ())
        ]  # fmt: skip
        return len(ready) == count

    def number(self, node: str) -> int:
        """The number of a fake node by its name."""
        return int(node.rpartition("-")[2])

    async def cordon(self, numbers: Iterable[int]) -> None:
        """Let no pods on these nodes."""
        for number in numbers:
            path = f"{paths.NODES}/{node_name(number)}"
            await self._rest.patch(path, {"spec": {"unschedulable": True}})

    async def run(
        self, gangs: Sequence[Gang], *, limit: float, finish: bool = False, keep: bool = False
    ) -> Run:
        """Submit gangs in order as fast as can be; returns when all pods are bound (``finish``: done).

        ``keep``: they stay afterwards. Raises TimeoutError after ``limit`` seconds.
        """
        pids = {
            **{n: p for n, p in self._cluster.processes().items() if n in MEASURED},
            **self.contender.processes(),
        }
        before = {name: cpu_seconds(pid) for name, pid in pids.items()}
        run = self._run = Run(gangs, time.monotonic())
        want = sum(gang.pods for gang in gangs)
        reached = run.finished_at if finish else run.bound_at
        await gather(self.contender.submit(self._rest, gang) for gang in gangs)
        deadline = time.monotonic() + limit
        while len(reached) < want:
            self._changed.clear()
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(reached)} of {want} pods after {limit:.0f} s")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), 1.0)
        run.used = {name: cpu_seconds(pid) - before[name] for name, pid in pids.items()}
        self._run = None
        if not keep:
            await self.clear()
        return run

    async def withdraw(self, gangs: Sequence[Gang]) -> None:
        """Delete gangs, and wait until their pods are gone."""
        await gather(self.contender.withdraw(self._rest, gang) for gang in gangs)
        names = {gang.name for gang in gangs}
        await until(lambda: self._gone(names), 300, "the pods are gone")

    async def clear(self) -> None:
        """Delete all that is left, in bulk."""
        with suppress(ApiError):
            await self._rest.delete(paths.training_jobs(NAMESPACE))
        await self._rest.delete(PODS, {"gracePeriodSeconds": 0})

        async def empty() -> bool:
            return not (await self._rest.get(PODS, {"limit": "1"}))["items"]

        await until(empty, 600, "the namespace is empty")

    async def _gone(self, gangs: set[str]) -> bool:
        return not any(name.rpartition("-")[0] in gangs for name in self._alive)

    async def verdict(self, gang: Gang, *, limit: float) -> tuple[float, str]:
        """(seconds until the contender says that the gang does not fit, what it says)."""
        await self.contender.submit(self._rest, gang)
        started = time.monotonic()
        while (text := await self.contender.verdict(self._rest, gang)) is None:
            if time.monotonic() - started > limit:
                raise TimeoutError(f"no verdict after {limit:.0f} s")
            await asyncio.sleep(0.01)
        return time.monotonic() - started, text

    async def bound(self, gang: str) -> list[str]:
        """Nodes that pods of a gang hold now."""
        found = await self._rest.get(PODS, {"labelSelector": f"{LABEL_GANG}={gang}"})
        return [p["spec"]["nodeName"] for p in found["items"] if p["spec"].get("nodeName")]

    async def _watch(self, version: str) -> None:
        """Note when pods are bound and finished."""
        while True:
            query = {"resourceVersion": version, "allowWatchBookmarks": "true"}
            with suppress(ApiError):
                async with aclosing(self._rest.watch(PODS, query, silence=600)) as stream:
                    async for event in stream:
                        version = event["object"]["metadata"]["resourceVersion"]
                        if event["type"] != "BOOKMARK":
                            self._take(event["type"], event["object"])
            await asyncio.sleep(0.1)

    def _take(self, kind: str, pod: Object) -> None:
        name = pod["metadata"]["name"]
        if kind == "DELETED":
            self._alive.discard(name)
            return
        self._alive.add(name)
        run, node = self._run, pod["spec"].get("nodeName")
        gang = pod["metadata"].get("labels", {}).get(LABEL_GANG, "")
        if run is None or node is None or gang not in run.names:
            return
        now = time.monotonic() - run.started
        if name not in run.bound_at:
            run.bound_at[name] = (gang, node, now)
            self._changed.set()
        if pod["status"].get("phase") == "Succeeded" and name not in run.finished_at:
            run.finished_at[name] = now
            self._changed.set()
