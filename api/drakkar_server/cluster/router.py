"""Queues, nodes, the topology and the overview."""

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime

from fastapi import APIRouter
from pydantic import BaseModel, Field

from drakkar_server.auth.caller import Asking, Caller
from drakkar_server.cluster import overview
from drakkar_server.cluster.overview import NodeUse
from drakkar_server.cluster.views import QueueView, is_device
from drakkar_server.context import Context, Parts
from drakkar_server.jobs.find import Filter
from drakkar_server.jobs.router import visible
from drakkar_server.jobs.schemas import time_of

router = APIRouter(prefix="/api/v1", tags=["cluster"])


class CapacityOut(BaseModel):
    """One resource of the cluster: devices, or cores of cpu."""

    resource: str
    total: float
    used: float
    free: float
    broken: float = Field(description="Free, but on nodes that take no pods.")


class Overview(BaseModel):
    """The state of things in one look."""

    capacity: list[CapacityOut] = Field(description="Empty if the user may not list nodes.")
    phases: dict[str, int] = Field(description="Live jobs that the user may see, by phase.")
    waiting: int
    longest_wait_seconds: float | None
    goodput: float | None = Field(description="Mean of the running jobs by rank, 0 to 1.")
    nodes: int
    nodes_wrong: int = Field(description="Nodes that are not ready, cordoned or have faults.")
    synced: bool = Field(description="False until the server has seen the whole cluster once.")
    cluster_silent_seconds: float = Field(description="Since the API server last answered.")


class PartOut(BaseModel):
    """Something that the server needs."""

    up: bool
    away_since: datetime | None


class Status(BaseModel):
    """What answers and what does not. Lists are as they were when the cluster last answered."""

    cluster: PartOut
    history: PartOut
    history_waiting: int = Field(description="Rows that wait for the database.")


class QueueOut(BaseModel):
    """A Queue with its books; amounts as Kubernetes writes them."""

    name: str
    parent: str
    weight: int
    quota: Mapping[str, str]
    borrowing: Mapping[str, str]
    used: Mapping[str, str]
    borrowed: Mapping[str, str]
    lent: Mapping[str, str]
    admitted: int
    pending: int
    share: float | None
    fair_share: float | None


class PodOut(BaseModel):
    """Who is on a node."""

    namespace: str
    name: str
    job: str
    replica: int | None
    phase: str
    devices: dict[str, int]


class NodeOut(BaseModel):
    """A node, its place and what is taken of it."""

    name: str
    path: list[str] = Field(description="Its domains, widest first, as /topology names the levels.")
    ready: bool
    cordoned: bool
    model: str
    devices: dict[str, int]
    used: dict[str, int]
    faults: dict[str, str]
    conditions: dict[str, str]
    pods: list[PodOut] = Field(description="Of jobs that the user may see.")


class TopologyOut(BaseModel):
    """Levels and nodes."""

    levels: list[str]
    nodes: list[NodeOut]


async def overview_of(caller: Caller, parts: Context) -> Overview:
    """The overview as this user may see it."""
    jobs = await visible(caller, parts, Filter())
    waiting = [job for job in jobs if job.phase == "Pending"]
    now = datetime.now(UTC).timestamp()
    uses: list[NodeUse] = []
    if await caller.may("list", "nodes", group=""):
        uses = node_uses(parts)
    return Overview(
        capacity=[
            CapacityOut(
                resource=c.resource, total=c.total, used=c.used, free=c.free, broken=c.broken
            )
            for c in overview.capacity(uses)
        ],
        phases=dict(Counter(job.phase for job in jobs)),
        waiting=len(waiting),
        longest_wait_seconds=max((now - job.created for job in waiting), default=None),
        goodput=overview.goodput(jobs),
        nodes=len(uses),
        nodes_wrong=sum(
            1
            for u in uses
            if not u.node.ready or u.node.cordoned or u.node.faults or u.node.conditions
        ),
        synced=not parts.live.missing,
        cluster_silent_seconds=parts.live.pulse.silent(),
    )


def node_uses(parts: Context) -> list[NodeUse]:
    """All nodes with what is taken of them."""
    live = parts.live
    pods = {name: live.pods_on(name) for name in live.nodes.items}
    return overview.uses(live.nodes.items.values(), pods, live.levels)


async def topology_of(caller: Caller, parts: Context) -> TopologyOut:
    """Nodes with those pods that the user may see. Raises ProblemError."""
    await caller.must("list", "nodes", group="")
    scope = await caller.sees("trainingjobs", parts.live.namespaces)
    return TopologyOut(
        levels=[level.name for level in parts.live.levels],
        nodes=[
            NodeOut(
                name=use.node.name,
                path=list(use.path),
                ready=use.node.ready,
                cordoned=use.node.cordoned,
                model=use.node.model,
                devices={n: c for n, c in use.node.allocatable.items() if is_device(n)},
                used=dict(use.used),
                faults=dict(use.node.faults),
                conditions=dict(use.node.conditions),
                pods=[
                    PodOut(
                        namespace=pod.namespace,
                        name=pod.name,
                        job=pod.job,
                        replica=pod.replica,
                        phase=pod.phase,
                        devices=dict(pod.devices),
                    )
                    for pod in parts.live.pods_on(use.node.name)
                    if pod.job and pod.namespace in scope and pod.phase not in overview.OVER
                ],
            )
            for use in node_uses(parts)
        ],
    )


@router.get("/status")
async def get_status(_: Asking, parts: Parts) -> Status:
    """Whether the API server and the database answer, and since when one does not."""
    away, history = parts.live.pulse.away_since, parts.history
    return Status(
        cluster=PartOut(up=away is None, away_since=time_of(away)),
        history=PartOut(up=history.up, away_since=time_of(history.away_since)),
        history_waiting=history.recorder.waiting,
    )


@router.get("/overview")
async def get_overview(caller: Asking, parts: Parts) -> Overview:
    """Capacity, waits and goodput, over what the user may see."""
    return await overview_of(caller, parts)


@router.get("/queues")
async def list_queues(caller: Asking, parts: Parts) -> list[QueueOut]:
    """All queues with what they use, by name."""
    return await queues_of(caller, parts)


async def queues_of(caller: Caller, parts: Context) -> list[QueueOut]:
    """The queues, if the user may list them. Raises ProblemError."""
    await caller.must("list", "queues")
    return [queue_out(view) for _, view in sorted(parts.live.queues.items.items())]


def queue_out(view: QueueView) -> QueueOut:
    """A live record as the API answers it."""
    return QueueOut.model_validate({name: getattr(view, name) for name in QueueOut.model_fields})


@router.get("/topology")
async def get_topology(caller: Asking, parts: Parts) -> TopologyOut:
    """All nodes in order of the topology, with devices, faults and who is on them."""
    return await topology_of(caller, parts)
