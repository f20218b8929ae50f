"""What the answers of all endpoints that generate text have in common."""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from typing import Any, Generic, TypeVar

import orjson
from aiohttp import web

from drakkar_workers.serve.server.errors import timed_out
from drakkar_workers.serve.server.generate import Delta, Job, run
from drakkar_workers.serve.server.limits import Client
from drakkar_workers.serve.server.schemas import SamplingBody
from drakkar_workers.serve.server.service import Service
from drakkar_workers.serve.server.streams import send

Body = TypeVar("Body", bound=SamplingBody)


class Answer(ABC, Generic[Body]):
    """One answer on its way."""

    kind: str
    """Type of a whole answer's object."""

    def __init__(self, service: Service, client: Client, body: Body, job: Job, name: str) -> None:
        self.service = service
        self.client = client
        self.body = body
        self.job = job
        self.head = {
            "id": name,
            "object": self.kind,
            "created": int(time.time()),
            "model": body.model or service.names[0],
        }

    @abstractmethod
    def events(self) -> AsyncIterator[dict[str, Any]]:
        """Pieces."""

    @abstractmethod
    async def whole(self) -> dict[str, Any]:
        """The answer at once."""

    def deltas(self) -> AsyncIterator[Delta]:
        """What comes of the engine."""
        return run(self.service, self.client, self.job)

    async def at_once(self) -> dict[str, Any]:
        """The whole answer, in the time that a request has. Raises ApiError."""
        timeout = self.service.timeout
        try:
            async with asyncio.timeout(timeout):
                return await self.whole()
        except TimeoutError:
            raise timed_out(timeout) from None

    async def reply(self, request: web.Request) -> web.StreamResponse:
        """Answer, whole or streamed as the body asks. Raises ApiError."""
        if self.body.stream:
            return await send(request, self.events(), self.service.timeout)
        whole = await self.at_once()
        return web.Response(body=orjson.dumps(whole), content_type="application/json")
