"""From a client's request to a replica's answer: pick, try, try elsewhere."""

import asyncio
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import aiohttp
from aiohttp import web
from multidict import CIMultiDict

from drakkar.routing import ErrorClass
from drakkar_workers.serve import tracing
from drakkar_workers.serve.router.attempt import HOP_HEADERS, Attempt, FailedError, Outgoing
from drakkar_workers.serve.router.fleet import Fleet, Place
from drakkar_workers.serve.router.gate import DEFAULTS, Gate
from drakkar_workers.serve.router.question import SESSION_HEADER, Question, read
from drakkar_workers.serve.router.record import Record
from drakkar_workers.serve.server.errors import too_many

BODY_LIMIT_BYTES = 16 << 20
BODIES_LIMIT_BYTES = 256 << 20
"""Of all bodies together: they are kept until an answer has begun, for another attempt."""
FIRST_PAUSE = 0.05
LONGEST_PAUSE = 1.0
"""Seconds between attempts that found nobody, doubling."""
CHANCES: Final[Mapping[ErrorClass, int]] = {"overloaded": 5, "server": 1, "broken": 1}
"""Further attempts after a fault, by its class. One where the request may be what breaks replicas, none
after a timeout. A request that was never sent is tried as long as it may wait."""


@dataclass(slots=True)
class Forwarder:
    """Everything that a request passes through."""

    fleet: Fleet
    gate: Gate
    record: Record
    session: aiohttp.ClientSession
    stall: float
    chance: random.Random
    bodies: int = 0
    """Bytes of the bodies of all requests that are here."""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer a request. Raises ApiError."""
        with self._room(request.content_length):
            return await self._answer(request)

    @contextmanager
    def _room(self, size: int | None) -> Iterator[None]:
        """Memory for a body, until its answer has ended. Raises ApiError if there is none."""
        size = BODY_LIMIT_BYTES if size is None else min(size, BODY_LIMIT_BYTES)
        if self.bodies + size > BODIES_LIMIT_BYTES:
            raise too_many("the requests under way fill the router's memory", "queue_full", 1)
        self.bodies += size
        try:
            yield
        finally:
            self.bodies -= size

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        question = read(
            body,
            authorization=request.headers.get("Authorization"),
            session=request.headers.get(SESSION_HEADER),
            chance=self.chance,
        )
        headers = CIMultiDict(
            (name, value)
            for name, value in request.headers.items()
            # Answers are read as they pass, so they must not be compressed.
            if name.lower() not in HOP_HEADERS and name.lower() != "accept-encoding"
        )
        headers["Accept-Encoding"] = "identity"
        with self.record.present():
            # Without the host that a proxy's request line may name.
            out = Outgoing(request.method, request.rel_url.raw_path_qs, headers, body)
            return await self._try(request, question, out)

    async def _try(
        self, request: web.Request, question: Question, out: Outgoing
    ) -> web.StreamResponse:
        table = self.fleet.table or DEFAULTS
        deadline = self.fleet.clock() + table.hold_seconds
        failed: set[str] = set()
        faults: Counter[ErrorClass] = Counter()
        pause = FIRST_PAUSE
        while True:
            place = self.fleet.take(question, failed) if failed else None
            if place is None:
                if failed:
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, LONGEST_PAUSE)
                    failed.clear()
                place = await self.gate.enter(question, deadline)
            try:
                return await self._once(request, question, out, place)
            except FailedError as error:
                failed.add(place.replica.name)
                faults[error.kind] += 1
                if error.kind == "connect":
                    others = faults["connect"] < len(self.fleet.replicas)
                    again = others or self.fleet.clock() < deadline
                else:
                    again = faults[error.kind] <= CHANCES.get(error.kind, 0)
                if not again:
                    if error.answer is not None:
                        return error.answer
                    raise error.error from error
                self.record.retries += 1

    async def _once(
        self, request: web.Request, question: Question, out: Outgoing, place: Place
    ) -> web.StreamResponse:
        table = self.fleet.table or DEFAULTS
        endpoint = place.replica.endpoint
        attempt = Attempt(
            self.session,
            place,
            self.record.revision(endpoint.revision),
            first_byte=table.first_byte_seconds,
            stall=self.stall,
        )
        try:
            with tracing.attempt(place.replica.name, endpoint.revision, out.headers):
                return await attempt.run(request, out)
        except FailedError:
            if place.replica.circuit.failed(self.fleet.clock()):
                self.record.urgent()
            raise
        except BaseException:
            place.replica.circuit.unknown()
            raise
        finally:
            self.gate.charge(question, generated=attempt.generated)
            self.fleet.release(place)
