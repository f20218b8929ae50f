"""The scheduler's cycle: all waiting gangs judged together on one snapshot.

The judgement is ``scheduling.queueing.schedule``, a pure function. This module gathers what it
needs, writes its decisions into the jobs' statuses before anything else can happen, and decides when
to judge again: when a gang starts to wait, when room may have appeared, and rarely by time.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import structlog

from drakkar.kube.rest import ApiError
from drakkar.v1alpha1.trainingjob import Placement
from drakkar_operator.cluster.caches import Caches, QueueEntry, TopologyEntry
from drakkar_operator.cluster.executor import OutdatedError
from drakkar_operator.cluster.gangs import GangQueue, Gangs, GangWriter
from drakkar_operator.cluster.leader import NotLeaderError
from drakkar_operator.fleet import NO_QUEUE, waits_since
from drakkar_operator.holdings import Holdings
from drakkar_operator.metrics import Metrics
from drakkar_operator.model import JobView, NodeView, PodView
from drakkar_operator.outlook import Lookout, is_news
from drakkar_operator.reconcile import conditions as cond
from drakkar_operator.reconcile import trainingjob
from drakkar_operator.reconcile.demand import grown_from
from drakkar_operator.reconcile.places import placement
from drakkar_operator.scheduling.case import Case
from drakkar_operator.scheduling.decision import Eviction, Placed
from drakkar_operator.scheduling.fragmentation import Fragmentation
from drakkar_operator.scheduling.mix import JobMix, Mix
from drakkar_operator.scheduling.queueing import Decision
from drakkar_operator.scheduling.request import GangRequest
from drakkar_operator.scheduling.snapshot import Snapshot
from drakkar_operator.scheduling.state import ClusterState
from drakkar_operator.scheduling.usage import History, QueueUse, usage
from drakkar_operator.scheduling.verdicts import Memory, remember
from drakkar_operator.scheduling.workload import Pending, Running

KEPT_CYCLES = 16
"""So many cycles that decided something are kept, to explain and repeat their decisions."""
log = structlog.get_logger(__name__)

MIX_SECONDS = 60.0
"""How often the job mix, by which nodes are chosen, is taken anew."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds."""

    window: float = 0.05
    """Gangs that come within it are judged together."""
    idle: float = 30.0
    """Judge again after so long even if nothing happened."""
    reason: float = 5.0
    """A job's pending reason is written at most this often."""
    reasons: int = 200
    """So many jobs are told their reason in one cycle: others have places to be written."""
    moves: float = 10.0
    """Gangs that could be moved for others are looked for at most this often."""


@dataclass(frozen=True, slots=True)
class Cycle:
    """What a cycle was given and what came of it."""

    case: Case
    decisions: tuple[Decision, ...]


@dataclass(frozen=True, slots=True)
class _Waiting:
    request: GangRequest
    uid: str
    generation: int
    placement: Placement | None
    """What the request was made against."""


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
        self._executor = executor
        self._queue = queue
        self._metrics = metrics
        self._pace = pace or Pace()
        self._clock = clock
        self._waiting: dict[str, _Waiting] = {}
        self._told: dict[str, float] = {}
        self._uncertain: set[str] = set()
        self._lookout = Lookout()
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
        waiting = _Waiting(request, job.uid, job.generation, job.status.placement)
        if self._waiting.get(key) != waiting:
            if key not in self._waiting and not request.repair:
                self._asked.add(request.roles, self._clock())
            self._waiting[key] = waiting
            self._wake.set()

    def withdraw(self, key: str) -> None:
        """The job needs no place (any more)."""
        self._waiting.pop(key, None)
        self._told.pop(key, None)

    def waiting(self, key: str) -> bool:
        """Whether the job waits for places."""
        return key in self._waiting

    def reset(self) -> None:
        """A term as leader begins: the jobs will ask again for what they need."""
        self._waiting.clear()
        self._told.clear()
        self._uncertain.clear()
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
        await self._settle()
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
        await asyncio.gather(*(self._write(decision) for decision in self._to_write(decisions)))
        # Only now: nobody who has a place waits for what others are told.
        if self._lookout.look(case, decisions):
            self._remind_in(self._pace.reason)

    def _to_write(self, decisions: Iterable[Decision]) -> list[Decision]:
        """What has to be done, and as many of the reasons as may be told in one cycle."""
        work, news = [], []
        for decision in decisions:
            if decision.placed is not None or decision.evictions:
                work.append(decision)
            elif self._is_news(decision):
                news.append(decision)
        # Those that were told nothing yet come first.
        news.sort(key=lambda decision: "/".join(decision.key) in self._told)
        if len(news) > self._pace.reasons:
            self._remind_in(self._pace.window)
        return [*work, *news[: self._pace.reasons]]

    def _is_news(self, decision: Decision) -> bool:
        """Whether a job is to be told now why it waits."""
        key = "/".join(decision.key)
        job = self._jobs.items.get(key)
        if job is None or job.status.placement is not None:
            return True
        now = self._clock()
        if not is_news(job, decision, self._lookout.of(decision), now):
            return False
        left = self._told.get(key, float("-inf")) + self._pace.reason - now
        if left > 0:
            self._remind_in(left)
        return left <= 0

    def case(self) -> Case:
        """What a cycle would be given now."""
        pending = tuple(self._pending())
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
        restarting = [each for each in self._pending() if each.charged and not each.extra]
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

    def _pending(self) -> list[Pending]:
        pending, now = [], self._clock()
        for key, waiting in list(self._waiting.items()):
            job = self._jobs.items.get(key)
            if job is None or job.deleting:
                self.withdraw(key)
            elif waiting != _Waiting(
                waiting.request, job.uid, job.generation, job.status.placement
            ):
                # It was asked for on grounds that have changed: the reconciler asks anew.
                self.withdraw(key)
                self._queue.add(key)
            else:
                pending.append(
                    Pending(
                        key=job.key,
                        request=waiting.request,
                        queue=job.spec.queue,
                        priority=self._caches.priority_of(job.spec.priority_class_name),
                        created=job.created,
                        spares=_spares(job),
                        extra=_extra(job, waiting.request),
                        charged=job.status.placement is not None,
                        since=waits_since(job),
                        lasts=_lasts(job, now),
                        preempts=self._caches.preempts(job.spec.priority_class_name),
                    )
                )
        return pending

    def _running(self) -> Iterable[Running]:
        """The gangs that hold all their nodes; those with ranks to place are pending."""
        for key, job in self._holdings.placed.items():
            waiting = self._waiting.get(key)
            if waiting is not None and not _extra(job, waiting.request):
                continue
            gang = self._holdings.running(job)
            if gang is not None:
                yield gang

    def _snapshot(self) -> Snapshot:
        self._state.set_levels(self._caches.levels)
        moving = {key: waiting.request for key, waiting in self._waiting.items()}
        now = self._clock()
        if now - self._mixed > MIX_SECONDS:
            self._mix, self._mixed = self._asked.now(now), now
        snapshot = self._state.snapshot(self._holdings.reservations(moving))
        return replace(snapshot, mix=self._mix)

    async def _write(self, decision: Decision) -> None:
        key = "/".join(decision.key)
        job = self._jobs.items.get(key)
        if job is None or key not in self._waiting:
            return
        try:
            # Of these two, a new leader may find the first done and the second not: whom an eviction
            # was for is found anew from what is free once all have left who must.
            await asyncio.gather(*(self._evict(eviction) for eviction in decision.evictions))
            if decision.placed is not None:
                await self._admit(key, job, decision.placed)
            elif decision.reason is not None:
                await self._refuse(key, job, decision, decision.reason)
        except OutdatedError:
            self.withdraw(key)
            self._queue.add(key)
        except ApiError as error:
            # The write may have arrived. Nothing is decided until that is known.
            self._uncertain.add(key)
            self._wake.set()
            log.warning("decision not written", job=key, error=str(error))

    async def _admit(self, key: str, job: JobView, placed: Placed) -> None:
        place = placement(placed, _spares(job), job.status.placement)
        plan = trainingjob.placed(job, place, self._clock())
        if job.status.placement is None:
            waited = max(0.0, self._clock() - waits_since(job))
            self._metrics.queue_wait.labels(job.spec.queue or NO_QUEUE).observe(waited)
        job = await self._executor.write_status(job, plan.status)
        self.withdraw(key)
        self._metrics.decisions.labels("placed").inc()
        log.info("placed", job=key, level=placed.level, domain=placed.domain)
        self._queue.add(key, priority=1)
        await self._executor.apply(job, plan.actions, pinned=False)

    async def _evict(self, eviction: Eviction) -> None:
        """Take a gang's place from it, unless it ended or lost it meanwhile."""
        key = "/".join(eviction.key)
        job = self._jobs.items.get(key)
        if job is None or job.status.placement is None or cond.finished(job.status.conditions):
            return
        plan = trainingjob.evicted(job, eviction, self._clock())
        try:
            job = await self._executor.write_status(job, plan.status)
        except OutdatedError:
            self._wake.set()
            return
        except ApiError as error:
            self._uncertain.add(key)
            self._wake.set()
            log.warning("eviction not written", job=key, error=str(error))
            return
        self._metrics.decisions.labels("evicted").inc()
        beneficiary = "/".join(eviction.beneficiary)
        log.info("evicted", job=key, cause=eviction.cause, beneficiary=beneficiary)
        self._queue.add(key, priority=1)
        await self._executor.apply(job, plan.actions, pinned=False)

    async def _refuse(self, key: str, job: JobView, decision: Decision, reason: str) -> None:
        if job.status.placement is not None and (decision.hold or decision.evictions):
            # Room for the ranks that it lost is on the way: the others keep theirs.
            return
        now, outlook = self._clock(), self._lookout.of(decision)
        if job.status.placement is None:
            if not is_news(job, decision, outlook, now):
                return
            self._told[key] = now
        before, expected = job.status.placement, outlook.forecast
        words = expected.sentence(decision.unplaced) if expected else ""
        plan = trainingjob.unplaced(
            job,
            reason,
            now,
            outlook=words,
            position=outlook.position or None,
            expected=expected.at if expected else None,
        )
        job = await self._executor.write_status(job, plan.status)
        self._metrics.decisions.labels("unplaced").inc()
        log.info("not placed", job=key, reason=reason)
        if job.status.placement != before:
            self.withdraw(key)
            self._queue.add(key)
        await self._executor.apply(job, plan.actions, pinned=False)

    def _remind_in(self, seconds: float) -> None:
        if self._reminder is None:
            self._reminder = asyncio.get_running_loop().call_later(seconds, self._remind)

    def _remind(self) -> None:
        self._reminder = None
        self._wake.set()

    async def _settle(self) -> None:
        """Find out about decisions whose writes got no answer. Raises ApiError if it can't."""
        for key in list(self._uncertain):
            job = self._jobs.items.get(key)
            if job is not None:
                await self._executor.refresh(job)
            self._uncertain.discard(key)

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


def _spares(job: JobView) -> tuple[str, ...]:
    """Where the job keeps room for repairs."""
    return tuple(job.status.placement.spares) if job.status.placement is not None else ()


def _extra(job: JobView, request: GangRequest) -> bool:
    """Whether a gang lacks nothing: it asks for spares, or for a larger size."""
    held = job.status.placement is not None
    spares = held and bool(request.missing) and min(request.missing) >= job.replicas
    return spares or grown_from(job, request)


def _lasts(job: JobView, now: float) -> float | None:
    """Most seconds that it can run from now on."""
    deadline, start = job.spec.active_deadline_seconds, job.status.start_time
    if deadline is None:
        return None
    return float(deadline) if start is None else max(0.0, start.timestamp() + deadline - now)
