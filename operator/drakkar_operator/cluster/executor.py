"""Does what a plan asks for: the only module that writes to the cluster on behalf of jobs.

Every write is preceded by a look at the leadership, repeated after transient errors (each is safe
to repeat) and bound to the very object that was judged, by UID or resourceVersion. Answers go
straight into the stores, so that the next plan sees them whatever the watches' delay.
"""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import structlog

from drakkar.constants import API_VERSION, FIELD_MANAGER, LABEL_JOB_UID, LABEL_REPLICA
from drakkar.kube.rest import ApiError, Object, Rest
from drakkar.kube.store import Store, object_key
from drakkar.v1alpha1.trainingjob import TrainingJobStatus
from drakkar_operator.cluster import paths
from drakkar_operator.cluster.limits import TokenBucket, retrying
from drakkar_operator.cluster.project import epoch
from drakkar_operator.cluster.recorder import Recorder, Reference
from drakkar_operator.metrics import Metrics
from drakkar_operator.model import JobView, PodView
from drakkar_operator.reconcile.actions import (
    Action,
    CreatePod,
    DeleteJob,
    DeletePod,
    EnsureService,
    RecordEvent,
)
from drakkar_operator.reconcile.observed import CreationError
from drakkar_operator.render.pods import training_pod
from drakkar_operator.render.services import headless
from drakkar_operator.render.settings import WorkerSettings

R = TypeVar("R")
_MANAGER = {"fieldManager": FIELD_MANAGER}
_PERMANENT = (400, 422)
OVERDUE_SECONDS = 30.0
"""How long a pod may outlast the end of its grace period before nobody is believed to end it."""
log = structlog.get_logger(__name__)


class OutdatedError(Exception):
    """The job changed since it was looked at: look again, nothing is wrong."""


class RefusedError(Exception):
    """Something that the gang needs can't be created now."""

    def __init__(self, message: str, *, permanent: bool) -> None:
        super().__init__(message)
        self.error = CreationError(message[:1024], permanent)


@dataclass(frozen=True, slots=True)
class Limits:
    """How hard the API server may be pressed."""

    parallel: int = 32
    """Writes under way at once."""
    rate: float = 1000.0
    """Writes per second."""
    attempts: int = 5


class Executor:
    """``check`` raises NotLeaderError when this process must not write."""

    def __init__(
        self,
        rest: Rest,
        *,
        check: Callable[[], None],
        pods: Store[PodView],
        jobs: Store[JobView],
        recorder: Recorder,
        metrics: Metrics,
        worker: WorkerSettings,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rest = rest
        self._check = check
        self._pods = pods
        self._jobs = jobs
        self._recorder = recorder
        self._metrics = metrics
        self._worker = worker
        self._limits = limits or Limits()
        self._slots = asyncio.Semaphore(self._limits.parallel)
        self._bucket = TokenBucket(self._limits.rate, self._limits.rate, clock=clock)

    async def write_status(self, job: JobView, status: TrainingJobStatus) -> JobView:
        """Make this the job's status and return the job as it is then.

        Nothing is sent if nothing changed. Raises OutdatedError if the job has changed or is gone, then
        the store holds its current state; ApiError; NotLeaderError.
        """
        wanted = status.wire()
        if wanted == (job.raw.get("status") or {}):
            return job
        body = with_status(job.raw, "TrainingJob", wanted)
        path = paths.training_job(job.namespace, job.name)
        try:
            raw = await self.send("PUT", f"{path}/status", body)
        except ApiError as error:
            if error.status not in (404, 409):
                raise
            await self.refresh(job)
            raise OutdatedError(f"{job.namespace}/{job.name}") from error
        self._jobs.upsert(raw)
        return self._jobs.items.get(object_key(raw), job)

    async def apply(self, job: JobView, actions: Sequence[Action], *, pinned: bool) -> None:
        """Carry out the actions; equal kinds in a row go in parallel.

        Raises RefusedError, ApiError or NotLeaderError after the actions of that kind are through.
        """
        for kind, group in itertools.groupby(actions, type):
            if kind is RecordEvent:
                for action in group:
                    assert isinstance(action, RecordEvent)
                    self.record(job, action)
                continue
            outcomes = await asyncio.gather(
                *(self._do(job, action, pinned) for action in group), return_exceptions=True
            )
            errors = [o for o in outcomes if isinstance(o, BaseException)]
            if errors:
                # The one that says most: a refusal over a lost connection.
                raise next((e for e in errors if isinstance(e, RefusedError)), errors[0])

    def record(self, job: JobView, event: RecordEvent) -> None:
        """Tell the user of a transition of the job."""
        about = Reference(API_VERSION, "TrainingJob", job.namespace, job.name, job.uid)
        self._recorder.record(about, event.type, event.reason, event.message)

    async def _do(self, job: JobView, action: Action, pinned: bool) -> None:
        match action:
            case EnsureService():
                await self._ensure_service(job)
            case CreatePod():
                await self._create_pod(job, action, pinned)
            case DeletePod():
                await self.delete_pod(job.namespace, action)
            case DeleteJob():
                await self._delete_job(job)

    async def _ensure_service(self, job: JobView) -> None:
        body = headless(job)
        collection = paths.services(job.namespace)
        try:
            await self._write(lambda: self._rest.post(collection, body, _MANAGER))
            return
        except ApiError as error:
            if error.status != 409:
                raise refused(error, f"service {body['metadata']['name']}") from error
        path = f"{collection}/{body['metadata']['name']}"
        found = await self.find(path)
        if found is not None and label_of(found, LABEL_JOB_UID) == job.uid:
            return
        if found is not None and _of_namesake(found, job):
            await self._clear_away(path, found)
            await self._write(lambda: self._rest.post(collection, body, _MANAGER))
            return
        raise self._taken(job, "Service", body["metadata"]["name"], found)

    async def _create_pod(self, job: JobView, action: CreatePod, pinned: bool) -> None:
        body = training_pod(job, action.replica, action.node, self._worker, pinned=pinned)
        collection = paths.pods(job.namespace)
        name = body["metadata"]["name"]
        try:
            raw = await self._write(lambda: self._rest.post(collection, body, _MANAGER))
        except ApiError as error:
            if error.status != 409:
                raise refused(error, f"pod {name}") from error
            found = await self.find(f"{collection}/{name}")
            if found is not None and (
                label_of(found, LABEL_JOB_UID) == job.uid
                and label_of(found, LABEL_REPLICA) == str(action.replica)
            ):
                # Created by a try whose answer was lost, or by the leader before us; or it is
                # still going away, and its deletion will wake the job.
                self._pods.upsert(found)
                return
            if found is not None and _of_namesake(found, job):
                due = found["metadata"].get("deletionTimestamp")
                if due is None:
                    await self._clear_away(f"{collection}/{name}", found)
                elif time.time() > epoch(due) + OVERDUE_SECONDS:
                    # No kubelet finishes this; its job, which would force it, is gone.
                    await self._clear_away(f"{collection}/{name}", found, force=True)
                message = f"pod {name} of the job that had this name before is going away"
                raise RefusedError(message, permanent=False) from error
            raise self._taken(job, "Pod", name, found) from error
        self._pods.upsert(raw)
        self._metrics.pods_created.inc()

    async def delete_pod(self, namespace: str, action: DeletePod) -> None:
        """Delete a pod; that it is gone already is well, too. Raises ApiError, NotLeaderError."""
        key = f"{namespace}/{action.name}"
        body: Object = {"preconditions": {"uid": action.uid}}
        if action.grace_seconds is not None:
            body["gracePeriodSeconds"] = action.grace_seconds
        path = f"{paths.pods(namespace)}/{action.name}"
        try:
            raw = await self._write(lambda: self._rest.delete(path, body))
        except ApiError as error:
            if error.status not in (404, 409):
                raise
            # Gone, or a pod of that name with another UID is there: either way this one is gone.
            self._pods.delete(key, action.uid)
            return
        self._metrics.pods_deleted.inc()
        if raw.get("kind") == "Pod" and action.grace_seconds != 0:
            self._pods.upsert(raw)

    async def _delete_job(self, job: JobView) -> None:
        body = {"preconditions": {"uid": job.uid}, "propagationPolicy": "Background"}
        path = paths.training_job(job.namespace, job.name)
        try:
            await self._write(lambda: self._rest.delete(path, body))
        except ApiError as error:
            if error.status not in (404, 409):
                raise

    async def refresh(self, job: JobView) -> None:
        """Read a job anew into the store. Raises ApiError."""
        found = await self.find(paths.training_job(job.namespace, job.name))
        if found is None or found["metadata"]["uid"] != job.uid:
            self._jobs.delete(f"{job.namespace}/{job.name}", job.uid)
        if found is not None:
            self._jobs.upsert(found)

    async def _clear_away(self, path: str, raw: Object, *, force: bool = False) -> None:
        """Delete what the garbage collector has not got to yet."""
        body: Object = {"preconditions": {"uid": raw["metadata"]["uid"]}}
        if force:
            body["gracePeriodSeconds"] = 0
        try:
            await self._write(lambda: self._rest.delete(path, body))
        except ApiError as error:
            if error.status not in (404, 409):
                raise

    async def send(self, verb: Literal["POST", "PUT", "PATCH"], path: str, body: Object) -> Object:
        """Create, replace or patch an object as the operator; returns it as stored. Raises ApiError."""
        match verb:
            case "POST":
                return await self._write(lambda: self._rest.post(path, body, _MANAGER))
            case "PUT":
                return await self._write(lambda: self._rest.put(path, body, _MANAGER))
            case "PATCH":
                return await self._write(lambda: self._rest.patch(path, body, params=_MANAGER))

    def saw_pod(self, raw: Object) -> None:
        """Take a pod that a write answered with, so that the next look sees it."""
        self._pods.upsert(raw)

    async def find(self, path: str) -> Object | None:
        """Read an object; None if there is none. Raises ApiError."""
        try:
            return await retrying(lambda: self._rest.get(path), attempts=self._limits.attempts)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def _write(self, call: Callable[[], Awaitable[R]]) -> R:
        async def guarded() -> R:
            async with self._slots:
                await self._bucket.take()
                self._check()
                return await call()

        return await retrying(guarded, attempts=self._limits.attempts)

    def _taken(self, job: JobView, kind: str, name: str, found: Object | None) -> RefusedError:
        if found is None:
            return RefusedError(f"{kind} {name} was there and went away", permanent=False)
        message = (
            f"{kind} {job.namespace}/{name} exists and does not belong to this job"
            f"{_owner(found)}; delete it or give the job another name"
        )
        self.record(job, RecordEvent("Warning", "NameTaken", message))
        return RefusedError(message, permanent=False)


def with_status(raw: Mapping[str, Any], kind: str, status: Object) -> Object:
    """What to replace the status of an object by; the API server takes nothing else from it.

    A merge patch costs the server a tenth more: it writes the whole object as JSON, patches that and
    reads it.
    """
    kept = ("namespace", "name", "uid", "resourceVersion")
    metadata = {name: raw["metadata"][name] for name in kept}
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "status": status}


def refused(error: ApiError, what: str) -> Exception:
    """A refusal that the user must hear of, or the error itself if it is the server's trouble."""
    if error.transient or error.status in (401, 404):
        return error
    return RefusedError(f"{what}: {error.message}", permanent=error.status in _PERMANENT)


def label_of(raw: Object, name: str) -> str | None:
    """A label of an object."""
    labels: dict[str, str] = raw["metadata"].get("labels") or {}
    return labels.get(name)


def _of_namesake(raw: Object, job: JobView) -> bool:
    """Whether an object belonged to a job of this name that is gone: names are unique."""
    return any(
        owner["kind"] == "TrainingJob" and owner["name"] == job.name and owner["uid"] != job.uid
        for owner in raw["metadata"].get("ownerReferences") or ()
    )


def _owner(raw: Object) -> str:
    owners: list[dict[str, Any]] = raw["metadata"].get("ownerReferences") or []
    return f" (it is owned by {owners[0]['kind']} {owners[0]['name']})" if owners else ""
