"""POST /v1/embeddings: means of the last hidden states, of length 1."""

import asyncio
import base64
import time
from typing import Any

import numpy as np
import orjson
from aiohttp import web

from drakkar_workers.serve.engine.request import Request
from drakkar_workers.serve.server.completions import prompt_ids
from drakkar_workers.serve.server.errors import ApiError, timed_out
from drakkar_workers.serve.server.limits import Client
from drakkar_workers.serve.server.schemas import EmbeddingBody
from drakkar_workers.serve.server.service import CLIENT, SERVICE, Service, new_id, parse_body


async def embeddings(request: web.Request) -> web.Response:
    """A vector for each input."""
    answer = await embed(request.app[SERVICE], request[CLIENT], await request.read())
    return web.Response(body=orjson.dumps(answer), content_type="application/json")


async def embed(service: Service, client: Client, raw: bytes) -> dict[str, Any]:
    """The vectors of a body's inputs. Raises ApiError."""
    body = parse_body(raw, EmbeddingBody)
    adapter = service.adapter_of(body.model)
    inputs = await prompt_ids(service, body.input)
    for index, ids in enumerate(inputs):
        if not 0 < len(ids) <= service.max_length:
            raise ApiError(
                f"input {index} has {len(ids)} tokens; the model takes 1 to {service.max_length}",
                param="input",
                code="context_length_exceeded",
            )
    total = sum(len(ids) for ids in inputs)
    client.admit(total)
    name = new_id("embd")
    wanted = [
        Request(id=f"{name}-{i}", prompt=ids, embed=True, arrival=time.monotonic(), adapter=adapter)
        for i, ids in enumerate(inputs)
    ]
    try:
        async with asyncio.timeout(service.timeout), asyncio.TaskGroup() as group:
            tasks = [group.create_task(_embed(service, one)) for one in wanted]
    except TimeoutError:
        raise timed_out(service.timeout) from None
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    vectors = [task.result()[: body.dimensions] for task in tasks]
    if body.dimensions is not None:
        vectors = [_unit(vector) for vector in vectors]
    data = [
        {"object": "embedding", "index": i, "embedding": _encoded(vector, body.encoding_format)}
        for i, vector in enumerate(vectors)
    ]
    return {
        "object": "list",
        "data": data,
        "model": body.model or service.names[0],
        "usage": {"prompt_tokens": total, "total_tokens": total},
    }


async def _embed(service: Service, request: Request) -> list[float]:
    async for output in service.engine.generate(request):
        service.metrics.prompt.inc(len(request.prompt))
        service.metrics.ended("stop")
        return output.embedding
    raise AssertionError("the engine ended a request without a word")


def _unit(vector: list[float]) -> list[float]:
    length = max(float(np.linalg.norm(vector)), 1e-12)
    return [value / length for value in vector]


def _encoded(vector: list[float], form: str) -> list[float] | str:
    if form == "float":
        return vector
    return base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode()
