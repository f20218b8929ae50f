"""Changes of TrainingJobs as they happen: server-sent events."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from typing import Final

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from drakkar_server import sse
from drakkar_server.auth.caller import Asking
from drakkar_server.cluster.state import Live
from drakkar_server.cluster.views import JobView
from drakkar_server.context import Parts
from drakkar_server.jobs.router import PLURAL, Wanted, visible
from drakkar_server.jobs.schemas import JobSummary
from drakkar_server.names import Name, Namespace

router = APIRouter(prefix="/api/v1", tags=["jobs"])
REST_SECONDS: Final = 0.25
LISTENERS_PER_SECOND: Final = 500
MOST_ENCODED: Final = 20_000


class Encoded:
    """Events of jobs, put into bytes once for all who listen."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, tuple[JobView, bytes]] = OrderedDict()

    def of(self, view: JobView) -> bytes:
        """The event ``job``."""
        known = self._known.get(view.key)
        if known is not None and known[0] is view:
            return known[1]
        data = sse.event("job", JobSummary.of(view).model_dump(mode="json"))
        self._known[view.key] = view, data
        if len(self._known) > MOST_ENCODED:
            self._known.popitem(last=False)
        return data


_encoded = Encoded()


def rest_seconds(listeners: int) -> float:
    """How long a stream collects changes: longer where many listen, so that the work stays bounded."""
    return REST_SECONDS + listeners / LISTENERS_PER_SECOND


def pulse(live: Live) -> bytes:
    """The event ``cluster``."""
    return sse.event("cluster", {"away_since": live.pulse.away_since})


@router.get("/jobs/stream")
async def stream_jobs(caller: Asking, parts: Parts, wanted: Wanted) -> StreamingResponse:
    """Server-sent events ``job`` (a summary) and ``gone`` at every change, ``cluster`` when the API
    server goes away (``away_since``, in seconds since the epoch) or is back (null).

    A reader that is slow gets fewer events, each with the newest state.
    """
    await visible(caller, parts, wanted)
    live = parts.live

    async def events() -> AsyncIterator[bytes]:
        async with live.subscribe() as subscription:
            yield sse.PING + pulse(live)
            while True:
                changes = await subscription.changes(sse.PING_SECONDS)
                found: list[bytes] = []
                for kind, key in changes:
                    if kind == "cluster":
                        found.append(pulse(live))
                    if kind != "job" or not await caller.may("list", PLURAL, key.partition("/")[0]):
                        continue
                    view = live.jobs.items.get(key)
                    if view is None:
                        found.append(sse.event("gone", {"key": key}))
                    elif wanted.passes(view):
                        found.append(_encoded.of(view))
                if found or not changes:
                    yield b"".join(found) or sse.PING
                # Changes that come while this rests are sent once.
                await asyncio.sleep(rest_seconds(live.listeners))

    return sse.stream(parts, caller, events())


@router.get("/jobs/{namespace}/{name}/stream")
async def stream_job(
    caller: Asking, parts: Parts, namespace: Namespace, name: Name
) -> StreamingResponse:
    """Server-sent events ``job`` (a summary) now and at every change, ``gone`` when it is deleted,
    ``cluster`` as for all jobs, and ``end`` when the right to see the job is lost."""
    await caller.must("get", PLURAL, namespace, name)
    key = f"{namespace}/{name}"
    live = parts.live

    async def events() -> AsyncIterator[bytes]:
        async with live.subscribe(key) as subscription:
            while True:
                view = live.jobs.items.get(key)
                state = sse.event("gone", {"key": key}) if view is None else _encoded.of(view)
                yield pulse(live) + state
                while not await subscription.changes(sse.PING_SECONDS):
                    if not await caller.may("get", PLURAL, namespace, name):
                        yield sse.event("end", {"detail": "You may no longer see this job."})
                        return
                    yield sse.PING
                await asyncio.sleep(rest_seconds(live.listeners))

    return sse.stream(parts, caller, events())
