"""One attempt to have a request answered by one replica."""

import asyncio
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import aiohttp
import orjson
from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from drakkar.routing import ErrorClass
from drakkar_workers.serve.router.answer import TAIL_BYTES, Stream, usage
from drakkar_workers.serve.router.fleet import Place
from drakkar_workers.serve.router.record import RevisionRecord
from drakkar_workers.serve.server.errors import ApiError, broken, timed_out

WHOLE_LIMIT_BYTES = 64 << 20
"""Answers that are no streams are sent on when they are whole, up to this size."""
STREAM_TYPE = "text/event-stream"
HOP_HEADERS: Final = frozenset(
    {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection",
     "te", "trailer", "transfer-encoding", "upgrade", "content-length", "host", "expect"}
)  # fmt: skip
"""Of one connection (RFC 9110, 7.6.1), or written anew."""
DONE_PATHS = frozenset({"/v1/chat/completions", "/v1/completions"})
"""Whose streams end with ``[DONE]``, or not at all."""
Result = TypeVar("Result")


class FailedError(Exception):
    """No byte of an answer has reached the client; ``again`` says whether to try elsewhere.

    ``answer`` is what the engine said, if it said anything, else ``error`` is for the client.
    """

    def __init__(
        self, kind: ErrorClass, error: ApiError, answer: web.Response | None = None
    ) -> None:
        super().__init__(error.message)
        self.kind = kind
        self.error = error
        self.answer = answer


@dataclass(slots=True)
class Outgoing:
    """A request as it is sent to a replica."""

    method: str
    path: str
    """With its query."""
    headers: CIMultiDict[str]
    body: bytes


class Attempt:
    """Sends, reads, passes on, and counts for the replica's revision what became of it."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        place: Place,
        record: RevisionRecord,
        *,
        first_byte: float,
        stall: float,
    ) -> None:
        """``first_byte``: seconds until an answer must begin; ``stall``: between two pieces."""
        self._session = session
        self._place = place
        self._replica = place.replica
        self._record = record
        self._first_byte = first_byte
        self._stall = stall
        self._began = time.monotonic()
        self.generated = 0
        """Tokens of the answer."""

    async def run(self, request: web.Request, out: Outgoing) -> web.StreamResponse:
        """Answer the request. Raises FailedError as long as nothing was sent to the client."""
        self._record.in_flight += 1
        try:
            return await self._exchange(request, out)
        except FailedError as error:
            self._record.errors[error.kind] += 1
            raise
        except (asyncio.CancelledError, ConnectionError):
            self._record.cancelled += 1
            raise
        finally:
            self._record.in_flight -= 1
            self._record.requests += 1

    async def _exchange(self, request: web.Request, out: Outgoing) -> web.StreamResponse:
        url = URL(self._replica.endpoint.url + out.path, encoded=True)
        sent = self._session.request(
            out.method, url, data=out.body, headers=out.headers, allow_redirects=False
        )
        # A context that is left early closes the connection, and so tells the engine to stop.
        async with await self._within(self._first_byte, sent) as answer:
            left = self._first_byte - (time.monotonic() - self._began)
            if answer.status < 400 and answer.content_type == STREAM_TYPE:
                first = await self._within(left, answer.content.readany())
                if not first:
                    raise FailedError("broken", broken(f"{self._name} answered nothing"))
                return await self._stream(request, answer, first)
            body = await self._within(left, self._whole(answer))
            whole = web.Response(status=answer.status, body=body, headers=_kept(answer.headers))
        if answer.status >= 400:
            self._refused(answer.status, body, whole)
        else:
            self._succeeded(usage(body[-TAIL_BYTES:]))
        return whole

    async def _within(self, seconds: float, work: Coroutine[Any, Any, Result]) -> Result:
        """What the replica must do in time. Raises FailedError; also once it has gone."""
        try:
            async with asyncio.timeout(seconds) as limit:
                self._replica.limits.add(limit)
                try:
                    if self._replica.gone:
                        limit.reschedule(0)
                    return await work
                finally:
                    self._replica.limits.discard(limit)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise FailedError("connect", broken(f"{self._name} can't be reached")) from error
        except TimeoutError:
            if self._replica.gone:
                raise FailedError("broken", broken(f"{self._name} has gone")) from None
            raise FailedError("timeout", timed_out(seconds)) from None
        except aiohttp.ClientError as error:
            raise FailedError("broken", broken(f"{self._name} broke off")) from error

    @property
    def _name(self) -> str:
        return f"replica {self._replica.name}"

    def _refused(self, status: int, body: bytes, whole: web.Response) -> None:
        """Raises FailedError unless the refusal is the client's own matter."""
        error = ApiError(f"{self._name} answered with status {status}", status=status)
        if status == 503 or (status == 429 and b'"queue_full"' in body):
            raise FailedError("overloaded", error, whole)
        if status >= 500 and status != 501:
            raise FailedError("timeout" if status == 504 else "server", error, whole)
        self._record.errors["overloaded" if status == 429 else "client"] += 1
        self._replica.circuit.succeeded()

    def _succeeded(self, used: tuple[int, int] | None) -> None:
        self._replica.circuit.succeeded()
        self._record.latency.observe(time.monotonic() - self._began)
        if used is not None:
            self._record.prompt_tokens += used[0]
            self._record.generation_tokens += used[1]
            self.generated = used[1]

    async def _whole(self, answer: aiohttp.ClientResponse) -> bytes:
        body = bytearray()
        async for piece in answer.content.iter_any():
            body += piece
            if len(body) > WHOLE_LIMIT_BYTES:
                text = f"{self._name}: the answer is larger than {WHOLE_LIMIT_BYTES} bytes"
                raise FailedError("server", broken(text))
        return bytes(body)

    async def _stream(
        self, request: web.Request, answer: aiohttp.ClientResponse, piece: bytes
    ) -> web.StreamResponse:
        """Send events as they come. What fails from here on is an event with the error."""
        first = last = time.monotonic()
        self._place.computed()
        self._replica.circuit.succeeded()
        self._record.ttft.observe(first - self._began)
        response = web.StreamResponse(status=answer.status, headers=_kept(answer.headers))
        await response.prepare(request)
        stream = Stream()
        try:
            while piece:
                stream.add(piece)
                await response.write(piece)
                piece = await self._within(self._stall, answer.content.readany())
                last = time.monotonic() if piece else last
            if request.path in DONE_PATHS and not stream.done and not stream.failed:
                raise FailedError("broken", broken(f"{self._name} ended its answer too early"))
        except FailedError as error:
            self._record.errors[error.kind] += 1
            end = b"" if stream.at_line_start else b"\n\n"
            body = orjson.dumps(error.error.body())
            await response.write(end + b"data: " + body + b"\n\n")
        else:
            if stream.failed:
                self._record.errors["broken"] += 1
            else:
                self._succeeded(stream.usage())
        self.generated = stream.tokens
        if stream.tokens > 1:
            self._record.tpot.observe((last - first) / (stream.tokens - 1))
        await response.write_eof()
        return response


def _kept(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    return CIMultiDict((k, v) for k, v in headers.items() if k.lower() not in HOP_HEADERS)
