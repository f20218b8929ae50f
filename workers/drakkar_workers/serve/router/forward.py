"""From a client's request to a replica's answer: pick, try, try elsewhere."""

import asyncio
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import aiohttp
from aiohttp import web
from multidict import CIMultiDict

from drakkar.routing import ErrorClass
from drakkar_workers.serve.router.attempt import HOP_HEADERS, Attempt, FailedError, Outgoing
from drakkar_workers.serve.router.fleet import Fleet, Place
from drakkar_workers.serve.router.gate import DEFAULTS, Gate
from drakkar_workers.serve.router.question import SESSION_HEADER, Question, read
from drakkar_workers.serve.router.record import Record

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

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer a request. Raises ApiError."""
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
            out = Outgoing(request.method, request.raw_path, headers, body)
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
                    again = self.fleet.clock() < deadline
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
        attempt = Attempt(
            self.session,
            place,
            self.record.revision(place.replica.endpoint.revision),
            first_byte=table.first_byte_seconds,
            stall=self.stall,
        )
        try:
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
