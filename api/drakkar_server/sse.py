"""Server-sent events."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import orjson
import structlog
from fastapi.responses import StreamingResponse
from starlette.types import Message, Send

from drakkar.kube.rest import ApiError
from drakkar_server.auth.caller import Caller
from drakkar_server.context import Context
from drakkar_server.problems import ProblemError

PING_SECONDS = 15.0
"""A stream is never silent for longer, so that proxies keep it and dead clients are noticed."""
PING = b": still here\n\n"


STALL_SECONDS = 60.0
"""A client that takes nothing for so long is let go: it may come back, and holds nothing until then."""
log = structlog.get_logger(__name__)


class EventStream(StreamingResponse):
    """An answer that goes on. What a client does not take waits in its own connection, some 64 KiB;
    meanwhile nothing more is made for it."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[bytes, None], headers: dict[str, str]) -> None:
        super().__init__(events, headers=headers)
        self._events = events

    async def stream_response(self, send: Send) -> None:
        async def patient(message: Message) -> None:
            async with asyncio.timeout(STALL_SECONDS):
                await send(message)

        try:
            await super().stream_response(patient)
        except TimeoutError:
            log.info("a stream's client takes nothing", seconds=STALL_SECONDS)
            # Ends the connection: the client sees that it is cut off rather than complete.
            raise OSError("the client takes nothing") from None
        finally:
            # At once rather than when it is collected: its place among the user's streams is free.
            await self._events.aclose()


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

    async def counted() -> AsyncGenerator[bytes, None]:
        with context.streams.one(caller.user.name), context.metrics.streams.track_inprogress():
            try:
                async for part in events:
                    yield part
            except ApiError as error:
                # Rights can't be asked for: the browser comes back and is told.
                log.info("a stream ends", error=str(error))

    return EventStream(
        counted(),
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )
