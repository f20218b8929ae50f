"""Drakkar's predicates and kube-scheduler's filters agree on every pod and node.

Each random pod may go to one node only. Drakkar says whether it fits, then a real kube-scheduler is
asked by creating the pod: it binds it or calls it unschedulable. Pods for different nodes don't
touch each other, so as many are asked about at once as there are nodes.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime

import pytest

from drakkar.constants import DEFAULT_LEVELS
from drakkar.kube.connection import load_connection
from drakkar.kube.rest import ApiError, Object, Rest
from drakkar.local import Cluster
from drakkar_operator.cluster import paths, project
from drakkar_operator.render.resources import pod_requests
from drakkar_operator.scheduling.decision import Placed
from drakkar_operator.scheduling.placement import place
from drakkar_operator.scheduling.request import GangRequest, rules_of_pod
from drakkar_operator.scheduling.snapshot import Snapshot
from support.odd_pods import odd_node, odd_pod

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

NAMESPACE = "kube-scheduler-test"
PODS = paths.pods(NAMESPACE)
NODES = 16
ROUNDS = 25
"""Pods that each node is asked about."""
PATIENCE_SECONDS = 30.0
_TAINTS_OF_CONTROLLERS = "node.kubernetes.io/"


class Ground:
    """A namespace, random nodes, and what kube-scheduler says of pods."""

    def __init__(self, rest: Rest, seed: int) -> None:
        self.rest = rest
        self.chance = random.Random(seed)
        self.names = [f"odd-{seed}-{at}" for at in range(NODES)]
        self.raw: dict[str, Object] = {}
        """Pods as the watch has them."""
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Create the nodes and wait until the controllers have taken note of them."""
        space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
        with contextlib.suppress(ApiError):
            await self.rest.post("/api/v1/namespaces", space)
        await self.rest.delete(PODS, {"gracePeriodSeconds": 0})
        for name in self.names:
            body = odd_node(name, self.chance)
            await self.rest.post(paths.NODES, body)
            await self.rest.patch(f"{paths.NODES}/{name}/status", {"status": body["status"]})
        version = (await self.rest.get(PODS))["metadata"]["resourceVersion"]
        self._tasks = [
            asyncio.create_task(self._keep_nodes()),
            asyncio.create_task(self._watch(version)),
        ]
        async with asyncio.timeout(60):
            while not all(map(_settled, await self.nodes())):
                await asyncio.sleep(0.2)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.rest.delete(PODS, {"gracePeriodSeconds": 0})
        for name in self.names:
            with contextlib.suppress(ApiError):
                await self.rest.delete(f"{paths.NODES}/{name}")

    async def nodes(self) -> list[Object]:
        """The nodes as the API server holds them."""
        return [await self.rest.get(f"{paths.NODES}/{name}") for name in self.names]

    async def create(self, pod: Object) -> Object | None:
        """The pod as stored, None if the API server finds it invalid."""
        try:
            return await self.rest.post(PODS, pod)
        except ApiError as error:
            if error.status != 422:
                raise
            return None

    async def remove(self, name: str) -> None:
        await self.rest.delete(f"{PODS}/{name}", {"gracePeriodSeconds": 0})
        self.raw.pop(name, None)

    async def fate(self, name: str, expected: bool) -> str | None:
        """The node that the pod was bound to; None if it was found unschedulable.

        One that is expected to be bound is given time: what was deleted just before may be seen late.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE_SECONDS
        refused: float | None = None
        while True:
            self._changed.clear()
            pod = self.raw.get(name) or {}
            if node := pod.get("spec", {}).get("nodeName"):
                return str(node)
            if _unschedulable(pod):
                refused = refused or loop.time()
                if not expected or loop.time() > refused + 5.0:
                    return None
            assert loop.time() < deadline, f"kube-scheduler says nothing of {name}"
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), 0.5)

    async def _watch(self, version: str) -> None:
        while True:
            query = {"resourceVersion": version}
            with contextlib.suppress(ApiError):
                async with aclosing(self.rest.watch(PODS, query, silence=300)) as stream:
                    async for event in stream:
                        raw = event["object"]
                        version = raw["metadata"]["resourceVersion"]
                        if event["type"] == "DELETED":
                            self.raw.pop(raw["metadata"]["name"], None)
                        else:
                            self.raw[raw["metadata"]["name"]] = raw
                        self._changed.set()

    async def _keep_nodes(self) -> None:
        """Heartbeats, without which the node controller would give the nodes up."""
        while True:
            now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
            ready = {"type": "Ready", "status": "True", "lastHeartbeatTime": now}
            for name in self.names:
                with contextlib.suppress(ApiError):
                    await self.rest.patch(
                        f"{paths.NODES}/{name}/status",
                        {"status": {"conditions": [ready]}},
                        kind="strategic",
                    )
            await asyncio.sleep(2.0)


def _settled(node: Object) -> bool:
    """The controllers' own taints are there exactly if the node is cordoned."""
    found = [
        taint
        for taint in node["spec"].get("taints") or ()
        if taint["key"].startswith(_TAINTS_OF_CONTROLLERS)
    ]
    cordoned = [{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]
    without_times = [{k: v for k, v in taint.items() if k != "timeAdded"} for taint in found]
    return without_times == (cordoned if node["spec"].get("unschedulable") else [])


def _unschedulable(pod: Object) -> bool:
    return any(
        condition["type"] == "PodScheduled" and condition.get("reason") == "Unschedulable"
        for condition in pod.get("status", {}).get("conditions") or ()
    )


def tolerates_cordons(pod: Object) -> bool:
    """kube-scheduler puts such pods on cordoned nodes; Drakkar never does, on purpose."""
    return any(
        not toleration.get("key") and toleration.get("effect") in (None, "NoSchedule")
        for toleration in pod["spec"].get("tolerations") or ()
    )


def fits(nodes: list[Object], bound: list[Object], pod: Object, on: str) -> bool:
    """Drakkar's verdict, by the same way as for a gang."""
    snapshot = Snapshot.build(map(project.node, nodes), map(project.pod, bound), (), DEFAULT_LEVELS)
    spec = pod["spec"]
    request = GangRequest.fresh(("t", "t"), 1, pod_requests(spec), **rules_of_pod(spec))
    answer = place(snapshot, request)
    return isinstance(answer, Placed) and answer.nodes[0] == on


@pytest.fixture
async def rest(cluster: Cluster) -> AsyncIterator[Rest]:
    rest = Rest(await load_connection(str(cluster.kubeconfig)))
    yield rest
    await rest.close()


@pytest.mark.parametrize("seed", [1, 2])
async def test_both_say_the_same_of_every_pod_and_node(rest: Rest, seed: int) -> None:
    ground = Ground(rest, seed)
    try:
        await ground.open()
        nodes = await ground.nodes()
        asked = bound = 0
        for turn in range(ROUNDS):
            held = [pod for pod in ground.raw.values() if pod["spec"].get("nodeName")]
            wanted: dict[str, tuple[Object, bool]] = {}
            for node in nodes:
                on = node["metadata"]["name"]
                pod = odd_pod(f"p{seed}-{turn}-{on}", on, ground.names, ground.chance)
                if node["spec"].get("unschedulable") and tolerates_cordons(pod):
                    continue
                stored = await ground.create(pod)
                if stored is not None:
                    # As stored: with the defaults that count, such as the ports of a host network.
                    wanted[stored["metadata"]["name"]] = stored, fits(nodes, held, stored, on)
            for name, (pod, expected) in wanted.items():
                found = await ground.fate(name, expected)
                assert (found is not None) == expected, _differ(name, pod, expected, nodes, held)
                asked += 1
                bound += found is not None
                # Most pods leave again, so that the nodes don't only fill up.
                if found is None or ground.chance.random() < 0.7:
                    await ground.remove(name)
            for name in [p["metadata"]["name"] for p in held if ground.chance.random() < 0.3]:
                await ground.remove(name)
        assert asked > ROUNDS * NODES / 2
        assert asked / 8 < bound < asked * 7 / 8, "both answers must be common to mean something"
    finally:
        await ground.close()


def _differ(name: str, pod: Object, expected: bool, nodes: list[Object], held: list[Object]) -> str:
    on = pod["spec"]["nodeSelector"]
    node = next(n for n in nodes if n["metadata"]["name"] in on.values())
    beside = [p["spec"] for p in held if p["spec"]["nodeName"] == node["metadata"]["name"]]
    verdict = "fits" if expected else "does not fit"
    return (
        f"{name}: Drakkar says that it {verdict}, kube-scheduler the opposite\n"
        f"pod: {pod['spec']}\nnode: {node['metadata']['labels']} {node['spec']} "
        f"{node['status']['allocatable']}\nbeside: {beside}"
    )
