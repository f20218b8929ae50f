"""Trying a service: a conversation with its model through its router, as the user who asks.

The way leads through the API server's proxy with the user's own token. So Kubernetes decides who may
speak to a service (``create`` on ``services/proxy``), and the server can be led nowhere else.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Annotated, Any, Final, Literal

import orjson
from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from drakkar.kube.rest import ApiError, StreamError
from drakkar_server import sse
from drakkar_server.auth.caller import Asking, Caller
from drakkar_server.cluster.state import SERVICES
from drakkar_server.context import Parts
from drakkar_server.names import Name, Namespace
from drakkar_server.problems import from_api
from drakkar_server.services.router import read_service

router = APIRouter(prefix="/api/v1", tags=["services"])
MOST_TOKENS: Final = 4096
MOST_SECONDS: Final = 900.0
"""An answer that takes longer is cut."""
SILENCE_SECONDS: Final = 600.0
"""So long a service without replicas may take to get one."""
MOST_CHARACTERS: Final = 400_000
"""Of one answer."""


class Message(BaseModel):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: Annotated[str, Field(max_length=100_000)]


class Question(BaseModel):
    """What the model is to answer: a conversation, or a text to go on with."""

    messages: list[Message] = Field(min_length=1, max_length=200)
    complete: bool = Field(
        default=False,
        description="Let the model go on with the last message's text, without a chat template.",
    )
    model: str | None = Field(default=None, max_length=253, description="An adapter's name.")
    max_tokens: int = Field(default=512, ge=1, le=MOST_TOKENS)
    temperature: float = Field(default=0.7, ge=0, le=2)


def request_of(question: Question, service: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """(path, body) of OpenAI's API. Pure."""
    served = ((service.get("spec") or {}).get("model") or {}).get("name")
    body: dict[str, Any] = {
        "model": question.model or served or service["metadata"]["name"],
        "max_tokens": question.max_tokens,
        "temperature": question.temperature,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if question.complete:
        return "/v1/completions", {**body, "prompt": question.messages[-1].content}
    messages = [message.model_dump() for message in question.messages]
    return "/v1/chat/completions", {**body, "messages": messages}


def told(line: bytes) -> tuple[str, Any] | None:
    """(event, data) of a line of the router's stream; None for one that says nothing. Pure."""
    if not line.startswith(b"data:"):
        return None
    text = line[5:].strip()
    if text == b"[DONE]":
        return "end", {"detail": ""}
    try:
        chunk = orjson.loads(text)
        if problem := chunk.get("error"):
            return "problem", {"detail": str(problem.get("message") or problem)[:2000]}
        choice: dict[str, Any] = next(iter(chunk.get("choices") or ()), {})
        piece = (choice.get("delta") or {}).get("content") or choice.get("text")
        usage = chunk.get("usage")
        if usage:
            keys = ("prompt_tokens", "completion_tokens", "total_tokens")
            counts = {key: usage.get(key) for key in keys}
            return "usage", {**counts, "text": piece or ""}
        if piece:
            return "text", {"text": str(piece)}
        if reason := choice.get("finish_reason"):
            return "finish", {"reason": str(reason)}
    except (orjson.JSONDecodeError, AttributeError, TypeError):
        return "problem", {"detail": "The service sent something that is no chunk of an answer."}
    return None


async def answer(
    caller: Caller, namespace: str, name: str, path: str, body: dict[str, Any]
) -> AsyncGenerator[tuple[str, Any], None]:
    """Events of an answer; the last one is ``end`` or ``problem``."""
    where = f"/api/v1/namespaces/{namespace}/services/{name}:http/proxy{path}"
    said = 0
    try:
        async with asyncio.timeout(MOST_SECONDS):
            async for line in caller.rest.lines(where, {}, silence=SILENCE_SECONDS, body=body):
                event = told(line)
                if event is None:
                    continue
                yield event
                if event[0] in ("end", "problem"):
                    return
                said += len(event[1].get("text", ""))
                if said > MOST_CHARACTERS:
                    yield "problem", {"detail": f"Cut after {MOST_CHARACTERS} characters."}
                    return
        yield "problem", {"detail": "The answer broke off: its replica is gone."}
    except TimeoutError:
        yield "problem", {"detail": f"Cut after {MOST_SECONDS:.0f} seconds."}
    except StreamError as error:
        yield "problem", {"detail": str(error)}
    except ApiError as error:
        yield "problem", {"detail": reason_of(error, namespace, name)}


def reason_of(error: ApiError, namespace: str, name: str) -> str:
    """Why a service gave no answer, and what to do. Pure."""
    if error.status == 403:
        return (
            f"You may not speak to services in {namespace}: that takes the right to create "
            "services/proxy there, which the role edit has."
        )
    if error.status == 401:
        return "The cluster does not accept your token: sign in again."
    message = error.message
    try:
        # The router's own words, in OpenAI's shape.
        message = str(orjson.loads(message)["error"]["message"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        if error.status not in (400, 404, 422, 429, 503):
            return from_api(error, f"Service {namespace}/{name}").details.detail
    return f"{name} refuses ({error.status}): {message}"


@router.post("/services/{namespace}/{name}/chat/stream")
async def chat(
    caller: Asking, parts: Parts, namespace: Namespace, name: Name, question: Question
) -> StreamingResponse:
    """Server-sent events ``text`` as the model writes, ``usage`` (tokens), then ``end`` or ``problem``.

    Answers are cut at 4096 tokens and 15 minutes. A reader that goes away ends the request.
    """
    await caller.must("get", SERVICES, namespace, name)
    path, body = request_of(question, await read_service(caller, namespace, name))
    caller.audit("chat", f"InferenceService {namespace}/{name}", "asked")

    async def events() -> AsyncIterator[bytes]:
        # Proxies in between keep a stream that says something while a replica comes.
        yield sse.PING
        waiting: asyncio.Queue[tuple[str, Any]] = asyncio.Queue(maxsize=256)

        async def read() -> None:
            async for event in answer(caller, namespace, name, path, body):
                await waiting.put(event)

        reading = asyncio.create_task(read())
        try:
            while True:
                try:
                    kind, data = await asyncio.wait_for(waiting.get(), sse.PING_SECONDS)
                except TimeoutError:
                    if reading.done() and waiting.empty():
                        yield sse.event("problem", {"detail": "The answer broke off."})
                        return
                    yield sse.PING
                    continue
                yield sse.event(kind, data)
                if kind in ("end", "problem"):
                    return
        finally:
            reading.cancel()

    return sse.stream(parts, caller, events())
