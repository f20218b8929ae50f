"""History of jobs: lists of all that ever were, restarts, checkpoints, places, events, metrics."""

from datetime import datetime
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field

from drakkar_server.auth.caller import Asking, Caller
from drakkar_server.context import Context, Parts
from drakkar_server.db import tables as t
from drakkar_server.history import queries
from drakkar_server.history.extract import Row
from drakkar_server.jobs.router import PLURAL, Wanted
from drakkar_server.jobs.schemas import time_of
from drakkar_server.names import Name, Namespace
from drakkar_server.paging import Cut, Page, cut
from drakkar_server.problems import not_found

router = APIRouter(prefix="/api/v1", tags=["history"])
MOST_POINTS: Final = 2000
Uid = Annotated[str | None, Query(max_length=64, description="Of an earlier job of the same name.")]


class PastJob(BaseModel):
    """A job that is or was."""

    uid: str
    namespace: str
    name: str
    user: str
    queue: str
    phase: str
    created: datetime
    started: datetime | None
    ended: datetime | None
    deleted: datetime | None
    replicas: int
    ranks: int
    accelerators: int
    step: int | None
    total_steps: int | None
    loss: float | None
    tokens_per_second: float | None
    goodput: float | None
    restarts: int
    reason: str
    domain: str


class PastRestart(BaseModel):
    """One interruption."""

    id: str
    time: datetime
    scope: str
    reason: str
    message: str
    replica: int | None
    node: str | None
    seconds_lost: float | None
    steps_lost: int | None
    resumed_from: str | None
    counted: bool


class PastCheckpoint(BaseModel):
    """A checkpoint that was published; storage may have dropped it since."""

    step: int
    path: str
    time: datetime


class PastPlacement(BaseModel):
    """Where the gang was."""

    time: datetime
    level: str
    domain: str
    nodes: list[str]


class PastEvent(BaseModel):
    """An Event about the job."""

    type: str
    reason: str
    message: str
    first: datetime
    last: datetime
    count: int


class JobHistory(BaseModel):
    """All that is remembered of one job."""

    job: PastJob
    spec: dict[str, Any] = Field(description="Without values of environment variables.")
    restarts: list[PastRestart]
    checkpoints: list[PastCheckpoint]
    placements: list[PastPlacement]
    events: list[PastEvent]
    metrics: list[str]


class Point(BaseModel):
    """A metric at a step, or over the steps that one point stands for."""

    step: int
    time: datetime
    value: float
    low: float
    high: float


def past_job(row: Row) -> PastJob:
    """A row of the table as the API answers it."""
    times = {name: time_of(row[name]) for name in ("created", "started", "ended", "deleted")}
    return PastJob.model_validate({**row, **times})


def _timed(model: type[BaseModel], rows: list[Row], *names: str) -> list[Any]:
    return [model.model_validate({**row, **{n: time_of(row[n]) for n in names}}) for row in rows]


async def past_jobs(
    caller: Caller, parts: Context, wanted: Wanted, page: Cut, sort: str, descending: bool
) -> Page[PastJob]:
    """A page of all jobs that the user may see. Raises ProblemError."""
    async with parts.history.read() as connection:
        known = {wanted.namespace} if wanted.namespace else await queries.namespaces(connection)
        scope = await caller.sees(PLURAL, known)
        rows, total = await queries.jobs(
            connection,
            scope,
            namespace=wanted.namespace,
            phases=sorted(wanted.phases),
            queue=wanted.queue,
            user=wanted.user,
            search=wanted.search,
            sort=sort,
            descending=descending,
            limit=page.limit,
            offset=page.offset,
        )
    return Page(
        items=[past_job(row) for row in rows], total=total, limit=page.limit, offset=page.offset
    )


async def history_of(
    caller: Caller, parts: Context, namespace: str, name: str, uid: str | None = None
) -> JobHistory:
    """All that is remembered of a job. Raises ProblemError."""
    await caller.must("get", PLURAL, namespace, name)
    async with parts.history.read() as connection:
        row = await queries.job(connection, namespace, name, uid)
        if row is None:
            raise not_found(f"{PLURAL} {namespace}/{name}")
        of = row["uid"]
        return JobHistory(
            job=past_job(row),
            spec=row["spec"],
            restarts=_timed(
                PastRestart, await queries.of_job(connection, t.restarts, of, "time"), "time"
            ),
            checkpoints=_timed(
                PastCheckpoint, await queries.of_job(connection, t.checkpoints, of, "step"), "time"
            ),
            placements=_timed(
                PastPlacement,
                await queries.of_job(connection, t.placements, of, "time", 50),
                "time",
            ),
            events=_timed(
                PastEvent,
                await queries.of_job(connection, t.events, of, "last", 200),
                "first",
                "last",
            ),
            metrics=await queries.metric_names(connection, of),
        )


async def metric_of(
    caller: Caller, parts: Context, namespace: str, name: str, uid: str | None,
    metric: str, points: int, first: int, last: int | None,
) -> list[Point]:  # fmt: skip
    """A metric of a job. Raises ProblemError."""
    await caller.must("get", PLURAL, namespace, name)
    async with parts.history.read() as connection:
        row = await queries.job(connection, namespace, name, uid)
        if row is None:
            raise not_found(f"{PLURAL} {namespace}/{name}")
        rows = await queries.metric(
            connection, row["uid"], metric, most=points, first=first, last=last
        )
    return _timed(Point, rows, "time")


@router.get("/history/jobs")
async def list_past(
    caller: Asking,
    parts: Parts,
    wanted: Wanted,
    page: Annotated[Cut, Depends(cut)],
    sort: Literal["created", "name", "namespace", "phase", "queue", "user", "loss", "restarts", "ended",
                  "accelerators"] = "created",
    order: Literal["asc", "desc"] = "desc",
) -> Page[PastJob]:  # fmt: skip
    """All jobs that ever were, in the namespaces that the user may list."""
    return await past_jobs(caller, parts, wanted, page, sort, order == "desc")


@router.get("/history/jobs/{namespace}/{name}")
async def get_past(
    caller: Asking, parts: Parts, namespace: Namespace, name: Name, uid: Uid = None
) -> JobHistory:
    """Restarts with causes, checkpoints, places and events of a job, also of one that is deleted."""
    return await history_of(caller, parts, namespace, name, uid)


@router.get("/history/jobs/{namespace}/{name}/metrics/{metric}")
async def get_metric(
    caller: Asking,
    parts: Parts,
    namespace: Namespace,
    name: Name,
    metric: str,
    uid: Uid = None,
    points: Annotated[int, Query(ge=1, le=MOST_POINTS, description="At most so many.")] = 500,
    first: Annotated[int, Query(ge=0, le=2**62, description="First step.")] = 0,
    last: Annotated[int | None, Query(ge=0, le=2**62, description="Last step.")] = None,
) -> list[Point]:
    """A metric by step, downsampled to at most so many points."""
    return await metric_of(caller, parts, namespace, name, uid, metric, points, first, last)
