"""The replicas of a service as they are at this moment, and picks among them."""

import asyncio
import random
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass

from drakkar.routing import Endpoint, EndpointStats, RouteTable
from drakkar_workers.serve.router.circuit import Circuit
from drakkar_workers.serve.router.figures import Figures
from drakkar_workers.serve.router.pick import Candidate, pick
from drakkar_workers.serve.router.prefix import BLOCK_CHARACTERS, Seen
from drakkar_workers.serve.router.question import CHARACTERS_PER_TOKEN, Question

WORK_TOKENS = 256
"""Tokens of a prompt that keep a replica as busy as an answer does, roughly."""
STALE_SECONDS = 5.0
"""Figures that are older say nothing."""
SESSIONS = 100_000
DEFAULT_BLOCKS = 8192
MOST_BLOCKS = 1 << 18


class TableError(ValueError):
    """A table that is not for this service."""


@dataclass(slots=True)
class _Load:
    """What an engine said, and when."""

    at: float
    figures: Figures
    in_flight: int
    """Of this router, at that moment."""


class Replica:
    """One replica and what the router knows of it."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.in_flight = 0
        self.work = 0.0
        """Of the requests in flight; see ``Place``."""
        self.circuit = Circuit()
        self.seen = Seen(DEFAULT_BLOCKS)
        self.load: _Load | None = None
        self.gone = False
        """It has left the table."""
        self.limits: set[asyncio.Timeout] = set()
        """Of the requests that run there: how they are broken off."""

    @property
    def name(self) -> str:
        """Of its pod."""
        return self.endpoint.name

    def leave(self) -> None:
        """Break off what runs there."""
        self.gone = True
        now = asyncio.get_running_loop().time()
        for limit in self.limits:
            limit.reschedule(now)


@dataclass(eq=False, slots=True)
class Place:
    """A request's place at a replica."""

    replica: Replica
    work: float
    """1 for the request, and 1 for every WORK_TOKENS of its prompt that are still to be computed."""

    def computed(self) -> None:
        """Its prompt is computed: the first token has come."""
        self.replica.work -= self.work - 1
        self.work = 1.0


class Fleet:
    """All replicas. ``changed`` is called whenever one may take more than before."""

    def __init__(
        self,
        uid: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        chance: random.Random | None = None,
    ) -> None:
        self.uid = uid
        self.table: RouteTable | None = None
        self.replicas: dict[str, Replica] = {}
        self.changed: Callable[[], None] = lambda: None
        self.clock = clock
        self._chance = chance or random.Random()
        self._sessions: OrderedDict[str, str] = OrderedDict()
        self._turn = 0

    def apply(self, table: RouteTable) -> bool:
        """Take a table; False if a later one is held. Raises TableError if it is another's."""
        if table.uid != self.uid:
            raise TableError(
                f"this router serves the InferenceService with UID {self.uid}; "
                f"the table is for {table.service} with UID {table.uid}"
            )
        if self.table is not None and table.version < self.table.version:
            return False
        self.table = table
        before, self.replicas = self.replicas, {}
        for endpoint in table.endpoints:
            known = before.get(endpoint.name)
            if known is not None and known.endpoint.url == endpoint.url:
                del before[endpoint.name]
                known.endpoint = endpoint
                self.replicas[endpoint.name] = known
            else:
                self.replicas[endpoint.name] = Replica(endpoint)
        for replica in before.values():
            replica.leave()
        self.changed()
        return True

    @property
    def in_flight(self) -> int:
        """Requests at replicas."""
        return sum(replica.in_flight for replica in self.replicas.values())

    @property
    def available(self) -> bool:
        """Whether any replica could be sent a request now, if it had room."""
        return any(
            replica.endpoint.ready and not replica.endpoint.draining
            for replica in self.replicas.values()
        )

    def take(self, question: Question, avoid: Collection[str] = ()) -> Place | None:
        """A replica for a request, which counts there from this moment on; None: it must wait."""
        table = self.table
        if table is None:
            return None
        now = self.clock()
        found = pick(
            [self._candidate(replica, question, now) for replica in self.replicas.values()],
            {one.name: one.weight for one in table.revisions},
            table.policy,
            draw=question.draw,
            turn=self._turn,
            limit=table.endpoint_limit,
            avoid=avoid,
            chance=self._chance,
        )
        if found is None:
            return None
        self._turn += 1
        replica = self.replicas[found.name]
        missing = (1 - found.prefix) * len(question.chain) * BLOCK_CHARACTERS
        place = Place(replica, 1 + missing / CHARACTERS_PER_TOKEN / WORK_TOKENS)
        replica.in_flight += 1
        replica.work += place.work
        replica.circuit.sent(now)
        # Others with this prompt follow it, though it is not computed yet.
        replica.seen.add(question.chain)
        if question.session is not None:
            self._sessions[question.session] = replica.name
            self._sessions.move_to_end(question.session)
            if len(self._sessions) > SESSIONS:
                self._sessions.popitem(last=False)
        return place

    def release(self, place: Place) -> None:
        """A request has ended there."""
        place.replica.in_flight -= 1
        # Sums of floats do not end at 0 by themselves.
        left = place.replica.work - place.work
        place.replica.work = left if place.replica.in_flight else 0.0
        self.changed()

    def heard(self, replica: Replica, figures: Figures) -> None:
        """A replica's engine has told its figures."""
        replica.load = _Load(self.clock(), figures, replica.in_flight)
        if figures.cache_tokens:
            room = figures.cache_tokens * CHARACTERS_PER_TOKEN // BLOCK_CHARACTERS
            replica.seen.capacity = min(max(1, room), MOST_BLOCKS)
        self.changed()

    def _candidate(self, replica: Replica, question: Question, now: float) -> Candidate:
        endpoint, last = replica.endpoint, replica.load
        load, waiting = replica.work, None
        fresh = last is not None and now - last.at <= STALE_SECONDS
        figures = last.figures if last is not None and fresh else Figures()
        if last is not None and figures.waiting is not None:
            # What has changed since it was heard is known here.
            since = replica.in_flight - last.in_flight
            waiting = max(0, figures.waiting + since) if figures.waiting else 0
            # Other routers' requests count too.
            load += max(0, (figures.running or 0) + figures.waiting - last.in_flight)
        chain = question.chain
        return Candidate(
            name=endpoint.name,
            revision=endpoint.revision,
            ready=endpoint.ready,
            draining=endpoint.draining,
            closed=replica.circuit.lets_through(now),
            load=load,
            in_flight=replica.in_flight,
            waiting=waiting,
            kv=figures.kv,
            prefix=replica.seen.matched(chain) / len(chain) if chain else 0.0,
            session=question.session is not None
            and self._sessions.get(question.session) == endpoint.name,
            adapter=question.model in figures.adapters,
        )

    def stats(self) -> list[EndpointStats]:
        """The replicas as the operator is told of them."""
        now = self.clock()
        found = []
        for replica in self.replicas.values():
            last = replica.load
            figures = last.figures if last is not None else Figures()
            found.append(
                EndpointStats(
                    name=replica.name,
                    in_flight=replica.in_flight,
                    circuit=replica.circuit.state(now),
                    running=figures.running,
                    waiting=figures.waiting,
                    kv_usage=figures.kv,
                    metrics_age_seconds=now - last.at if last is not None else None,
                )
            )
        return found
