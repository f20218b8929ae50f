"""Server-sent events."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
from aiohttp import web

from drakkar_workers.serve.server.errors import ApiError, timed_out

DONE = b"data: [DONE]\n\n"


async def send(
    request: web.Request, events: AsyncIterator[dict[str, Any]], timeout: float
) -> web.StreamResponse:
    """Send events as they come, then ``[DONE]``.

    Nothing is sent before the first event, so that a refusal is an ordinary answer with its
    status; what fails later is an event with the error, and no ``[DONE]``.
    """
    response = web.StreamResponse(
        headers={
            "Content-Type": "text/event-stream; charset=utf-8",
            "Cache-Control": "no-cache",
            # Proxies of the nginx kind would collect events otherwise.
            "X-Accel-Buffering": "no",
        }
    )
    try:
        async with asyncio.timeout(timeout):
            async for event in events:
                if not response.prepared:
                    await response.prepare(request)
                # Events of /v1/responses have a type, and it is their name too.
                name = f"event: {event['type']}\n" if "type" in event else ""
                await response.write(name.encode() + b"data: " + orjson.dumps(event) + b"\n\n")
        await response.write(DONE)
    except TimeoutError:
        await _fail(response, timed_out(timeout))
    except ApiError as error:
        await _fail(response, error)
    await response.write_eof()
    return response


async def _fail(response: web.StreamResponse, error: ApiError) -> None:
    if not response.prepared:
        raise error
    await response.write(b"data: " + orjson.dumps(error.body()) + b"\n\n")
