"""Where requests wait for a replica, and in which order they get one."""

import asyncio
from dataclasses import dataclass

from drakkar.routing import RouteTable
from drakkar_workers.serve.router.fairness import Turns
from drakkar_workers.serve.router.fleet import Fleet, Place
from drakkar_workers.serve.router.question import Question
from drakkar_workers.serve.router.record import Record
from drakkar_workers.serve.server.errors import ApiError, too_many

DEFAULTS = RouteTable(service="", uid="-", version=0)
"""Until the operator has sent a table."""


@dataclass(eq=False, slots=True)
class _Waiting:
    question: Question
    place: asyncio.Future[Place]


class Gate:
    """All requests pass here, so that turns are counted right even when nobody waits."""

    def __init__(self, fleet: Fleet, record: Record) -> None:
        self._fleet = fleet
        self._record = record
        self._turns: Turns[_Waiting] = Turns()
        fleet.changed = self._serve

    @property
    def held(self) -> int:
        """Requests that wait."""
        return len(self._turns)

    def charge(self, question: Question, *, generated: int) -> None:
        """Tokens of an answer, for the client's next turns."""
        self._turns.charge(question.client, generated=generated)

    async def enter(self, question: Question, deadline: float) -> Place:
        """A place at a replica, where the request counts from now on.

        ``deadline`` is when, by the fleet's clock, it has waited long enough. Raises ApiError.
        """
        table = self._fleet.table or DEFAULTS
        one = _Waiting(question, asyncio.get_running_loop().create_future())
        self._turns.push(question.client, one)
        self._serve()
        entered = False
        try:
            if not one.place.done():
                if table.hold_seconds <= 0:
                    raise self._none(0)
                if len(self._turns) > table.hold_limit:
                    raise too_many(
                        f"{table.hold_limit} requests wait for a replica already", "queue_full", 1
                    )
                if not self._fleet.available:
                    # The operator must hear of it at once: it may have to make the first replica.
                    self._record.urgent()
                async with asyncio.timeout(max(0.0, deadline - self._fleet.clock())):
                    await asyncio.shield(one.place)
            entered = True
            return one.place.result()
        except TimeoutError:
            raise self._none(table.hold_seconds) from None
        finally:
            self._turns.remove(question.client, one)
            if not entered and one.place.done():
                # The client left, or time was up, in the moment in which the place was given.
                one.place.result().replica.circuit.unknown()
                self._fleet.release(one.place.result())

    def _serve(self) -> None:
        """Give places to those whose turn it is, as long as there are some."""
        while (turn := self._turns.next()) is not None:
            client, one = turn
            place = self._fleet.take(one.question)
            if place is None:
                return
            self._turns.remove(client, one)
            self._turns.charge(client, prompt=one.question.prompt_tokens)
            one.place.set_result(place)

    def _none(self, seconds: float) -> ApiError:
        name = (self._fleet.table or DEFAULTS).service or "the service"
        if self._fleet.available:
            text, code = f"all replicas of {name} are busy", "overloaded"
        else:
            text, code = f"{name} has no ready replica", "no_replica"
        text += f"; waited {seconds:g} s" if seconds else ""
        return ApiError(
            f"{text}. Try again later", status=503, kind="service_unavailable", code=code,
            retry_after=5,
        )  # fmt: skip
