"""Pages about jobs: tables, one job, the form, comparisons; and what their buttons do."""

from itertools import chain
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlencode

import yaml
from fastapi import APIRouter, Depends, Form, Query, Request
from fastapi.responses import Response

from drakkar_server.auth.caller import Asking
from drakkar_server.cluster.router import topology_of
from drakkar_server.context import Parts
from drakkar_server.jobs import actions
from drakkar_server.jobs.find import KEYS, Order
from drakkar_server.jobs.past import history_of, past_jobs
from drakkar_server.jobs.router import Wanted, read_job, visible
from drakkar_server.jobs.schemas import JobSummary
from drakkar_server.names import Name, Namespace
from drakkar_server.paging import Cut, cut, page_of
from drakkar_server.problems import ProblemError, not_found
from drakkar_server.web.cluster import tree
from drakkar_server.web.forms import TEMPLATES, manifest_of
from drakkar_server.web.render import fragment, page

router = APIRouter(include_in_schema=False)
PHASES: Final = ("Pending", "Starting", "Running", "Recovering", "Suspended", "Complete", "Failed")
Descending = Literal["asc", "desc"]
Paging = Annotated[Cut, Depends(cut)]


def _query(wanted: Any, **more: Any) -> str:
    """The query string of a list, with changes."""
    values: dict[str, Any] = {
        "namespace": wanted.namespace, "phase": sorted(wanted.phases), "queue": wanted.queue,
        "user": wanted.user, "search": wanted.search, **more,
    }  # fmt: skip
    return urlencode({key: value for key, value in values.items() if value}, doseq=True)


@router.get("/jobs")
async def table(
    request: Request, caller: Asking, parts: Parts, wanted: Wanted, cut_: Paging,
    sort: Order = "created", order: Descending = "desc",
) -> Response:  # fmt: skip
    """Jobs that the cluster holds."""
    found = await visible(caller, parts, wanted)
    items, total = page_of(found, KEYS[sort], cut_, descending=order == "desc")
    return page(
        request, caller, "jobs.html", title="Jobs", jobs=[JobSummary.of(item) for item in items],
        total=total, cut=cut_, wanted=wanted, sort=sort, order=order, phases=PHASES,
        link=lambda **more: "/jobs?" + _query(wanted, **{"sort": sort, "order": order, **more}),
    )  # fmt: skip


@router.get("/history")
async def past(
    request: Request, caller: Asking, parts: Parts, wanted: Wanted, cut_: Paging,
    sort: Literal["created", "name", "phase", "queue", "user", "loss", "restarts"] = "created",
    order: Descending = "desc",
) -> Response:  # fmt: skip
    """All jobs that ever were."""
    found = await past_jobs(caller, parts, wanted, cut_, sort, order == "desc")
    return page(
        request, caller, "history.html", title="History", jobs=found.items, total=found.total,
        cut=cut_, wanted=wanted, sort=sort, order=order, phases=PHASES,
        link=lambda **more: "/history?" + _query(wanted, **{"sort": sort, "order": order, **more}),
    )  # fmt: skip


@router.get("/jobs/new")
async def form(request: Request, caller: Asking, template: str = "pretrain") -> Response:
    """The form to submit a job, with templates."""
    chosen = TEMPLATES.get(template) or TEMPLATES["pretrain"]
    return page(
        request,
        caller,
        "submit.html",
        title="New job",
        templates=TEMPLATES,
        chosen=template,
        text=chosen,
    )


@router.post("/jobs/new/plan")
async def plan(caller: Asking, parts: Parts, manifest: Annotated[str, Form()] = "") -> Response:
    """What the cluster and the operator say about the job in the form."""
    try:
        found: Any = await actions.validated(caller, parts, manifest_of(manifest))
        problem = None
    except ProblemError as error:
        found, problem = None, error.details
    return fragment("_plan.html", found=found, problem=problem)


@router.post("/jobs/new")
async def submit(caller: Asking, manifest: Annotated[str, Form()] = "") -> Response:
    """Submit the job in the form and go to its page; mistakes are shown in the form."""
    try:
        created = await actions.create(caller, manifest_of(manifest))
    except ProblemError as error:
        return fragment("_plan.html", found=None, problem=error.details)
    meta = created["metadata"]
    return Response(
        status_code=204, headers={"HX-Redirect": f"/jobs/{meta['namespace']}/{meta['name']}"}
    )


@router.get("/compare")
async def compare(
    request: Request,
    caller: Asking,
    parts: Parts,
    job: Annotated[list[str] | None, Query(max_length=6)] = None,
) -> Response:
    """Runs over each other, and how their settings differ."""
    runs = []
    for key in job or []:
        namespace, _, name = key.partition("/")
        runs.append(await history_of(caller, parts, namespace, name))
    flat = [dict(_flat(run.spec)) for run in runs]
    fields = sorted(set(chain.from_iterable(flat)))
    rows = [(f, [each.get(f, "–") for each in flat]) for f in fields]
    return page(
        request, caller, "compare.html", title="Compare", runs=runs,
        rows=[(f, values) for f, values in rows if len(set(values)) > 1],
        metrics=sorted(set(chain.from_iterable(run.metrics for run in runs))),
    )  # fmt: skip


def _flat(value: Any, path: str = "") -> Any:
    """(path, text) of every leaf."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _flat(part, f"{path}.{key}" if path else str(key))
    else:
        yield path, yaml.safe_dump(value, default_flow_style=True).removesuffix("\n...\n").strip()


@router.get("/jobs/{namespace}/{name}")
async def one(
    request: Request, caller: Asking, parts: Parts, namespace: Namespace, name: Name
) -> Response:
    """One job: what it does or why it waits, where it runs, what happened."""
    view = parts.live.jobs.items.get(f"{namespace}/{name}")
    raw = None
    if view is not None:
        try:
            raw = await read_job(caller, namespace, name)
        except ProblemError as error:
            if error.details.status == 503:
                # The cluster is away: who may see the job sees how it was.
                await caller.must("get", "trainingjobs", namespace, name)
            elif error.details.status != 404:
                raise
            else:
                # Deleted a moment ago, or nobody's business: history tells the one from the other.
                view = None
    past_of = problem = None
    try:
        past_of = await history_of(
            caller, parts, namespace, name, raw["metadata"]["uid"] if raw else None
        )
    except ProblemError as error:
        if view is None:
            raise (
                error if error.details.status != 404 else not_found(f"Job {namespace}/{name}")
            ) from None
        problem = error.details.detail
    nodes, levels = [], []
    if view is not None and view.nodes and await caller.may("list", "nodes", group=""):
        topology = await topology_of(caller, parts)
        levels = topology.levels
        nodes = [node for node in topology.nodes if node.name in set(view.nodes)]
    return page(
        request, caller, "job.html", title=name, job=JobSummary.of(view) if view else None, raw=raw,
        status=(raw or {}).get("status") or {}, past=past_of, past_problem=problem, namespace=namespace,
        name=name, levels=levels, tree=tree(nodes), mine=frozenset({f"{namespace}/{name}"}),
        pods=parts.live.pods_of_job(f"{namespace}/{name}"),
    )  # fmt: skip


@router.post("/jobs/{namespace}/{name}/act/{verb}")
async def act(
    caller: Asking, namespace: Namespace, name: Name, verb: Literal["suspend", "resume", "delete"]
) -> Response:
    """A button of a job's page."""
    if verb == "delete":
        done = await actions.delete(caller, namespace, name)
    else:
        done = await actions.suspend(caller, namespace, name, verb == "suspend")
    return fragment("_done.html", message=done.message, changed=True)


@router.post("/jobs/{namespace}/{name}/clone")
async def clone(
    caller: Asking, namespace: Namespace, name: Name,
    new_name: Annotated[str, Form(max_length=50)] = "", restore_from: Annotated[str, Form(max_length=512)] = "",
) -> Response:  # fmt: skip
    """Submit a copy, from a checkpoint if one is named."""
    if not new_name:
        raise ProblemError(422, "Give the copy a name.")
    wanted = actions.Clone(name=new_name, restore_from=restore_from or None)
    created = await actions.clone(caller, namespace, name, wanted)
    where = f"/jobs/{created['metadata']['namespace']}/{created['metadata']['name']}"
    return Response(status_code=204, headers={"HX-Redirect": where})


@router.post("/jobs/bulk")
async def bulk(
    caller: Asking, action: Annotated[Literal["suspend", "resume", "delete"], Form()],
    job: Annotated[list[str] | None, Form(max_length=200)] = None,
) -> Response:  # fmt: skip
    """The same for all ticked jobs."""
    if not job:
        raise ProblemError(422, "Tick the jobs that are meant.")
    try:
        wanted = [
            actions.Reference(namespace=k.partition("/")[0], name=k.partition("/")[2]) for k in job
        ]
    except ValueError:
        raise ProblemError(422, "A name is not one of a job.") from None
    outcomes = await actions.each(caller, actions.Bulk(action=action, jobs=wanted))
    return fragment("_outcomes.html", outcomes=outcomes, changed=True)
