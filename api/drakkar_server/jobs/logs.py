"""Logs of a job's replicas, live and of pods that have ended; read with the user's own token."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Final

from fastapi import APIRouter, Query
from fastapi.responses import PlainTextResponse, StreamingResponse

from drakkar.constants import TRAINER_CONTAINER
from drakkar.kube.rest import ApiError, StreamError
from drakkar_server import sse
from drakkar_server.auth.caller import Asking, Caller
from drakkar_server.context import Context, Parts
from drakkar_server.jobs.router import read_job
from drakkar_server.names import Name, Namespace
from drakkar_server.problems import ProblemError, from_api

router = APIRouter(prefix="/api/v1", tags=["logs"])
MOST_LINES: Final = 10_000
LONGEST_LINE: Final = 8_192
BATCH_SECONDS: Final = 0.2
Rank = Annotated[int, Query(ge=0, le=300_000, description="Rank whose pod's log is meant.")]
Tail = Annotated[int, Query(ge=0, le=MOST_LINES, description="Last lines.")]


async def pod_of(
    caller: Caller, parts: Context, namespace: str, name: str, rank: int
) -> tuple[str, str]:
    """(pod, container) of a rank. Raises ProblemError."""
    job = await read_job(caller, namespace, name)
    each = int((job.get("spec") or {}).get("processesPerReplica") or 1)
    pods = parts.live.pods_of_job(f"{namespace}/{name}")
    pod = next((pod for pod in pods if pod.replica == rank // each), None)
    if pod is None:
        raise ProblemError(
            404, f"Rank {rank} of {name} has no pod now: what it wrote went with the last one.",
            kind="urn:drakkar:no-pod",
        )  # fmt: skip
    try:
        raw = await caller.rest.get(f"/api/v1/namespaces/{namespace}/pods/{pod.name}")
    except ApiError as error:
        raise from_api(error, f"Pod {namespace}/{pod.name}") from None
    names = [c["name"] for c in raw["spec"]["containers"]]
    return pod.name, TRAINER_CONTAINER if TRAINER_CONTAINER in names else names[0]


def _path(namespace: str, pod: str) -> str:
    return f"/api/v1/namespaces/{namespace}/pods/{pod}/log"


def _text(line: bytes) -> str:
    return line[:LONGEST_LINE].decode(errors="replace")


@router.get("/jobs/{namespace}/{name}/logs", response_class=PlainTextResponse)
async def read_log(
    caller: Asking, parts: Parts, namespace: Namespace, name: Name, rank: Rank = 0, tail: Tail = 500
) -> PlainTextResponse:
    """The end of a rank's log, also of a pod that has ended."""
    pod, container = await pod_of(caller, parts, namespace, name, rank)
    query = {"container": container, "tailLines": str(tail)}
    try:
        lines = [
            _text(line)
            async for line in caller.rest.lines(_path(namespace, pod), query, silence=30)
        ]
    except ApiError as error:
        raise from_api(error, f"Log of pod {namespace}/{pod}") from None
    return PlainTextResponse("".join(f"{line}\n" for line in lines))


@router.get("/jobs/{namespace}/{name}/logs/stream")
async def stream_log(
    caller: Asking, parts: Parts, namespace: Namespace, name: Name, rank: Rank = 0, tail: Tail = 200
) -> StreamingResponse:
    """Server-sent events ``lines`` (a list of texts) as they are written, ``end`` when the pod is done.

    A reader that is slow slows down the reading of the log; nothing piles up here.
    """
    pod, container = await pod_of(caller, parts, namespace, name, rank)
    query = {"container": container, "tailLines": str(tail), "follow": "true"}

    async def events() -> AsyncIterator[bytes]:
        yield sse.event("pod", {"pod": pod})
        waiting: asyncio.Queue[str | None] = asyncio.Queue(maxsize=1000)
        reading = asyncio.create_task(_read(caller, _path(namespace, pod), query, waiting))
        try:
            while True:
                try:
                    first = await asyncio.wait_for(waiting.get(), sse.PING_SECONDS)
                except TimeoutError:
                    yield sse.PING
                    continue
                await asyncio.sleep(BATCH_SECONDS)
                lines = [first, *(waiting.get_nowait() for _ in range(waiting.qsize()))]
                yield sse.event("lines", [line for line in lines if line is not None])
                if lines[-1] is None:
                    problem = reading.result() if reading.done() else ""
                    yield sse.event("end", {"detail": problem or "The pod's log ends here."})
                    return
        finally:
            reading.cancel()

    return sse.stream(parts, caller, events())


async def _read(
    caller: Caller, path: str, query: dict[str, str], into: "asyncio.Queue[str | None]"
) -> str:
    """Read a log to its end; returns what went wrong, if anything did."""
    problem = ""
    try:
        async for line in caller.rest.lines(path, query, silence=None):
            await into.put(_text(line))
    except ApiError as error:
        problem = from_api(error, "The log").details.detail
    except StreamError as error:
        problem = str(error)
    await into.put(None)
    return problem
