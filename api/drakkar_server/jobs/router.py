"""Reading TrainingJobs: lists and one job."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query

from drakkar.constants import API_VERSION
from drakkar_server import objects
from drakkar_server.auth.caller import Asking, Caller
from drakkar_server.cluster.views import JobView
from drakkar_server.context import Context, Parts
from drakkar_server.jobs.find import KEYS, Filter, Order, matching
from drakkar_server.jobs.schemas import JobSummary
from drakkar_server.names import Name, Namespace
from drakkar_server.paging import Cut, Page, cut, page_of
from drakkar_server.problems import ProblemError

router = APIRouter(prefix="/api/v1", tags=["jobs"])
PLURAL = "trainingjobs"


def path_of(namespace: str, name: str = "") -> str:
    """Where the API server keeps a job, or those of a namespace."""
    path = f"/apis/{API_VERSION}/namespaces/{namespace}/{PLURAL}"
    return f"{path}/{name}" if name else path


def wanted_of(
    namespace: Annotated[str | None, Query(max_length=63)] = None,
    phase: Annotated[list[str] | None, Query(max_length=8)] = None,
    queue: Annotated[str | None, Query(max_length=253)] = None,
    user: Annotated[str | None, Query(max_length=253)] = None,
    search: Annotated[str, Query(max_length=100, description="Part of the name.")] = "",
) -> Filter:
    """Dependency: the query's filters."""
    if "\0" in "".join(filter(None, [namespace, queue, user, search, *(phase or ())])):
        raise ProblemError(422, "query: NUL is part of no name.", kind="urn:drakkar:invalid")
    phases = frozenset(filter(None, phase or ()))
    return Filter(namespace or None, phases, queue or None, user or None, search)


Wanted = Annotated[Filter, Depends(wanted_of)]


async def visible(caller: Caller, context: Context, wanted: Filter) -> list[JobView]:
    """Live jobs that the user may see, and that are asked for."""
    namespaces = {wanted.namespace} if wanted.namespace else context.live.namespaces
    scope = await caller.sees(PLURAL, namespaces)
    return list(matching(context.live.jobs.items.values(), scope, wanted))


@router.get("/jobs")
async def list_jobs(
    caller: Asking,
    parts: Parts,
    wanted: Wanted,
    page: Annotated[Cut, Depends(cut)],
    sort: Order = "created",
    order: Literal["asc", "desc"] = "desc",
) -> Page[JobSummary]:
    """Jobs that the cluster holds, running or not, in the namespaces that the user may list."""
    found = await visible(caller, parts, wanted)
    items, total = page_of(found, KEYS[sort], page, descending=order == "desc")
    return Page(
        items=[JobSummary.of(item) for item in items],
        total=total,
        limit=page.limit,
        offset=page.offset,
    )


@router.get("/jobs/{namespace}/{name}")
async def get_job(caller: Asking, namespace: Namespace, name: Name) -> dict[str, Any]:
    """The whole object as the API server holds it now."""
    return await read_job(caller, namespace, name)


async def read_job(caller: Caller, namespace: str, name: str) -> dict[str, Any]:
    """The object, read with the user's own token. Raises ProblemError."""
    return await objects.read(caller, path_of(namespace, name), f"TrainingJob {namespace}/{name}")
