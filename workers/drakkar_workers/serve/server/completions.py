"""POST /v1/completions."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import orjson
from aiohttp import web

from drakkar_workers.serve.server.errors import ApiError, timed_out
from drakkar_workers.serve.server.generate import Delta, Job, prepare, run
from drakkar_workers.serve.server.limits import Client
from drakkar_workers.serve.server.schemas import CompletionBody
from drakkar_workers.serve.server.service import CLIENT, SERVICE, Service, new_id, parse
from drakkar_workers.serve.server.streams import send

DEFAULT_TOKENS = 16
"""OpenAI's default of max_tokens here."""


async def completions(request: web.Request) -> web.StreamResponse:
    """Continuations of prompts, whole or streamed."""
    service, client = request.app[SERVICE], request[CLIENT]
    body = await parse(request, CompletionBody)
    if body.echo and body.logprobs is not None:
        raise ApiError("echo with logprobs is not supported", param="echo")
    prompts = await prompt_ids(service, body.prompt)
    name = new_id("cmpl")
    job = prepare(
        service, client, body, prompts,
        name=name,
        max_tokens=body.max_tokens or DEFAULT_TOKENS,
        logprobs=body.logprobs,
        grammar=body.grammar(),
    )  # fmt: skip
    answer = _Answer(service, client, body, job, name)
    if body.stream:
        return await send(request, answer.events(), service.timeout)
    try:
        async with asyncio.timeout(service.timeout):
            whole = await answer.whole()
    except TimeoutError:
        raise timed_out(service.timeout) from None
    return web.Response(body=orjson.dumps(whole), content_type="application/json")


async def prompt_ids(
    service: Service, prompt: str | list[int] | list[str] | list[list[int]]
) -> list[list[int]]:
    """Token ids of each of one or several texts or lists of ids."""
    if isinstance(prompt, str):
        return [await service.encode(prompt)]
    found: list[list[int]] = []
    plain: list[int] = []
    for one in prompt:
        if isinstance(one, int):
            plain.append(one)
        elif isinstance(one, str):
            found.append(await service.encode(one))
        else:
            found.append(one)
    return [plain] if plain else found


class _Answer:
    """One answer on its way."""

    def __init__(
        self, service: Service, client: Client, body: CompletionBody, job: Job, name: str
    ) -> None:
        self._service = service
        self._client = client
        self._body = body
        self._job = job
        self._head = {
            "id": name,
            "object": "text_completion",
            "created": int(time.time()),
            "model": body.model or service.names[0],
        }
        self._offsets = [0] * len(job.requests)

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """Chunks."""
        options = self._body.stream_options
        told: set[int] = set()
        async for delta in run(self._service, self._client, self._job):
            text = delta.text
            if delta.index not in told:
                told.add(delta.index)
                text = self._echo(delta.index) + text
            yield {**self._head, "choices": [{**self._choice(delta), "text": text}]}
        if options is not None and options.include_usage:
            yield {**self._head, "choices": [], "usage": self._job.usage.body()}

    async def whole(self) -> dict[str, Any]:
        """The answer at once."""
        count = len(self._job.requests)
        texts = [self._echo(index) for index in range(count)]
        logprobs: list[dict[str, list[Any]]] = [{} for _ in range(count)]
        choices: list[dict[str, Any]] = [{} for _ in range(count)]
        async for delta in run(self._service, self._client, self._job):
            texts[delta.index] += delta.text
            choice = self._choice(delta)
            for key, values in (choice["logprobs"] or {}).items():
                logprobs[delta.index].setdefault(key, []).extend(values)
            if delta.finish is not None:
                choices[delta.index] = choice
        for i, choice in enumerate(choices):
            choice["text"] = texts[i]
            choice["logprobs"] = logprobs[i] if self._body.logprobs is not None else None
        return {**self._head, "choices": choices, "usage": self._job.usage.body()}

    def _echo(self, index: int) -> str:
        if not self._body.echo:
            return ""
        prompt = self._job.requests[index].prompt
        text: str = self._service.tokenizer.decode(prompt, skip_special_tokens=True)
        return text

    def _choice(self, delta: Delta) -> dict[str, Any]:
        choice: dict[str, Any] = {
            "index": delta.index,
            "logprobs": self._logprobs(delta) if self._body.logprobs is not None else None,
            "finish_reason": delta.finish,
        }
        return choice | ({"stop_reason": delta.stop_reason} if delta.finish else {})

    def _logprobs(self, delta: Delta) -> dict[str, list[Any]]:
        tokens, values, tops, offsets = [], [], [], []
        for token, found in zip(delta.tokens, delta.logprobs, strict=False):
            text = self._text(token)
            tokens.append(text)
            values.append(max(found.value, -9999.0))
            tops.append({self._text(other): value for other, value in found.top})
            offsets.append(self._offsets[delta.index])
            self._offsets[delta.index] += len(text)
        return {
            "tokens": tokens,
            "token_logprobs": values,
            "top_logprobs": tops,
            "text_offset": offsets,
        }

    def _text(self, token: int) -> str:
        text: str = self._service.tokenizer.decode([token], skip_special_tokens=False)
        return text
