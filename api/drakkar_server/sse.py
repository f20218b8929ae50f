"""Server-sent events."""

from collections.abc import AsyncIterator
from typing import Any

import orjson
from fastapi.responses import StreamingResponse

from drakkar_server.auth.caller import Caller
from drakkar_server.context import Context
from drakkar_server.problems import ProblemError

PING_SECONDS = 15.0
"""A stream is never silent for longer, so that proxies keep it and dead clients are noticed."""
PING = b": still here\n\n"


def event(kind: str, data: Any) -> bytes:
    """One event; data as JSON is always one line."""
    return b"event: " + kind.encode() + b"\ndata: " + orjson.dumps(data) + b"\n\n"


def stream(context: Context, caller: Caller, events: AsyncIterator[bytes]) -> StreamingResponse:
    """Answer with events. Raises ProblemError if the user has too many streams open."""
    if context.streams.full(caller.user.name):
        raise ProblemError(
            429,
            f"You have {context.streams.most} streams open: close some.",
            kind="urn:drakkar:too-many-streams",
            headers={"Retry-After": "5"},
        )

    async def counted() -> AsyncIterator[bytes]:
        with context.streams.one(caller.user.name), context.metrics.streams.track_inprogress():
            async for part in events:
                yield part

    return StreamingResponse(
        counted(),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )
