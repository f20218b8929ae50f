"""Pages about services: the table, one service, trying it, and making one of a job's checkpoint."""

import asyncio
import time
from typing import Annotated, Any, Literal

import yaml
from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import Response
from pydantic import ValidationError

from drakkar.serve_job import NothingToServeError, service_of_job
from drakkar.v1alpha1 import InferenceService
from drakkar_server.auth.caller import Asking, Caller
from drakkar_server.cluster.state import SERVICES
from drakkar_server.context import Parts
from drakkar_server.jobs.router import read_job
from drakkar_server.names import Name, Namespace
from drakkar_server.problems import ProblemError
from drakkar_server.services import actions
from drakkar_server.services.figures import figures_of
from drakkar_server.services.router import events_of, read_service, services_of
from drakkar_server.web.forms import manifest_of
from drakkar_server.web.render import fragment, page

router = APIRouter(include_in_schema=False)
Count = Annotated[int | None, Form(ge=0, le=1000)]


@router.get("/services")
async def table(request: Request, caller: Asking, parts: Parts) -> Response:
    """Models that are served."""
    found = await services_of(caller, parts)
    return page(request, caller, "services.html", title="Services", services=found)


@router.get("/services/new")
async def form(
    request: Request,
    caller: Asking,
    namespace: Annotated[str, Query(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")],
    job: Annotated[str, Query(pattern=r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$")],
    step: Annotated[int | None, Query(ge=0, le=2**62)] = None,
) -> Response:
    """The service that a job's checkpoint would become, to look at and change before it is made."""
    raw = await read_job(caller, namespace, job)
    try:
        text = yaml.safe_dump(service_of_job(raw, step=step), sort_keys=False)
        problem = ""
    except NothingToServeError as error:
        text, problem = "", str(error)
    return page(
        request, caller, "serve.html", title=f"Serve {job}", namespace=namespace, job=job,
        step=step, text=text, problem=problem,
    )  # fmt: skip


@router.post("/services/new/check")
async def check(caller: Asking, manifest: Annotated[str, Form()] = "") -> Response:
    """What the API server says about the service in the form."""
    try:
        found: Any = await actions.create(
            caller, manifest_of(manifest, "InferenceService"), dry_run=True
        )
        problem = None
    except ProblemError as error:
        found, problem = None, error.details
    return fragment("_check.html", found=found, problem=problem)


@router.post("/services/new")
async def submit(caller: Asking, manifest: Annotated[str, Form()] = "") -> Response:
    """Create the service in the form and go to its page; mistakes are shown in the form."""
    try:
        created = await actions.create(caller, manifest_of(manifest, "InferenceService"))
    except ProblemError as error:
        return fragment("_check.html", found=None, problem=error.details)
    meta = created["metadata"]
    where = f"/services/{meta['namespace']}/{meta['name']}"
    return Response(status_code=204, headers={"HX-Redirect": where})


async def _service(caller: Caller, namespace: str, name: str) -> tuple[dict[str, Any], Any]:
    """(the object, and its typed form). Raises ProblemError."""
    raw = await read_service(caller, namespace, name)
    try:
        return raw, InferenceService.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ProblemError(
            502, f"{name} is of another version of Drakkar ({field}: {first['msg']})."
        ) from None


@router.get("/services/{namespace}/{name}")
async def one(request: Request, caller: Asking, namespace: Namespace, name: Name) -> Response:
    """One service: what answers or why not, revisions and replicas, what happened, its buttons."""
    raw, service = await _service(caller, namespace, name)
    events: list[Any] = []
    events_problem = ""
    try:
        events = await events_of(caller, namespace, name)
    except ProblemError as error:
        events_problem = error.details.detail
    verbs = await asyncio.gather(
        caller.may("patch", SERVICES, namespace, name),
        caller.may("patch", SERVICES, namespace, name, subresource="scale"),
        caller.may("delete", SERVICES, namespace, name),
    )
    return page(
        request, caller, "service.html", title=name, raw=raw, service=service, status=service.status,
        spec=service.spec, namespace=namespace, name=name, events=events,
        scalings=[event for event in events if event.reason == "Scaled"],
        events_problem=events_problem, going_back=actions.going_back(raw),
        may=dict(zip(("change", "scale", "delete"), verbs, strict=True)),
    )  # fmt: skip


@router.get("/services/{namespace}/{name}/figures")
async def figures(caller: Asking, namespace: Namespace, name: Name) -> Response:
    """A part of the page that takes longer: what routers and replicas tell."""
    raw = await read_service(caller, namespace, name)
    weights = {
        one.get("revision"): one.get("weight")
        for one in (raw.get("status") or {}).get("traffic") or ()
    }
    return fragment(
        "_figures.html", figures=await figures_of(caller, namespace, raw), weights=weights,
        now=time.time(),
    )  # fmt: skip


@router.post("/services/{namespace}/{name}/act/{verb}")
async def act(
    caller: Asking,
    namespace: Namespace,
    name: Name,
    verb: Literal["promote", "rollback", "delete"],
) -> Response:
    """A button of a service's page."""
    does = {"promote": actions.promote, "rollback": actions.roll_back, "delete": actions.delete}
    done = await does[verb](caller, namespace, name)
    return fragment("_done.html", message=done.message, changed=True)


@router.post("/services/{namespace}/{name}/scale")
async def scale(
    caller: Asking, namespace: Namespace, name: Name,
    replicas: Count = None, fewest: Count = None, most: Count = None,
) -> Response:  # fmt: skip
    """The number of replicas, or the bounds of the operator's scaling."""
    try:
        wanted = actions.ServiceScale(replicas=replicas, min=fewest, max=most)
    except ValidationError as error:
        raise ProblemError(422, "; ".join(item["msg"] for item in error.errors())) from None
    done = await actions.scale(caller, namespace, name, wanted)
    return fragment("_done.html", message=done.message, changed=True)


@router.get("/services/{namespace}/{name}/chat")
async def chat(request: Request, caller: Asking, namespace: Namespace, name: Name) -> Response:
    """A conversation with the model."""
    _, service = await _service(caller, namespace, name)
    ready = service.condition("Ready")
    adapters = [item.name for item in service.spec.adapters.items] if service.spec.adapters else []
    return page(
        request, caller, "chat.html", title=f"Try {name}", namespace=namespace, name=name,
        model=service.spec.model.name or name, adapters=adapters, ready=ready,
        may=await caller.may(
            "create", "services", namespace, f"{name}:http", group="", subresource="proxy"
        ),
    )  # fmt: skip
