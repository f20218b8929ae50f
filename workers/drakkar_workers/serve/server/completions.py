"""POST /v1/completions."""

from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from drakkar_workers.serve.engine.request import Logprob
from drakkar_workers.serve.server.answer import Answer
from drakkar_workers.serve.server.generate import Delta, Job, prepare
from drakkar_workers.serve.server.limits import Client
from drakkar_workers.serve.server.schemas import CompletionBody
from drakkar_workers.serve.server.service import CLIENT, SERVICE, Service, new_id, parse_body

DEFAULT_TOKENS = 16
"""OpenAI's default of max_tokens here."""


async def completions(request: web.Request) -> web.StreamResponse:
    """Continuations of prompts, whole or streamed."""
    answer = await completion_answer(request.app[SERVICE], request[CLIENT], await request.read())
    return await answer.reply(request)


async def completion_answer(service: Service, client: Client, raw: bytes) -> Answer[CompletionBody]:
    """The answer to a body. Raises ApiError."""
    body = parse_body(raw, CompletionBody)
    prompts = await prompt_ids(service, body.prompt)
    name = new_id("cmpl")
    job = prepare(
        service, client, body, prompts,
        name=name,
        max_tokens=body.max_tokens or DEFAULT_TOKENS,
        logprobs=body.logprobs,
        grammar=body.grammar(),
        score_prompt=body.echo and body.logprobs is not None,
    )  # fmt: skip
    return _Answer(service, client, body, job, name)


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


class _Answer(Answer[CompletionBody]):
    kind = "text_completion"

    def __init__(
        self, service: Service, client: Client, body: CompletionBody, job: Job, name: str
    ) -> None:
        super().__init__(service, client, body, job, name)
        self._offsets = [0] * len(job.requests)

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """Chunks."""
        options = self.body.stream_options
        told: set[int] = set()
        async for delta in self.deltas():
            text = delta.text
            if delta.index not in told:
                told.add(delta.index)
                text = self._echo(delta.index) + text
            yield {**self.head, "choices": [{**self._choice(delta), "text": text}]}
        if options is not None and options.include_usage:
            yield {**self.head, "choices": [], "usage": self.job.usage.body()}

    async def whole(self) -> dict[str, Any]:
        """The answer at once."""
        count = len(self.job.requests)
        texts = [self._echo(index) for index in range(count)]
        logprobs: list[dict[str, list[Any]]] = [{} for _ in range(count)]
        choices: list[dict[str, Any]] = [{} for _ in range(count)]
        async for delta in self.deltas():
            texts[delta.index] += delta.text
            choice = self._choice(delta)
            for key, values in (choice["logprobs"] or {}).items():
                logprobs[delta.index].setdefault(key, []).extend(values)
            if delta.finish is not None:
                choices[delta.index] = choice
        for i, choice in enumerate(choices):
            choice["text"] = texts[i]
            choice["logprobs"] = logprobs[i] if self.body.logprobs is not None else None
        return {**self.head, "choices": choices, "usage": self.job.usage.body()}

    def _echo(self, index: int) -> str:
        if not self.body.echo:
            return ""
        prompt = self.job.requests[index].prompt
        text: str = self.service.tokenizer.decode(prompt, skip_special_tokens=True)
        return text

    def _choice(self, delta: Delta) -> dict[str, Any]:
        choice: dict[str, Any] = {
            "index": delta.index,
            "logprobs": self._logprobs(delta) if self.body.logprobs is not None else None,
            "finish_reason": delta.finish,
        }
        return choice | ({"stop_reason": delta.stop_reason} if delta.finish else {})

    def _logprobs(self, delta: Delta) -> dict[str, list[Any]]:
        pairs: list[tuple[int, Logprob | None]] = []
        if delta.prompt_logprobs:
            # Nothing precedes the first token, so it has no probability.
            prompt = self.job.requests[delta.index].prompt
            pairs += zip(prompt, [None, *delta.prompt_logprobs], strict=True)
        pairs += zip(delta.tokens, delta.logprobs, strict=False)
        tokens, values, tops, offsets = [], [], [], []
        for token, found in pairs:
            text = self._text(token)
            tokens.append(text)
            values.append(None if found is None else max(found.value, -9999.0))
            tops.append(
                None if found is None else {self._text(other): value for other, value in found.top}
            )
            offsets.append(self._offsets[delta.index])
            self._offsets[delta.index] += len(text)
        return {
            "tokens": tokens,
            "token_logprobs": values,
            "top_logprobs": tops,
            "text_offset": offsets,
        }

    def _text(self, token: int) -> str:
        text: str = self.service.tokenizer.decode([token], skip_special_tokens=False)
        return text
