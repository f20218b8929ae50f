"""InferenceServices, where the cluster has that kind."""

from datetime import UTC, datetime

from fastapi import APIRouter
from pydantic import BaseModel

from drakkar_server.auth.caller import Asking, Caller
from drakkar_server.cluster.state import SERVICES
from drakkar_server.context import Context, Parts

router = APIRouter(prefix="/api/v1", tags=["services"])


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


class Services(BaseModel):
    """All services that the user may see."""

    installed: bool
    items: list[ServiceSummary]


async def services_of(caller: Caller, parts: Context) -> Services:
    """The services that the user may list, by namespace and name."""
    views = parts.live.services.items.values()
    scope = await caller.sees(SERVICES, {view.namespace for view in views})
    names = [name for name in ServiceSummary.model_fields if name != "created"]
    return Services(
        installed=parts.live.has_services,
        items=[
            ServiceSummary(
                created=datetime.fromtimestamp(view.created, UTC),
                **{name: getattr(view, name) for name in names},
            )
            for view in sorted(views, key=lambda view: view.key)
            if view.namespace in scope
        ],
    )


@router.get("/services")
async def list_services(caller: Asking, parts: Parts) -> Services:
    """InferenceServices; ``installed`` is false where the cluster lacks the kind."""
    return await services_of(caller, parts)
