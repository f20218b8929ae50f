"""Live state: copies of what the cluster holds, kept by list and watch, and who wants to know."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import structlog

from drakkar.constants import API_VERSION, DEFAULT_LEVELS
from drakkar.kube.informer import Informer
from drakkar.kube.rest import ApiError, Object, Rest
from drakkar_server.cluster import views
from drakkar_server.cluster.pulse import Pulse
from drakkar_server.cluster.views import JobView, Level, NodeView, PodView, QueueView, ServiceView
from drakkar_server.metrics import Metrics

API: Final = f"/apis/{API_VERSION}"
SERVICES: Final = "inferenceservices"
OPTIONAL_SECONDS: Final = 20.0
"""How often a kind that the cluster lacks is looked for."""
log = structlog.get_logger(__name__)
DEFAULT_TOPOLOGY: Final = tuple(Level(name, label) for name, label in DEFAULT_LEVELS)


class Subscription:
    """Keys of what changed since it was last asked. A slow reader gets fewer, newer answers: what
    waits is bounded by the number of objects."""

    def __init__(self, key: str | None) -> None:
        self.key = key
        self._changed: dict[tuple[str, str], None] = {}
        self._event = asyncio.Event()

    def offer(self, kind: str, key: str) -> None:
        """Something changed; what has no key concerns all."""
        if self.key is None or self.key == key or not key:
            self._changed[kind, key] = None
            self._event.set()

    async def changes(self, seconds: float) -> list[tuple[str, str]]:
        """(kind, key) of what changed, waiting so long for the first; none: nothing did."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._event.wait(), seconds)
        self._event.clear()
        changed = list(self._changed)
        self._changed.clear()
        return changed


class Live:
    """The informers. ``run`` keeps them until cancelled."""

    def __init__(
        self,
        rest: Rest,
        metrics: Metrics,
        *,
        watch_seconds: float = 120.0,
        on_job: Callable[[Object], None] = lambda _: None,
    ) -> None:
        self._rest = rest
        self._subscriptions: set[Subscription] = set()

        def informer(path: str, project: Callable[[Object], Any]) -> Informer[Any]:
            return Informer(rest, path, project, metrics=metrics, watch_seconds=watch_seconds)

        def job(raw: Object) -> JobView:
            view = views.job(raw)
            # Lists need little of a job; history takes the rest while it is at hand.
            on_job(raw)
            return view

        self.jobs: Informer[JobView] = informer(f"{API}/trainingjobs", job)
        self.queues: Informer[QueueView] = informer(f"{API}/queues", views.queue)
        self.topologies: Informer[tuple[Level, ...]] = informer(f"{API}/topologies", views.topology)
        self.nodes: Informer[NodeView] = informer("/api/v1/nodes", views.node)
        self.pods: Informer[PodView] = informer("/api/v1/pods", views.pod)
        self.services: Informer[ServiceView] = informer(f"{API}/{SERVICES}", views.service)
        self.pulse = Pulse(rest, self._tell_pulse)
        self.has_services = False
        """Whether the cluster has the kind InferenceService."""
        self._pods_of_jobs: dict[str, dict[str, PodView]] = {}
        self._pods_of_nodes: dict[str, dict[str, PodView]] = {}
        self.pods.subscribe(self._index)
        self.jobs.subscribe(self._told("job", lambda view: view.key))
        self.services.subscribe(self._told("service", lambda view: view.key))
        self.queues.subscribe(self._told("queue", lambda view: view.name))
        self.nodes.subscribe(self._told("node", lambda view: view.name))

    @property
    def needed(self) -> tuple[Informer[Any], ...]:
        """Those without which the server is not ready."""
        return (self.jobs, self.queues, self.topologies, self.nodes, self.pods)

    @property
    def missing(self) -> list[str]:
        """What was never listed yet."""
        return [each.resource for each in self.needed if not each.synced.is_set()]

    def age(self) -> float:
        """Seconds since the informer that has been silent for longest gave a sign of life."""
        return max(each.age() for each in self.needed)

    @property
    def levels(self) -> tuple[Level, ...]:
        """Topology levels, widest first."""
        items = self.topologies.items
        return items[min(items)] if items else DEFAULT_TOPOLOGY

    @property
    def namespaces(self) -> set[str]:
        """Namespaces that hold jobs or services."""
        found = {view.namespace for view in self.jobs.items.values()}
        return found | {view.namespace for view in self.services.items.values()}

    def pods_of_job(self, key: str) -> list[PodView]:
        """Pods of a job, in order of replica."""
        found = self._pods_of_jobs.get(key, {}).values()
        return sorted(found, key=lambda pod: (pod.replica is None, pod.replica, pod.name))

    def pods_on(self, node: str) -> Iterable[PodView]:
        """Pods on a node."""
        return self._pods_of_nodes.get(node, {}).values()

    async def run(self) -> None:
        """Follow the cluster."""
        async with asyncio.TaskGroup() as group:
            for each in self.needed:
                group.create_task(each.run())
            group.create_task(self.pulse.run())
            group.create_task(self._follow_services())

    async def _follow_services(self) -> None:
        while not self.has_services:
            with suppress(ApiError):
                found = await self._rest.get(API)
                self.has_services = any(
                    item.get("name") == SERVICES for item in found.get("resources") or ()
                )
            if not self.has_services:
                await asyncio.sleep(OPTIONAL_SECONDS)
        await self.services.run()

    @asynccontextmanager
    async def subscribe(self, key: str | None = None) -> AsyncIterator[Subscription]:
        """Changes of one object by namespace/name or, without a key, of all."""
        subscription = Subscription(key)
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)

    @property
    def listeners(self) -> int:
        """Streams that follow changes."""
        return len(self._subscriptions)

    def _tell_pulse(self) -> None:
        for subscription in self._subscriptions:
            subscription.offer("cluster", "")

    def _told(self, kind: str, key: Callable[[Any], str]) -> Callable[[Any, Any], None]:
        def listener(old: Any, new: Any) -> None:
            name = key(new if new is not None else old)
            for subscription in self._subscriptions:
                subscription.offer(kind, name)

        return listener

    def _index(self, old: PodView | None, new: PodView | None) -> None:
        if old is not None:
            _drop(self._pods_of_nodes, old.node, f"{old.namespace}/{old.name}")
            if old.job:
                _drop(self._pods_of_jobs, f"{old.namespace}/{old.job}", old.name)
        if new is not None:
            if new.node:
                self._pods_of_nodes.setdefault(new.node, {})[f"{new.namespace}/{new.name}"] = new
            if new.job:
                self._pods_of_jobs.setdefault(f"{new.namespace}/{new.job}", {})[new.name] = new


def _drop(index: dict[str, dict[str, PodView]], key: str, name: str) -> None:
    found = index.get(key)
    if found is not None:
        found.pop(name, None)
        if not found:
            del index[key]
