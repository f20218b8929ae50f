"""Jobs that come, wait, run for a while and end: cycle after cycle, with what each leaves to the next."""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from drakkar.constants import DEFAULT_LEVELS
from drakkar_operator.model import NodeView, QueueView
from drakkar_operator.scheduling.case import Case
from drakkar_operator.scheduling.decision import Decision, Reservation
from drakkar_operator.scheduling.request import Key
from drakkar_operator.scheduling.state import ClusterState
from drakkar_operator.scheduling.verdicts import Memory, remember
from drakkar_operator.scheduling.workload import Pending, Running
from support.scheduling import gang


@dataclass(frozen=True)
class Job:
    """A gang and how long it runs once it is placed."""

    name: str
    arrives: float
    replicas: int
    gpus: int
    seconds: float
    known: bool = True
    """Its end is known while it runs."""
    bounded: bool = False
    """It is known beforehand that it runs no longer."""
    queue: str | None = None
    priority: int = 0

    @property
    def key(self) -> Key:
        """As the scheduler knows it."""
        return ("team", self.name)


@dataclass
class Lab:
    """Runs jobs on nodes."""

    nodes: Sequence[NodeView]
    queues: Mapping[str, QueueView] = field(default_factory=dict)
    forget: bool = False
    """Each cycle is the first of a new operator."""
    started: dict[str, float] = field(default_factory=dict)
    ended: dict[str, float] = field(default_factory=dict)
    evictions: list[tuple[float, str, str]] = field(default_factory=list)
    """(when, who, for whom)."""
    cycles: list[tuple[float, tuple[Running, ...], list[Decision]]] = field(default_factory=list)
    overcommitted: bool = False

    def run(self, jobs: Sequence[Job], until: float = 1e9, tick: float | None = None) -> None:
        """Run until all have ended or the time is over; a cycle at each event and each ``tick``."""
        state = ClusterState(DEFAULT_LEVELS)
        for node in self.nodes:
            state.upsert_node(node)
        by_key = {job.key: job for job in jobs}
        times = [job.arrives for job in jobs]
        heapq.heapify(times)
        waiting: dict[Key, Job] = {}
        running: dict[Key, Running] = {}
        ends: dict[Key, float] = {}
        left, memory = sorted(jobs, key=lambda job: job.arrives), Memory()
        while times:
            now = heapq.heappop(times)
            if now > until:
                break
            while times and times[0] == now:
                heapq.heappop(times)
            for key in [key for key, end in ends.items() if end <= now]:
                if not running[key].leaving:
                    self.ended[key[1]] = now
                else:
                    waiting[key] = by_key[key]
                del running[key], ends[key]
            while left and left[0].arrives <= now:
                job = left.pop(0)
                waiting[job.key] = job
            snapshot = state.snapshot(_rooms(running.values()))
            self.overcommitted |= bool((snapshot.free < 0).any())
            pending = tuple(_pending(job) for job in waiting.values())
            holding = tuple(running.values())
            holds, known = ((), {}) if self.forget else memory.recall(
                snapshot, pending, holding, now
            )  # fmt: skip
            case = Case(snapshot, pending, holding, self.queues, now, holds, known)
            decisions = case.decide()
            memory = remember(snapshot, pending, holding, holds, decisions)
            self.cycles.append((now, holding, decisions))
            for decision in decisions:
                for eviction in decision.evictions:
                    self.evictions.append((now, eviction.key[1], decision.key[1]))
                    running[eviction.key] = replace(running[eviction.key], leaving=True)
                    ends[eviction.key] = now + 1
                    heapq.heappush(times, now + 1)
                if decision.placed is not None:
                    job = waiting.pop(decision.key)
                    end = now + job.seconds
                    self.started.setdefault(job.name, now)
                    request = replace(
                        decision.placed.request,
                        missing=(),
                        fixed=dict(enumerate(decision.placed.all_nodes)),
                    )
                    running[job.key] = Running(
                        job.key, request, job.queue, job.priority, job.arrives, now,
                        ends=end if job.known else None,
                    )  # fmt: skip
                    ends[job.key] = end
                    heapq.heappush(times, end)
            # With nothing that runs and nothing to come, who waits waits for ever.
            if tick is not None and running and (not times or times[0] > now + tick):
                heapq.heappush(times, now + tick)


def _pending(job: Job) -> Pending:
    request = gang(job.replicas, job.gpus, key=job.key)
    lasts = job.seconds if job.bounded else None
    return Pending(job.key, request, job.queue, job.priority, job.arrives, lasts=lasts)


def _rooms(running: Iterable[Running]) -> list[Reservation]:
    return [rank for each in running for rank in each.reservations]
