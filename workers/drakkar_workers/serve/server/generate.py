"""From a checked body to the text of its choices, as it comes."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from drakkar_workers.serve import tracing
from drakkar_workers.serve.engine.request import Grammar, Logprob, Request, Sampling
from drakkar_workers.serve.server.detokenize import Detokenizer
from drakkar_workers.serve.server.errors import ApiError
from drakkar_workers.serve.server.limits import Client
from drakkar_workers.serve.server.schemas import SamplingBody
from drakkar_workers.serve.server.service import Service


@dataclass(frozen=True, slots=True)
class Delta:
    """What is new of one choice."""

    index: int
    text: str
    tokens: list[int]
    logprobs: list[Logprob]
    finish: str | None = None
    stop_reason: str | int | None = None
    prompt_logprobs: Sequence[Logprob] = ()
    """With the first one, if they were asked for: of the prompt's tokens from the second on."""


@dataclass(slots=True)
class Usage:
    """Tokens of an answer, in all its choices."""

    prompt: int = 0
    generated: int = 0
    cached: int = 0

    def body(self) -> dict[str, object]:
        """As OpenAI shows it."""
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.generated,
            "total_tokens": self.prompt + self.generated,
            "prompt_tokens_details": {"cached_tokens": self.cached},
        }


@dataclass(slots=True)
class Job:
    """Requests of one HTTP request, and what belongs to all of them."""

    requests: list[Request]
    stops: list[str]
    keep_stop: bool
    usage: Usage = field(default_factory=Usage)


def prepare(
    service: Service,
    client: Client,
    body: SamplingBody,
    prompts: Sequence[list[int]],
    *,
    name: str,
    max_tokens: int | None,
    logprobs: int | None,
    grammar: Grammar | None,
    score_prompt: bool = False,
) -> Job:
    """Requests for the engine. Raises ApiError if the prompts do not fit or a limit is reached.

    ``max_tokens`` None means as many as fit. ``score_prompt``: log-probabilities of the prompt too.
    """
    adapter = service.adapter_of(body.model)
    choices = body.n or 1
    seed = body.seed if body.seed is not None else random.getrandbits(63)
    job = Job([], body.stops(), body.include_stop_str_in_output)
    for number, prompt in enumerate(prompts):
        limit = _output_limit(len(prompt), max_tokens, service.max_length)
        for choice in range(choices):
            index = number * choices + choice
            sampling = Sampling(
                max_tokens=limit,
                min_tokens=min(body.min_tokens, limit),
                temperature=1.0 if body.temperature is None else body.temperature,
                top_k=max(0, body.top_k or 0),
                top_p=1.0 if body.top_p is None else body.top_p,
                min_p=body.min_p or 0.0,
                repetition_penalty=body.repetition_penalty or 1.0,
                presence_penalty=body.presence_penalty or 0.0,
                frequency_penalty=body.frequency_penalty or 0.0,
                logit_bias={int(token): bias for token, bias in (body.logit_bias or {}).items()},
                seed=(seed + index * 0x632BE59BD9B4E019) % (1 << 64),
                logprobs=logprobs,
                stop_token_ids=tuple(body.stop_token_ids or ()),
                ignore_eos=body.ignore_eos,
                grammar=grammar,
            )
            job.requests.append(
                Request(
                    id=f"{name}-{index}",
                    prompt=prompt,
                    sampling=sampling,
                    priority=body.priority,
                    arrival=time.monotonic(),
                    adapter=adapter,
                    salt=body.cache_salt or "",
                    prompt_logprobs=logprobs if score_prompt else None,
                    follows=f"{name}-{index - choice}" if choice else None,
                )
            )
    job.usage.prompt = sum(len(prompt) for prompt in prompts)
    client.admit(job.usage.prompt)
    return job


async def run(service: Service, client: Client, job: Job) -> AsyncIterator[Delta]:
    """What comes of all choices, in any order. Raises ApiError; leaving early drops the rest."""
    if len(job.requests) == 1:
        async for delta in _choice(service, job, 0):
            yield delta
    else:
        async for delta in _merged(service, job):
            yield delta
    client.used(job.usage.generated)


async def _merged(service: Service, job: Job) -> AsyncIterator[Delta]:
    queue: asyncio.Queue[Delta | BaseException | None] = asyncio.Queue()

    async def pump(index: int) -> None:
        try:
            async for delta in _choice(service, job, index):
                queue.put_nowait(delta)
            queue.put_nowait(None)
        except Exception as error:
            queue.put_nowait(error)

    tasks = [asyncio.create_task(pump(index)) for index in range(len(job.requests))]
    try:
        left = len(tasks)
        while left:
            item = await queue.get()
            if item is None:
                left -= 1
            elif isinstance(item, BaseException):
                raise item
            else:
                yield item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _choice(service: Service, job: Job, index: int) -> AsyncIterator[Delta]:
    request, metrics = job.requests[index], service.metrics
    text = Detokenizer(service.tokenizer, job.stops, keep_stop=job.keep_stop)
    started, first, last, count = time.monotonic(), 0.0, 0.0, 0
    reason, queued = "abort", 0.0
    span = tracing.generation(
        request.adapter or service.names[0],
        len(request.prompt),
        request.sampling.max_tokens,
        request.sampling.temperature,
    )
    stream = service.engine.generate(request)
    try:
        async with contextlib.aclosing(stream):
            async for output in stream:
                now = time.monotonic()
                if not count:
                    first, queued = now, max(0.0, output.queued)
                    metrics.first_token.observe(now - started)
                    metrics.queue.observe(queued)
                    metrics.prefill.observe(max(0.0, now - started - output.queued))
                    job.usage.cached += output.cached
                elif output.tokens:
                    each = (now - last) / len(output.tokens)
                    for _ in output.tokens:
                        metrics.between.observe(each)
                last = now
                count += len(output.tokens)
                job.usage.generated += len(output.tokens)
                # The token that ends the text is no part of it.
                shown = output.tokens[:-1] if output.stopped_by is not None else output.tokens
                fresh = text.add(shown)
                finish: str | None = output.finish
                stop_reason: str | int | None = None
                if output.finish is not None and text.stopped is None:
                    fresh += text.finish()
                if text.stopped is not None:
                    finish, stop_reason = "stop", text.stopped
                elif output.stopped_by in request.sampling.stop_token_ids:
                    stop_reason = output.stopped_by
                reason = finish or reason
                logprobs = output.logprobs[: len(shown)]
                if fresh or finish or logprobs:
                    yield Delta(
                        index, fresh, list(shown), logprobs, finish, stop_reason,
                        output.prompt_logprobs,
                    )  # fmt: skip
                if finish is not None:
                    return
    finally:
        now = last or time.monotonic()
        metrics.ended(reason)
        tracing.generated(
            span, count, reason, seconds=now - started,
            first=first - started if first else None, queued=queued,
        )  # fmt: skip
        metrics.whole.observe(now - started)
        if first:
            metrics.decode.observe(now - first)
        metrics.prompt.inc(len(request.prompt))
        metrics.generated.inc(count)
        metrics.prompt_size.observe(len(request.prompt))
        metrics.output_size.observe(count)


def _output_limit(prompt: int, wanted: int | None, longest: int) -> int:
    if prompt == 0:
        raise ApiError("the prompt has no tokens", param="prompt")
    room = longest - prompt
    if room < 1 or (wanted is not None and wanted > room):
        asked = f" and {wanted} of output" if wanted is not None else ""
        raise ApiError(
            f"the model takes {longest} tokens; the prompt has {prompt}{asked}",
            param="max_tokens" if room > 0 else "prompt",
            code="context_length_exceeded",
        )
    return room if wanted is None else wanted
