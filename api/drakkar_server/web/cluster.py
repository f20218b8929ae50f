"""Pages about the whole: overview, queues, nodes, usage."""

import time
from collections.abc import Iterable
from itertools import groupby
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from drakkar_server.auth.caller import Asking
from drakkar_server.auth.identity import Scope
from drakkar_server.cluster.router import NodeOut, overview_of, queues_of, topology_of
from drakkar_server.context import Parts
from drakkar_server.history import queries
from drakkar_server.jobs.find import Filter
from drakkar_server.jobs.router import PLURAL, visible
from drakkar_server.problems import ProblemError
from drakkar_server.usage.router import usage_of
from drakkar_server.web.render import page

router = APIRouter(include_in_schema=False)


@router.get("/")
async def overview(request: Request, caller: Asking, parts: Parts) -> Response:
    """What is used and free, who waits, what failed."""
    jobs = await visible(caller, parts, Filter())
    waiting = sorted((j for j in jobs if j.phase == "Pending"), key=lambda j: j.created)[:8]
    active = (j for j in jobs if j.phase in ("Running", "Recovering", "Starting"))
    running = sorted(active, key=lambda j: -j.created)[:8]
    failed = sorted(
        (j for j in jobs if j.phase == "Failed"), key=lambda j: -(j.ended or j.created)
    )[:8]
    restarts: list[Any] | None = None
    try:
        async with parts.history.read() as connection:
            scope: Scope = await caller.sees(PLURAL, await queries.namespaces(connection))
            restarts = await queries.recent_restarts(
                connection, scope, since=time.time() - 86400, limit=8
            )
    except ProblemError:
        pass
    return page(
        request, caller, "overview.html", title="Overview",
        overview=await overview_of(caller, parts), waiting=waiting, running=running, failed=failed,
        restarts=restarts, now=time.time(),
    )  # fmt: skip


@router.get("/queues")
async def queues(request: Request, caller: Asking, parts: Parts) -> Response:
    """Quota, what is used and borrowed, fair shares."""
    return page(
        request, caller, "queues.html", title="Queues", queues=await queues_of(caller, parts)
    )


@router.get("/nodes")
async def nodes(request: Request, caller: Asking, parts: Parts) -> Response:
    """The topology map."""
    topology = await topology_of(caller, parts)
    return page(
        request, caller, "nodes.html", title="Nodes", topology=topology, tree=tree(topology.nodes), mine=frozenset(),
    )  # fmt: skip


def tree(nodes: Iterable[NodeOut], depth: int = 0) -> list[tuple[str, Any]]:
    """Nodes below their domains: (name, list of the same), the innermost hold nodes. Pure."""
    found = list(nodes)
    if not found or depth >= len(found[0].path) - 1:
        return [(node.name, node) for node in found]
    return [
        (name, tree(list(below), depth + 1))
        for name, below in groupby(found, key=lambda node: node.path[depth])
    ]


@router.get("/usage")
async def usage(
    request: Request,
    caller: Asking,
    parts: Parts,
    by: Literal["namespace", "queue", "user"] = "namespace",
    days: Annotated[int, Query(ge=1, le=366)] = 30,
) -> Response:
    """Who used how much."""
    end = time.time()
    rows = await usage_of(caller, parts, [by], end - days * 86400, end)
    return page(request, caller, "usage.html", title="Usage", rows=rows, by=by, days=days)
