"""Reading InferenceServices: lists, one service, its pods, events and changes."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, Final

from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from drakkar.constants import API_VERSION, LABEL_SERVICE
from drakkar.kube.rest import ApiError
from drakkar_server import objects, sse
from drakkar_server.auth.caller import Asking, Caller
from drakkar_server.cluster.state import SERVICES
from drakkar_server.cluster.views import ServiceView
from drakkar_server.context import Context, Parts
from drakkar_server.jobs.streams import pulse, rest_seconds
from drakkar_server.names import Name, Namespace
from drakkar_server.problems import from_api

router = APIRouter(prefix="/api/v1", tags=["services"])
MOST_EVENTS: Final = 100


class ServiceSummary(BaseModel):
    """An InferenceService as lists show it."""

    namespace: str
    name: str
    created: datetime
    ready: bool
    reason: str
    url: str
    replicas: int
    ready_replicas: int
    model: str
    canary: str = Field(description="State of the revision that is tried; empty without one.")

    @classmethod
    def of(cls, view: ServiceView) -> "ServiceSummary":
        """From the live record."""
        names = [name for name in cls.model_fields if name != "created"]
        return cls(
            created=datetime.fromtimestamp(view.created, UTC),
            **{name: getattr(view, name) for name in names},
        )


class Services(BaseModel):
    """All services that the user may see."""

    installed: bool
    items: list[ServiceSummary]


class ServiceEvent(BaseModel):
    """An Event about a service; Kubernetes keeps them for an hour unless told otherwise."""

    type: str
    reason: str
    message: str
    last: datetime | None
    count: int


def path_of(namespace: str, name: str = "") -> str:
    """Where the API server keeps a service, or those of a namespace."""
    path = f"/apis/{API_VERSION}/namespaces/{namespace}/{SERVICES}"
    return f"{path}/{name}" if name else path


async def services_of(caller: Caller, parts: Context) -> Services:
    """The services that the user may list, by namespace and name."""
    views = parts.live.services.items.values()
    scope = await caller.sees(SERVICES, {view.namespace for view in views})
    return Services(
        installed=parts.live.has_services,
        items=[
            ServiceSummary.of(view)
            for view in sorted(views, key=lambda view: view.key)
            if view.namespace in scope
        ],
    )


async def read_service(caller: Caller, namespace: str, name: str) -> dict[str, Any]:
    """The object, read with the user's own token. Raises ProblemError."""
    return await objects.read(
        caller, path_of(namespace, name), f"InferenceService {namespace}/{name}"
    )


async def pods_of(caller: Caller, namespace: str, name: str) -> list[dict[str, Any]]:
    """Pods of a service's routers and servers, by name. Raises ProblemError."""
    query = {"labelSelector": f"{LABEL_SERVICE}={name}"}
    try:
        found = await caller.rest.get(f"/api/v1/namespaces/{namespace}/pods", query)
    except ApiError as error:
        raise from_api(error, f"Pods in {namespace}") from None
    items: list[dict[str, Any]] = found.get("items") or []
    return sorted(items, key=lambda pod: str(pod["metadata"]["name"]))


async def events_of(caller: Caller, namespace: str, name: str) -> list[ServiceEvent]:
    """What the operator told of a service, newest first. Raises ProblemError."""
    query = {
        "fieldSelector": f"involvedObject.kind=InferenceService,involvedObject.name={name}",
        "limit": "500",
    }
    try:
        found = await caller.rest.get(f"/api/v1/namespaces/{namespace}/events", query)
    except ApiError as error:
        raise from_api(error, f"Events in {namespace}") from None
    events = [event_of(raw) for raw in found.get("items") or ()]
    earliest = datetime.min.replace(tzinfo=UTC)
    return sorted(events, key=lambda event: event.last or earliest, reverse=True)[:MOST_EVENTS]


def event_of(raw: dict[str, Any]) -> ServiceEvent:
    """An Event of core/v1. Pure."""
    series = raw.get("series") or {}
    times = (
        series.get("lastObservedTime"),
        raw.get("lastTimestamp"),
        raw.get("eventTime"),
        raw["metadata"].get("creationTimestamp"),
    )
    return ServiceEvent(
        type=str(raw.get("type") or ""),
        reason=str(raw.get("reason") or ""),
        message=str(raw.get("message") or ""),
        last=next((time for time in times if time), None),
        count=int(series.get("count") or raw.get("count") or 1),
    )


@router.get("/services")
async def list_services(caller: Asking, parts: Parts) -> Services:
    """InferenceServices; ``installed`` is false where the cluster lacks the kind."""
    return await services_of(caller, parts)


@router.get("/services/{namespace}/{name}")
async def get_service(caller: Asking, namespace: Namespace, name: Name) -> dict[str, Any]:
    """The whole object as the API server holds it now."""
    return await read_service(caller, namespace, name)


@router.get("/services/{namespace}/{name}/events")
async def list_events(caller: Asking, namespace: Namespace, name: Name) -> list[ServiceEvent]:
    """Events about the service, newest first: scaling, canaries, restarts."""
    await read_service(caller, namespace, name)
    return await events_of(caller, namespace, name)


@router.get("/services/{namespace}/{name}/stream")
async def stream_service(
    caller: Asking, parts: Parts, namespace: Namespace, name: Name
) -> StreamingResponse:
    """Server-sent events ``service`` (a summary) now and at every change, ``gone`` when it is deleted,
    ``cluster`` and ``end`` as for jobs."""
    await caller.must("get", SERVICES, namespace, name)
    key = f"{namespace}/{name}"
    live = parts.live

    async def events() -> AsyncIterator[bytes]:
        async with live.subscribe(key) as subscription:
            while True:
                view = live.services.items.get(key)
                if view is None:
                    state = sse.event("gone", {"key": key})
                else:
                    state = sse.event("service", ServiceSummary.of(view).model_dump(mode="json"))
                yield pulse(live) + state
                while not await subscription.changes(sse.PING_SECONDS):
                    if not await caller.may("get", SERVICES, namespace, name):
                        yield sse.event("end", {"detail": "You may no longer see this service."})
                        return
                    yield sse.PING
                await asyncio.sleep(rest_seconds(live.listeners))

    return sse.stream(parts, caller, events())
