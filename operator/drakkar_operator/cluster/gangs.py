"""All gangs of the cluster in one place: TrainingJobs, and the replicas of InferenceServices.

The scheduler and the books of what is held work on these alone. What they write of a service's replica
goes to the status of its service.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Sequence

from drakkar.v1alpha1.trainingjob import TrainingJobStatus
from drakkar_operator.cluster.executor import Executor, OutdatedError
from drakkar_operator.cluster.jobs import Jobs
from drakkar_operator.cluster.service_executor import ServiceExecutor
from drakkar_operator.cluster.services import Services
from drakkar_operator.cluster.workqueue import WorkQueue
from drakkar_operator.model import JobView, ServiceView
from drakkar_operator.reconcile.actions import Action, RecordEvent
from drakkar_operator.reconcile.serving.members import gang, owner_key, with_answer

Listener = Callable[[JobView | None, JobView | None], None]


class Gangs:
    """``items`` by "namespace/name"; a replica's name is "service/index"."""

    def __init__(self, jobs: Jobs, services: Services) -> None:
        self.items: dict[str, JobView] = dict(jobs.items)
        self._members: dict[str, set[str]] = {}
        """Keys of a service's replicas."""
        self._listeners: list[Listener] = []
        jobs.subscribe(self._on_job)
        services.subscribe(self._on_service)

    def subscribe(self, listener: Listener) -> None:
        """Call ``listener(old, new)`` at each later change. It must be quick and must not raise."""
        self._listeners.append(listener)

    def _on_job(self, old: JobView | None, new: JobView | None) -> None:
        view = new or old
        assert view is not None
        self._set("/".join(view.key), old, new)

    def _on_service(self, old: ServiceView | None, new: ServiceView | None) -> None:
        service = new or old
        assert service is not None
        found: dict[str, JobView] = {}
        for member in new.status.members if new is not None else ():
            # What drains keeps its place until its pods are gone.
            job = gang(new, member) if new is not None else None
            if job is not None:
                found["/".join(job.key)] = job
        before = self._members.pop(service.key, set())
        for key in before - found.keys():
            self._set(key, self.items.get(key), None)
        for key, job in found.items():
            known = self.items.get(key)
            if known is not None and known.uid != job.uid:
                self._set(key, known, None)
                known = None
            if known != job:
                self._set(key, known, job)
        if found:
            self._members[service.key] = set(found)

    def _set(self, key: str, old: JobView | None, new: JobView | None) -> None:
        if new is None:
            self.items.pop(key, None)
        else:
            self.items[key] = new
        for listener in self._listeners:
            listener(old, new)


class GangQueue:
    """Asks for a look at a gang: at its job, or at its service."""

    def __init__(self, jobs: WorkQueue[str], services: WorkQueue[str]) -> None:
        self._jobs = jobs
        self._services = services

    def add(self, key: str, *, priority: int = 0) -> None:
        """As ``WorkQueue.add``."""
        owner = owner_key(key)
        if owner is None:
            self._jobs.add(key, priority=priority)
        else:
            self._services.add(owner, priority=priority)


class GangWriter:
    """Writes what the scheduler decides on a gang of either kind."""

    def __init__(
        self,
        executor: Executor,
        services: ServiceExecutor,
        store: Services,
        gangs: Gangs,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._executor = executor
        self._services = services
        self._store = store
        self._gangs = gangs
        self._clock = clock
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        """Per service: its replicas share a status, so their answers are written in turn."""

    async def write_status(self, job: JobView, status: TrainingJobStatus) -> JobView:
        """As ``Executor.write_status``."""
        owner = owner_key("/".join(job.key))
        if owner is None:
            return await self._executor.write_status(job, status)
        async with self._turns[owner]:
            key = "/".join(job.key)
            service, known = self._store.items.get(owner), self._gangs.items.get(key)
            if (
                service is None
                or known is None
                or (known.uid, known.status.placement) != (job.uid, job.status.placement)
            ):
                raise OutdatedError(key)
            member = job.name.rpartition("/")[2]
            answer = with_answer(service, member, status, self._clock())
            await self._services.write_status(service, answer)
            return self._gangs.items.get(key, job)

    async def apply(self, job: JobView, actions: Sequence[Action], *, pinned: bool) -> None:
        """Events of a replica are its service's; a job's actions are carried out."""
        owner = owner_key("/".join(job.key))
        if owner is None:
            await self._executor.apply(job, actions, pinned=pinned)
            return
        service = self._store.items.get(owner)
        for action in actions:
            if service is not None and isinstance(action, RecordEvent):
                member = job.name.rpartition("/")[2]
                message = f"replica {member}: {action.message}"
                event = RecordEvent(action.type, action.reason, message)
                self._services.record(service, event)

    async def refresh(self, job: JobView) -> None:
        """Read the gang's object anew. Raises ApiError."""
        owner = owner_key("/".join(job.key))
        service = self._store.items.get(owner) if owner is not None else None
        if owner is None:
            await self._executor.refresh(job)
        elif service is not None:
            await self._services.refresh(service)
