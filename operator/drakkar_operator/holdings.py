"""What the jobs hold of the cluster, kept up to date as jobs and pods change.

Most gangs are whole for hours: only those of which there was news are looked at again.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import structlog

from drakkar_operator.cluster.caches import Caches
from drakkar_operator.cluster.gangs import Gangs
from drakkar_operator.model import JobView, PodView
from drakkar_operator.reconcile import conditions as cond
from drakkar_operator.reconcile.demand import (
    gang_request,
    leaving_gang,
    placed_request,
    running_gang,
)
from drakkar_operator.reconcile.places import shares_of
from drakkar_operator.scheduling.decision import Reservation, reservations
from drakkar_operator.scheduling.request import GangRequest
from drakkar_operator.scheduling.workload import Running

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Demand:
    """What a job takes; kept because rendering a pod is not free."""

    generation: int
    request: GangRequest | None
    job: JobView | None = None
    """The state of the job that ``running`` was made of."""
    running: Running | None = None


class Holdings:
    """Keys are "namespace/name"."""

    def __init__(
        self, jobs: Gangs, caches: Caches, *, clock: Callable[[], float] = time.time
    ) -> None:
        self.placed: dict[str, JobView] = {}
        """The jobs that hold a place."""
        self._jobs = jobs
        self._caches = caches
        self._clock = clock
        self._demands: dict[str, _Demand] = {}
        """By job UID."""
        self._may_reserve: set[str] = set()
        """Jobs of which some rank may have a place without a pod there."""
        self._may_leave: set[str] = set()
        """Jobs of which some pod may hold a place that is not its own."""
        jobs.subscribe(self._on_job)
        caches.pods.subscribe(self._on_pod)

    def __len__(self) -> int:
        """Jobs of which something is remembered."""
        return len(self._demands)

    def demand(self, job: JobView) -> GangRequest | None:
        """What the job asks for as if none of its ranks had a node; None if that is malformed."""
        known = self._demands.get(job.uid)
        if known is None or known.generation != job.generation:
            try:
                request = gang_request(job)
            except ValueError as error:
                log.warning("demand unknown", job="/".join(job.key), error=str(error))
                request = None
            known = self._demands[job.uid] = _Demand(job.generation, request)
        return known.request

    def running(self, job: JobView) -> Running | None:
        """A placed job as a gang; None if its request is malformed."""
        if self.demand(job) is None:
            return None
        priority = self._caches.priority_of(job.spec.priority_class_name)
        known = self._demands[job.uid]
        # Made anew for each state of the job: what is left to do was true when it was told.
        if known.job is not job or known.running is None or known.running.priority != priority:
            assert known.request is not None
            known.job = job
            known.running = running_gang(job, known.request, priority, self._clock())
        return known.running

    def leaving(self) -> Iterator[Running]:
        """What gangs still hold that gave up their places."""
        for key in sorted(self._may_leave):
            job = self._jobs.items.get(key)
            pods = self._caches.pods_of(job.uid) if job is not None else ()
            demand = self.demand(job) if job is not None and pods else None
            gang = leaving_gang(job, demand, pods) if job is not None and demand else None
            if gang is not None:
                yield gang
            else:
                self._may_leave.discard(key)

    def reservations(self, moving: Mapping[str, GangRequest]) -> Iterator[Reservation]:
        """Ranks that hold a place by decision but have no bound pod there.

        ``moving`` are the requests that wait: their missing ranks hold nothing.
        """
        for key in sorted(self._may_reserve):
            job = self.placed.get(key)
            place = job.status.placement if job is not None else None
            if job is None or place is None:
                self._may_reserve.discard(key)
                continue
            there = {
                pod.replica
                for pod in self._caches.pods_of(job.uid)
                if pod.replica is not None
                and pod.replica < len(place.nodes)
                and pod.node == place.nodes[pod.replica]
                and not pod.finished
            }
            if len(there) == len(place.nodes) and not place.spares:
                self._may_reserve.discard(key)
                continue
            demand = self.demand(job)
            if demand is None:
                continue
            lacking = set(moving[key].missing) if key in moving else set()
            absent = {
                replica: node
                for replica, node in enumerate([*place.nodes, *place.spares])
                if replica not in there and replica not in lacking
            }
            yield from reservations(placed_request(demand, place), absent, shares_of(place.shares))

    def _look_at(self, key: str) -> None:
        """What the job holds may be another than before."""
        self._may_reserve.add(key)
        self._may_leave.add(key)

    def _on_pod(self, old: PodView | None, new: PodView | None) -> None:
        for pod in (old, new):
            if pod is not None and pod.job:
                self._look_at(f"{pod.namespace}/{pod.job}")

    def _on_job(self, old: JobView | None, new: JobView | None) -> None:
        view = new or old
        assert view is not None
        key = "/".join(view.key)
        if new is None or new.status.placement is None or cond.finished(new.status.conditions):
            self.placed.pop(key, None)
        else:
            self.placed[key] = new
        if new is None and old is not None:
            self._demands.pop(old.uid, None)
        self._look_at(key)
