"""The scheduler's cycle: all waiting gangs judged together on one snapshot.

The judgement is ``scheduling.queueing.schedule``, a pure function. This module gathers what it
needs, has its decisions written into the jobs' statuses before anything else can happen
(``decision_writer``), and decides when to judge again: when a gang starts to wait, when room may
have appeared, and rarely by time.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import structlog

from drakkar_operator.cluster.caches import Caches, QueueEntry, TopologyEntry
from drakkar_operator.cluster.gangs import GangQueue, Gangs, GangWriter
from drakkar_operator.cluster.leader import NotLeaderError
from drakkar_operator.decision_writer import DecisionWriter, Pace
from drakkar_operator.holdings import Holdings
from drakkar_operator.metrics import Metrics
from drakkar_operator.model import JobView, NodeView, PodView
from drakkar_operator.outlook import Lookout
from drakkar_operator.reconcile import conditions as cond
from drakkar_operator.scheduling.case import Case
from drakkar_operator.scheduling.fragmentation import Fragmentation
from drakkar_operator.scheduling.mix import JobMix, Mix
from drakkar_operator.scheduling.queueing import Decision
from drakkar_operator.scheduling.request import GangRequest
from drakkar_operator.scheduling.snapshot import Snapshot
from drakkar_operator.scheduling.state import ClusterState
from drakkar_operator.scheduling.usage import History, QueueUse, usage
from drakkar_operator.scheduling.verdicts import Memory, remember
from drakkar_operator.scheduling.workload import Pending, Running
from drakkar_operator.waiting import WaitingGangs

KEPT_CYCLES = 16
"""So many cycles that decided something are kept, to explain and repeat their decisions."""
log = structlog.get_logger(__name__)

MIX_SECONDS = 60.0
"""How often the job mix, by which nodes are chosen, is taken anew."""


@dataclass(frozen=True, slots=True)
class Cycle:
    """What a cycle was given and what came of it."""

    case: Case
    decisions: tuple[Decision, ...]


class Scheduler:
    """``want`` and ``withdraw`` are called by the reconciler; keys are "namespace/name"."""

    def __init__(
        self,
        *,
        jobs: Gangs,
        caches: Caches,
        executor: GangWriter,
        queue: GangQueue,
        metrics: Metrics,
        pace: Pace | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._jobs = jobs
        self._caches = caches
        self._metrics = metrics
        self._pace = pace or Pace()
        self._clock = clock
        self._waiting = WaitingGangs(jobs, caches, queue, clock=clock)
        self._lookout = Lookout()
        self._writer = DecisionWriter(
            jobs=jobs,
            waiting=self._waiting,
            lookout=self._lookout,
            executor=executor,
            queue=queue,
            metrics=metrics,
            pace=self._pace,
            clock=clock,
            wake=lambda: self._wake.set(),
            remind_in=self._remind_in,
        )
        self.cycles: deque[Cycle] = deque(maxlen=KEPT_CYCLES)
        """The newest cycles, the newest last."""
        self._looked_for_moves = float("-inf")
        self._memory = Memory()
        self.history = History()
        """What the queues used lately."""
        self._wake = asyncio.Event()
        self._reminder: asyncio.TimerHandle | None = None
        """Set while reasons wait to be written."""
        self._state = ClusterState(caches.levels)
        self._holdings = Holdings(jobs, caches, clock=clock)
        self._asked = JobMix()
        self._mix, self._mixed = Mix(), float("-inf")
        caches.pods.subscribe(self._on_pod)
        caches.nodes.subscribe(self._on_node)
        caches.queues.subscribe(self._on_queue)
        caches.topologies.subscribe(self._on_topology)
        jobs.subscribe(self._on_job)

    def want(self, key: str, job: JobView, request: GangRequest) -> None:
        """The job needs places; a no-op if it waits for the same already."""
        known = key in self._waiting
        if self._waiting.want(key, job, request):
            if not known and not request.repair:
                self._asked.add(request.roles, self._clock())
            self._wake.set()

    def withdraw(self, key: str) -> None:
        """The job needs no place (any more)."""
        self._waiting.withdraw(key)

    def waiting(self, key: str) -> bool:
        """Whether the job waits for places."""
        return key in self._waiting

    def reset(self) -> None:
        """A term as leader begins: the jobs will ask again for what they need."""
        self._waiting.clear()
        self._writer.reset()
        self._memory = Memory()

    async def run(self) -> None:
        """Judge whenever it may help, until cancelled."""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), self._pace.idle)
            # A little patience pays: the jobs and the room of one moment are judged together.
            await asyncio.sleep(self._pace.window)
            self._wake.clear()
            try:
                await self.cycle()
            except NotLeaderError:
                raise
            except Exception:
                log.exception("scheduling cycle failed")
                self._wake.set()
                await asyncio.sleep(1.0)

    async def cycle(self) -> None:
        """Judge all waiting gangs once and write what was decided."""
        await self._writer.settle()
        if not self._waiting:
            return
        case = self.case()
        if case.now - self._looked_for_moves >= self._pace.moves:
            self._looked_for_moves = case.now
            case = replace(case, moves=True)
        started = time.perf_counter()
        decisions = case.decide()
        self._metrics.scheduling_seconds.observe(time.perf_counter() - started)
        self.cycles.append(Cycle(case, tuple(decisions)))
        self._memory = remember(case.snapshot, case.pending, case.running, case.holds, decisions)
        await self._writer.write(decisions)
        # Only now: nobody who has a place waits for what others are told.
        if self._lookout.look(case, decisions):
            self._remind_in(self._pace.reason)

    def case(self) -> Case:
        """What a cycle would be given now."""
        pending = tuple(self._waiting.pending())
        running = (*self._running(), *self._holdings.leaving())
        snapshot, now = self._snapshot(), self._clock()
        holds, known = self._memory.recall(snapshot, pending, running, now)
        return Case(
            snapshot=snapshot,
            pending=pending,
            running=running,
            queues={name: entry.view for name, entry in self._caches.queues.items.items()},
            now=now,
            holds=holds,
            known=known,
            recent=self.history.averages(now),
        )

    def usage(self) -> dict[str, QueueUse]:
        """What each queue uses and waits for."""
        restarting = [each for each in self._waiting.pending() if each.charged and not each.extra]
        waiting = (
            job.spec.queue
            for job in self._jobs.items.values()
            if job.status.placement is None
            and not cond.finished(job.status.conditions)
            and not job.spec.suspend
        )
        views = {name: entry.view for name, entry in self._caches.queues.items.items()}
        admitted: list[Running | Pending] = [*self._running(), *restarting]
        return usage(views, self._snapshot(), admitted, waiting)

    def unusable(self) -> float:
        """Free devices that the jobs which were asked for of late could not use (expectation)."""
        snapshot = self._snapshot()
        return float(Fragmentation(snapshot).unusable(np.arange(len(snapshot.nodes))).sum())

    def _running(self) -> Iterable[Running]:
        """The gangs that hold all their nodes; those with ranks to place are pending."""
        for key, job in self._holdings.placed.items():
            gang = None if self._waiting.lacks(key, job) else self._holdings.running(job)
            if gang is not None:
                yield gang

    def _snapshot(self) -> Snapshot:
        self._state.set_levels(self._caches.levels)
        now = self._clock()
        if now - self._mixed > MIX_SECONDS:
            self._mix, self._mixed = self._asked.now(now), now
        snapshot = self._state.snapshot(self._holdings.reservations(self._waiting.requests))
        return replace(snapshot, mix=self._mix)

    def _remind_in(self, seconds: float) -> None:
        if self._reminder is None:
            self._reminder = asyncio.get_running_loop().call_later(seconds, self._remind)

    def _remind(self) -> None:
        self._reminder = None
        self._wake.set()

    def _on_pod(self, old: PodView | None, new: PodView | None) -> None:
        if new is None:
            assert old is not None
            self._state.remove_pod(old.uid)
        else:
            self._state.upsert_pod(new)
        held = old is not None and old.node is not None and not old.finished
        if held and (new is None or new.finished):
            self._wake.set()

    def _on_node(self, old: NodeView | None, new: NodeView | None) -> None:
        if new is None:
            assert old is not None
            self._state.remove_node(old.name)
        else:
            self._state.upsert_node(new)
        # A node that went away changes reasons, too.
        self._wake.set()

    def _on_topology(self, old: TopologyEntry | None, new: TopologyEntry | None) -> None:
        if old is None or new is None or old.levels != new.levels:
            self._wake.set()

    def _on_queue(self, old: QueueEntry | None, new: QueueEntry | None) -> None:
        if new is None:
            assert old is not None
            self.history.forget([old.view.name])
        elif new.recent_time is not None:
            self.history.begin(new.view.name, new.recent, new.recent_time)
        if old is None or new is None or old.view != new.view:
            self._wake.set()

    def _on_job(self, old: JobView | None, new: JobView | None) -> None:
        if old is None or old.status.placement is None:
            return
        if (
            new is None
            or new.status.placement is None
            or (cond.finished(new.status.conditions) and not cond.finished(old.status.conditions))
        ):
            self._wake.set()
