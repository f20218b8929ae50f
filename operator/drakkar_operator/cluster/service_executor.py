"""Does what a service's plan asks for: the only module that writes on behalf of InferenceServices.

As for jobs (``executor``), every write is preceded by a look at the leadership, repeated after transient
errors and bound to the very object that was judged.
"""

import asyncio
import itertools
import json
from collections.abc import Sequence
from typing import Any

import structlog

from drakkar.constants import API_VERSION, FIELD_MANAGER, LABEL_MEMBER, LABEL_REPLICA
from drakkar.kube.rest import ApiError, Object
from drakkar.kube.store import object_key
from drakkar.routing import digest
from drakkar.v1alpha1.inferenceservice import InferenceServiceStatus
from drakkar_operator.cluster import paths
from drakkar_operator.cluster.executor import (
    Executor,
    OutdatedError,
    RefusedError,
    label_of,
    refused,
    with_status,
)
from drakkar_operator.cluster.recorder import Recorder, Reference
from drakkar_operator.cluster.router_keys import RouterKeys
from drakkar_operator.cluster.services import Services
from drakkar_operator.model import ServiceView
from drakkar_operator.reconcile.actions import DeletePod, RecordEvent
from drakkar_operator.reconcile.serving.observed import CreateServer, EnsureObjects, ServiceAction
from drakkar_operator.reconcile.serving.revisions import spec_of
from drakkar_operator.render.serving.objects import objects
from drakkar_operator.render.serving.pods import server_pod
from drakkar_operator.render.settings import WorkerSettings

_MANAGER = {"fieldManager": FIELD_MANAGER}
log = structlog.get_logger(__name__)


class ServiceExecutor:
    """Writes through the jobs' executor, so that both share its limits."""

    def __init__(
        self,
        executor: Executor,
        services: Services,
        recorder: Recorder,
        keys: RouterKeys,
        worker: WorkerSettings,
    ) -> None:
        self._executor = executor
        self._services = services
        self._recorder = recorder
        self._keys = keys
        self._worker = worker
        self._applied: dict[str, str] = {}
        """Per service UID: what its objects were last made to be."""

    async def write_status(
        self, service: ServiceView, status: InferenceServiceStatus
    ) -> ServiceView:
        """As ``Executor.write_status``."""
        wanted = status.wire()
        if wanted == (service.raw.get("status") or {}):
            return service
        body = with_status(service.raw, "InferenceService", wanted)
        path = paths.inference_service(service.namespace, service.name)
        try:
            raw = await self._executor.send("PUT", f"{path}/status", body)
        except ApiError as error:
            if error.status not in (404, 409):
                raise
            await self.refresh(service)
            raise OutdatedError(service.key) from error
        self._services.upsert(raw)
        return self._services.items.get(object_key(raw), service)

    async def refresh(self, service: ServiceView) -> None:
        """Read a service anew into the store. Raises ApiError."""
        path = paths.inference_service(service.namespace, service.name)
        found = await self._executor.find(path)
        if found is None or found["metadata"]["uid"] != service.uid:
            self._services.delete(service.key, service.uid)
        if found is not None:
            self._services.upsert(found)

    async def apply(
        self, service: ServiceView, actions: Sequence[ServiceAction], *, pinned: bool
    ) -> None:
        """Carry out the actions; equal kinds in a row go in parallel.

        Raises RefusedError, ApiError or NotLeaderError after the actions of that kind are through.
        """
        for kind, group in itertools.groupby(actions, type):
            if kind is RecordEvent:
                for action in group:
                    assert isinstance(action, RecordEvent)
                    self.record(service, action)
                continue
            outcomes = await asyncio.gather(
                *(self._do(service, action, pinned) for action in group), return_exceptions=True
            )
            errors = [o for o in outcomes if isinstance(o, BaseException)]
            if errors:
                raise next((e for e in errors if isinstance(e, RefusedError)), errors[0])

    def record(self, service: ServiceView, event: RecordEvent) -> None:
        """Tell the user of a transition of the service."""
        about = Reference(
            API_VERSION, "InferenceService", service.namespace, service.name, service.uid
        )
        self._recorder.record(about, event.type, event.reason, event.message)

    def forget(self, uid: str) -> None:
        """The service is gone."""
        self._applied.pop(uid, None)

    async def _do(self, service: ServiceView, action: ServiceAction, pinned: bool) -> None:
        match action:
            case EnsureObjects():
                await self._ensure(service)
            case CreateServer():
                await self._create(service, action, pinned)
            case DeletePod():
                await self._executor.delete_pod(service.namespace, action)

    async def _ensure(self, service: ServiceView) -> None:
        """Create the service's objects, or bring them to what the spec says."""
        wanted = objects(service, self._worker, digest(self._keys.token(service.uid)))
        text = json.dumps(wanted, sort_keys=True)
        if self._applied.get(service.uid) == text:
            return
        for plural, body in wanted:
            await self._put(service, plural, body)
        self._applied[service.uid] = text

    async def _put(self, service: ServiceView, plural: str, body: Object) -> None:
        name, kind = body["metadata"]["name"], body["kind"]
        collection = paths.collection(body["apiVersion"], plural, service.namespace)
        try:
            await self._executor.send("POST", collection, body)
            return
        except ApiError as error:
            if error.status != 409:
                raise refused(error, f"{kind} {name}") from error
        found = await self._executor.find(f"{collection}/{name}")
        if found is None or not _owned(found, service):
            raise self._taken(service, kind, name, found)
        try:
            patch = {"spec": body["spec"], "metadata": {"labels": body["metadata"]["labels"]}}
            await self._executor.send("PATCH", f"{collection}/{name}", patch)
        except ApiError as error:
            raise refused(error, f"{kind} {name}") from error

    async def _create(self, service: ServiceView, action: CreateServer, pinned: bool) -> None:
        member = next((m for m in service.status.members if m.name == action.member), None)
        revision = next(
            (r for r in service.status.revisions if member and r.name == member.revision), None
        )
        if member is None or revision is None:
            raise OutdatedError(service.key)
        body = server_pod(
            service,
            spec_of(service.spec, revision),
            revision,
            action.member,
            action.rank,
            action.node,
            self._worker,
            pinned=pinned,
        )
        name, collection = body["metadata"]["name"], paths.pods(service.namespace)
        try:
            raw = await self._executor.send("POST", collection, body)
        except ApiError as error:
            if error.status != 409:
                raise refused(error, f"pod {name}") from error
            found = await self._executor.find(f"{collection}/{name}")
            ours = found is not None and (
                _owned(found, service)
                and label_of(found, LABEL_MEMBER) == action.member
                and label_of(found, LABEL_REPLICA) == str(action.rank)
            )
            if found is None or not ours:
                raise self._taken(service, "Pod", name, found) from error
            # Created by a try whose answer was lost, or by the leader before us.
            raw = found
        self._executor.saw_pod(raw)

    def _taken(
        self, service: ServiceView, kind: str, name: str, found: Object | None
    ) -> RefusedError:
        if found is None:
            return RefusedError(f"{kind} {name} was there and went away", permanent=False)
        owners: list[dict[str, Any]] = found["metadata"].get("ownerReferences") or []
        if any(one["kind"] == "InferenceService" and one["name"] == service.name for one in owners):
            message = f"{kind} {name} of the service that had this name before is going away"
            return RefusedError(message, permanent=False)
        owner = f" (it is owned by {owners[0]['kind']} {owners[0]['name']})" if owners else ""
        message = (
            f"{kind} {service.namespace}/{name} exists and does not belong to this service"
            f"{owner}; delete it or give the service another name"
        )
        self.record(service, RecordEvent("Warning", "NameTaken", message))
        return RefusedError(message, permanent=False)


def _owned(raw: Object, service: ServiceView) -> bool:
    owners = raw["metadata"].get("ownerReferences") or ()
    return any(owner["uid"] == service.uid for owner in owners)
