"""POST /v1/chat/completions."""

from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from drakkar_workers.serve.engine.request import Logprob
from drakkar_workers.serve.server.answer import Answer
from drakkar_workers.serve.server.generate import Delta, Job, prepare
from drakkar_workers.serve.server.limits import Client
from drakkar_workers.serve.server.schemas import ChatBody
from drakkar_workers.serve.server.service import CLIENT, SERVICE, Service, new_id, parse_body
from drakkar_workers.serve.server.templates import fill
from drakkar_workers.serve.server.tools import ToolParser, demanded, instructions


async def chat(request: web.Request) -> web.StreamResponse:
    """An answer to a conversation, whole or streamed."""
    answer = await chat_answer(request.app[SERVICE], request[CLIENT], await request.read())
    return await answer.reply(request)


async def chat_answer(service: Service, client: Client, raw: bytes) -> "ChatAnswer":
    """The answer to a body. Raises ApiError."""
    body = parse_body(raw, ChatBody)
    name = new_id("chatcmpl")
    job = await begin(service, client, body, name)
    return ChatAnswer(service, client, body, job, name)


async def begin(service: Service, client: Client, body: ChatBody, name: str) -> Job:
    """The request for the engine. Raises ApiError."""
    prompt = await service.encode(render(service, body), special=False)
    return prepare(
        service, client, body, [prompt],
        name=name,
        max_tokens=body.max_completion_tokens or body.max_tokens,
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        grammar=demanded(body) or body.grammar(),
    )  # fmt: skip


def render(service: Service, body: ChatBody) -> str:
    """The prompt of a conversation. Raises ApiError."""
    messages = [message.plain() for message in body.messages]
    tools = None
    if body.tools and body.tool_choice != "none":
        if service.template.knows_tools:
            tools = [tool.model_dump(exclude_none=True) for tool in body.tools]
        else:
            text = instructions(body.tools)
            if messages[0]["role"] == "system":
                first = {**messages[0], "content": f"{messages[0]['content']}\n\n{text}"}
                messages = [first, *messages[1:]]
            else:
                messages = [{"role": "system", "content": text}, *messages]
    extra = body.chat_template_kwargs or {}
    safe = {key: value for key, value in extra.items() if key not in {"messages", "tools"}}
    return fill(service.template, messages, tools, **safe)


class ChatAnswer(Answer[ChatBody]):
    """Text and calls of functions."""

    kind = "chat.completion"

    def __init__(
        self, service: Service, client: Client, body: ChatBody, job: Job, name: str
    ) -> None:
        super().__init__(service, client, body, job, name)
        reads_calls = bool(body.tools) and body.tool_choice != "none"
        forced = demanded(body) is not None
        self._parsers = [ToolParser(whole=forced) if reads_calls else None for _ in job.requests]

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """Chunks."""
        options = self.body.stream_options
        told: set[int] = set()
        async for delta in self.deltas():
            shown: dict[str, Any] = {}
            if delta.index not in told:
                told.add(delta.index)
                shown["role"] = "assistant"
            text, calls = self.read(delta)
            if text or "role" in shown:
                shown["content"] = text
            if calls:
                shown["tool_calls"] = [{"index": i, **call} for i, call in enumerate(calls)]
            choice = self._choice(delta, "tool_calls" if calls else delta.finish)
            chunk = {**self.head, "object": "chat.completion.chunk"}
            chunk["choices"] = [{**choice, "delta": shown}]
            if options is not None and options.continuous_usage_stats:
                chunk["usage"] = self.job.usage.body()
            yield chunk
        if options is not None and options.include_usage:
            last = {**self.head, "object": "chat.completion.chunk", "choices": []}
            yield {**last, "usage": self.job.usage.body()}

    async def whole(self) -> dict[str, Any]:
        """The answer at once."""
        count = len(self.job.requests)
        texts = [""] * count
        calls: list[list[dict[str, Any]]] = [[] for _ in range(count)]
        logprobs: list[list[dict[str, Any]]] = [[] for _ in range(count)]
        choices: list[dict[str, Any]] = [{} for _ in range(count)]
        async for delta in self.deltas():
            i = delta.index
            text, found = self.read(delta)
            texts[i] += text
            calls[i] += found
            choice = self._choice(delta, "tool_calls" if found else delta.finish)
            if choice["logprobs"]:
                logprobs[i] += choice["logprobs"]["content"]
            if delta.finish is not None:
                choices[i] = choice
        for i, choice in enumerate(choices):
            message: dict[str, Any] = {"role": "assistant", "content": texts[i], "refusal": None}
            if calls[i]:
                message |= {"tool_calls": calls[i], "content": texts[i] or None}
            choice["message"] = message
            choice["logprobs"] = {"content": logprobs[i]} if self.body.logprobs else None
        usage = self.job.usage.body()
        return {**self.head, "choices": choices, "usage": usage}

    def read(self, delta: Delta) -> tuple[str, list[dict[str, Any]]]:
        """What is new of the text, and at the end the calls."""
        parser = self._parsers[delta.index]
        if parser is None:
            return delta.text, []
        text = parser.add(delta.text)
        if delta.finish is None:
            return text, []
        rest, calls = parser.finish(parallel=self.body.parallel_tool_calls is not False)
        return text + rest, calls

    def _choice(self, delta: Delta, finish: str | None) -> dict[str, Any]:
        logprobs = None
        if self.body.logprobs:
            pairs = zip(delta.tokens, delta.logprobs, strict=False)
            logprobs = {"content": [token_logprob(self.service, *pair) for pair in pairs]}
        choice = {"index": delta.index, "logprobs": logprobs, "finish_reason": finish}
        return choice | ({"stop_reason": delta.stop_reason} if delta.finish else {})


def token_logprob(service: Service, token: int, found: Logprob) -> dict[str, Any]:
    """A token's log-probability as OpenAI shows it."""
    top = [_token(service, other, value) for other, value in found.top]
    return {**_token(service, token, found.value), "top_logprobs": top}


def _token(service: Service, token: int, value: float) -> dict[str, Any]:
    text = service.tokenizer.decode([token], skip_special_tokens=False)
    # A part of a character has no text of its own.
    whole = "\ufffd" not in text
    return {
        "token": text,
        "logprob": max(value, -9999.0),
        "bytes": list(text.encode()) if whole else None,
    }
