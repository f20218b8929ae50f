"""The informers of everything that decisions need besides the jobs themselves."""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from drakkar.constants import DEFAULT_LEVELS
from drakkar.kube.informer import Informer
from drakkar.kube.rest import Object, Rest
from drakkar_operator.cluster import paths, project
from drakkar_operator.cluster.project import Priority
from drakkar_operator.metrics import Metrics
from drakkar_operator.model import NodeView, PodView, QueueView

Levels = tuple[tuple[str, str], ...]


class QueueEntry(NamedTuple):
    """A Queue and what its status says now."""

    view: QueueView
    status: Mapping[str, Any]
    generation: int = 0
    recent: Mapping[str, float] = {}
    """What it used lately on average, as of ``recent_time``, epoch seconds."""
    recent_time: float | None = None


class TopologyEntry(NamedTuple):
    """A Topology and what its status says now."""

    levels: Levels
    status: Mapping[str, Any]


def _topology_entry(raw: Object) -> TopologyEntry:
    return TopologyEntry(project.topology_levels(raw), raw.get("status") or {})


def _queue_entry(raw: Object) -> QueueEntry:
    status = raw.get("status") or {}
    recent, at = project.recent_use(status)
    generation = int(raw["metadata"].get("generation") or 0)
    return QueueEntry(project.queue(raw), status, generation, recent, at)


class Caches:
    """Pods of all jobs and of others (they take room too), nodes, queues, topologies, priorities."""

    def __init__(
        self,
        rest: Rest,
        metrics: Metrics,
        *,
        watch_seconds: float = 120.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        def informer(path: str, projection: Any) -> Informer[Any]:
            return Informer(
                rest,
                path,
                projection,
                metrics=metrics,
                watch_seconds=watch_seconds,
                clock=clock,
            )

        self.pods: Informer[PodView] = informer(paths.PODS, project.pod)
        self.nodes: Informer[NodeView] = informer(paths.NODES, project.node)
        self.queues: Informer[QueueEntry] = informer(paths.QUEUES, _queue_entry)
        self.topologies: Informer[TopologyEntry] = informer(paths.TOPOLOGIES, _topology_entry)
        self.priorities: Informer[Priority] = informer(paths.PRIORITY_CLASSES, project.priority)
        self._by_job: dict[str, dict[tuple[str, str], PodView]] = {}
        self._by_service: dict[str, dict[tuple[str, str], PodView]] = {}
        self.pods.subscribe(self._index)

    @property
    def informers(self) -> tuple[Informer[Any], ...]:
        """All of them."""
        return (self.pods, self.nodes, self.queues, self.topologies, self.priorities)

    @property
    def levels(self) -> Levels:
        """Topology levels, widest first: of the first Topology by name, else the default ones."""
        if not self.topologies.items:
            return DEFAULT_LEVELS
        return self.topologies.items[min(self.topologies.items)].levels

    @property
    def synced(self) -> bool:
        """Whether every informer has completed a first list."""
        return all(informer.synced.is_set() for informer in self.informers)

    async def wait_synced(self) -> None:
        """Return when ``synced``."""
        await asyncio.gather(*(informer.synced.wait() for informer in self.informers))

    def pods_of(self, uid: str) -> tuple[PodView, ...]:
        """Pods that carry this job UID as their label, by namespace and name."""
        found = self._by_job.get(uid)
        return tuple(found[name] for name in sorted(found)) if found else ()

    def pods_of_service(self, uid: str) -> tuple[PodView, ...]:
        """Pods that carry this InferenceService's UID, servers and routers, by namespace and name."""
        found = self._by_service.get(uid)
        return tuple(found[name] for name in sorted(found)) if found else ()

    def priority_of(self, class_name: str | None) -> int:
        """Value of a PriorityClass, or of the default one; 0 if there is none."""
        if class_name is not None:
            return self.priorities.items.get(class_name, Priority(0)).value
        return max((p.value for p in self.priorities.items.values() if p.default), default=0)

    def preempts(self, class_name: str | None) -> bool:
        """Whether a PriorityClass lets its jobs displace others; without one they may."""
        return class_name is None or self.priorities.items.get(class_name, Priority(0)).preempts

    def _index(self, old: PodView | None, new: PodView | None) -> None:
        _move(self._by_job, old, new, lambda pod: pod.job_uid)
        _move(self._by_service, old, new, lambda pod: pod.serving.uid if pod.serving else None)


def _move(
    index: dict[str, dict[tuple[str, str], PodView]],
    old: PodView | None,
    new: PodView | None,
    uid_of: Callable[[PodView], str | None],
) -> None:
    """Keep an index of pods up to date with one that changed."""
    before = uid_of(old) if old is not None else None
    after = uid_of(new) if new is not None else None
    if old is not None and before and before != after:
        pods = index.get(before, {})
        pods.pop((old.namespace, old.name), None)
        if not pods:
            index.pop(before, None)
    if new is not None and after:
        index.setdefault(after, {})[new.namespace, new.name] = new
