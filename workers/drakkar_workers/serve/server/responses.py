"""POST /v1/responses: a conversation as items. Nothing is stored."""

import time
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web
from pydantic import ValidationError

from drakkar_workers.serve.server.chat import ChatAnswer, begin, token_logprob
from drakkar_workers.serve.server.generate import Job
from drakkar_workers.serve.server.limits import Client
from drakkar_workers.serve.server.response_schemas import ResponsesBody
from drakkar_workers.serve.server.schemas import ChatBody
from drakkar_workers.serve.server.service import (
    CLIENT,
    SERVICE,
    Service,
    invalid,
    new_id,
    parse_body,
)

Event = dict[str, Any]


async def responses(request: web.Request) -> web.StreamResponse:
    """An answer as items, whole or as events."""
    answer = await response_answer(request.app[SERVICE], request[CLIENT], await request.read())
    return await answer.reply(request)


async def response_answer(service: Service, client: Client, raw: bytes) -> ChatAnswer:
    """The answer to a body. Raises ApiError."""
    asked = parse_body(raw, ResponsesBody)
    try:
        body = ChatBody.model_validate(asked.chat())
    except ValidationError as error:
        raise invalid(error) from None
    name = new_id("resp")
    job = await begin(service, client, body, name)
    return _Response(service, client, body, job, name, asked)


class _Response(ChatAnswer):
    """A message, if there is text, and calls of functions, in the order of their ends."""

    def __init__(
        self,
        service: Service,
        client: Client,
        body: ChatBody,
        job: Job,
        name: str,
        asked: ResponsesBody,
    ) -> None:
        super().__init__(service, client, body, job, name)
        self._asked = asked
        self._created = int(time.time())
        self._message = new_id("msg")
        self._text = ""
        self._logprobs: list[dict[str, Any]] = []
        self._calls: list[dict[str, Any]] = []
        self._cut = False
        """It ended because there was no room for more."""

    async def whole(self) -> Event:
        """The answer at once."""
        async for delta in self.deltas():
            text, calls = self.read(delta)
            self._take(text, calls, delta.tokens, delta.logprobs)
            self._cut = delta.finish == "length"
        return self._body(done=True)

    async def events(self) -> AsyncIterator[Event]:
        """What a client follows, numbered."""
        number = 0
        async for event in self._events():
            yield {**event, "sequence_number": number}
            number += 1

    async def _events(self) -> AsyncIterator[Event]:
        begun = False
        async for delta in self.deltas():
            if not begun:
                # Not before the first token: until then a refusal is an answer with its status.
                begun = True
                yield {"type": "response.created", "response": self._body(done=False)}
                yield {"type": "response.in_progress", "response": self._body(done=False)}
            text, calls = self.read(delta)
            before = len(self._logprobs)
            opened = bool(self._text)
            self._take(text, calls, delta.tokens, delta.logprobs)
            self._cut = delta.finish == "length"
            if text:
                if not opened:
                    for event in self._open_message():
                        yield event
                yield {
                    "type": "response.output_text.delta", **self._place(), "delta": text,
                    "logprobs": self._logprobs[before:],
                }  # fmt: skip
        for event in self._close_items():
            yield event
        kind = "response.incomplete" if self._cut else "response.completed"
        yield {"type": kind, "response": self._body(done=True)}

    def _take(
        self, text: str, calls: list[dict[str, Any]], tokens: list[int], logprobs: list[Any]
    ) -> None:
        self._text += text
        self._calls += calls
        if self.body.logprobs:
            pairs = zip(tokens, logprobs, strict=False)
            self._logprobs += [token_logprob(self.service, *pair) for pair in pairs]

    def _place(self) -> Event:
        return {"item_id": self._message, "output_index": 0, "content_index": 0}

    def _open_message(self) -> list[Event]:
        item = {**self._message_item(), "status": "in_progress", "content": []}
        part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        return [
            {"type": "response.output_item.added", "output_index": 0, "item": item},
            {"type": "response.content_part.added", **self._place(), "part": part},
        ]

    def _close_items(self) -> list[Event]:
        events: list[Event] = []
        items = self._items()
        if not self._text and not self._calls:
            events += self._open_message()
        if items[0]["type"] == "message":
            message = items[0]
            part = message["content"][0]
            events += [
                {
                    "type": "response.output_text.done", **self._place(), "text": self._text,
                    "logprobs": self._logprobs,
                },
                {"type": "response.content_part.done", **self._place(), "part": part},
                {"type": "response.output_item.done", "output_index": 0, "item": message},
            ]  # fmt: skip
        for index, item in enumerate(items):
            if item["type"] != "function_call":
                continue
            place = {"item_id": item["id"], "output_index": index}
            fresh = {**item, "arguments": "", "status": "in_progress"}
            text = item["arguments"]
            events += [
                {"type": "response.output_item.added", "output_index": index, "item": fresh},
                {"type": "response.function_call_arguments.delta", **place, "delta": text},
                {
                    "type": "response.function_call_arguments.done", **place,
                    "name": item["name"], "arguments": text,
                },
                {"type": "response.output_item.done", "output_index": index, "item": item},
            ]  # fmt: skip
        return events

    def _message_item(self) -> dict[str, Any]:
        part = {
            "type": "output_text", "text": self._text, "annotations": [],
            "logprobs": self._logprobs,
        }  # fmt: skip
        status = "incomplete" if self._cut else "completed"
        return {
            "type": "message", "id": self._message, "role": "assistant", "status": status,
            "content": [part],
        }  # fmt: skip

    def _items(self) -> list[dict[str, Any]]:
        items = [self._message_item()] if self._text or not self._calls else []
        for call in self._calls:
            function = call["function"]
            items.append(
                {
                    "type": "function_call",
                    "id": call["id"].replace("call", "fc", 1),
                    "call_id": call["id"],
                    "status": "completed",
                    **function,
                }
            )
        return items

    def _body(self, *, done: bool) -> dict[str, Any]:
        asked, used = self._asked, self.job.usage
        status = "incomplete" if self._cut else "completed"
        usage = {
            "input_tokens": used.prompt,
            "input_tokens_details": {"cached_tokens": used.cached, "cache_write_tokens": 0},
            "output_tokens": used.generated,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": used.prompt + used.generated,
        }
        choice = asked.tool_choice
        return {
            "id": self.head["id"],
            "object": "response",
            "created_at": self._created,
            "status": status if done else "in_progress",
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if self._cut else None,
            "instructions": asked.instructions,
            "max_output_tokens": asked.max_output_tokens,
            "model": self.head["model"],
            "output": self._items() if done else [],
            "parallel_tool_calls": asked.parallel_tool_calls,
            "previous_response_id": None,
            "store": False,
            "temperature": 1.0 if asked.temperature is None else asked.temperature,
            "text": asked.text.model_dump(by_alias=True, exclude_none=True),
            "tool_choice": choice if isinstance(choice, str) else choice.model_dump(),
            "tools": [tool.model_dump(exclude_none=True) for tool in asked.tools],
            "top_p": 1.0 if asked.top_p is None else asked.top_p,
            "truncation": "disabled",
            "usage": usage if done else None,
            "user": asked.user,
            "metadata": asked.metadata or {},
        }
