"""Answers one request of a batch as the server answers it over HTTP."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

import orjson

from drakkar_workers.serve.server.chat import chat_answer
from drakkar_workers.serve.server.completions import completion_answer
from drakkar_workers.serve.server.embeddings import embed
from drakkar_workers.serve.server.limits import Client
from drakkar_workers.serve.server.responses import response_answer
from drakkar_workers.serve.server.service import Service


async def _chat(service: Service, client: Client, raw: bytes) -> dict[str, Any]:
    return await (await chat_answer(service, client, raw)).at_once()


async def _completion(service: Service, client: Client, raw: bytes) -> dict[str, Any]:
    return await (await completion_answer(service, client, raw)).at_once()


async def _response(service: Service, client: Client, raw: bytes) -> dict[str, Any]:
    return await (await response_answer(service, client, raw)).at_once()


ANSWERS: Final[dict[str, Callable[[Service, Client, bytes], Awaitable[dict[str, Any]]]]] = {
    "/v1/chat/completions": _chat,
    "/v1/completions": _completion,
    "/v1/embeddings": embed,
    "/v1/responses": _response,
}


async def execute(
    service: Service, client: str, endpoint: str, body: dict[str, Any]
) -> dict[str, Any]:
    """The answer to a body, within the limits of the client's key. Raises ApiError."""
    with service.handling():
        return await ANSWERS[endpoint](service, service.clients.named(client), orjson.dumps(body))
