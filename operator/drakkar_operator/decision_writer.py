"""Writes what the scheduler decides into the jobs' statuses, and tells those that wait why."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import structlog

from drakkar.kube.rest import ApiError
from drakkar_operator.cluster.executor import OutdatedError
from drakkar_operator.cluster.gangs import GangQueue, Gangs, GangWriter
from drakkar_operator.fleet import NO_QUEUE, waits_since
from drakkar_operator.metrics import Metrics
from drakkar_operator.model import JobView
from drakkar_operator.outlook import Lookout, is_news
from drakkar_operator.reconcile import conditions as cond
from drakkar_operator.reconcile import trainingjob
from drakkar_operator.reconcile.places import placement
from drakkar_operator.scheduling.decision import Eviction, Placed
from drakkar_operator.scheduling.queueing import Decision
from drakkar_operator.waiting import WaitingGangs, spares

log = structlog.get_logger(__name__)


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


class DecisionWriter:
    """``wake`` asks for a cycle at once, ``remind_in`` for one in so many seconds."""

    def __init__(
        self,
        *,
        jobs: Gangs,
        waiting: WaitingGangs,
        lookout: Lookout,
        executor: GangWriter,
        queue: GangQueue,
        metrics: Metrics,
        pace: Pace,
        clock: Callable[[], float],
        wake: Callable[[], None],
        remind_in: Callable[[float], None],
    ) -> None:
        self._jobs = jobs
        self._waiting = waiting
        self._lookout = lookout
        self._executor = executor
        self._queue = queue
        self._metrics = metrics
        self._pace = pace
        self._clock = clock
        self._wake = wake
        self._remind_in = remind_in
        self._uncertain: set[str] = set()
        """Jobs whose last write got no answer."""

    def reset(self) -> None:
        """A term as leader begins."""
        self._uncertain.clear()

    async def settle(self) -> None:
        """Find out about decisions whose writes got no answer. Raises ApiError if it can't."""
        for key in list(self._uncertain):
            job = self._jobs.items.get(key)
            if job is not None:
                await self._executor.refresh(job)
            self._uncertain.discard(key)

    async def write(self, decisions: Iterable[Decision]) -> None:
        """Write all that has to be done, and as many reasons as may be told in one cycle."""
        await asyncio.gather(*(self._write(decision) for decision in self._to_write(decisions)))

    def _to_write(self, decisions: Iterable[Decision]) -> list[Decision]:
        """What has to be done, and as many of the reasons as may be told in one cycle."""
        work, news = [], []
        for decision in decisions:
            if decision.placed is not None or decision.evictions:
                work.append(decision)
            elif self._is_news(decision):
                news.append(decision)
        # Those that were told nothing yet come first.
        news.sort(key=lambda decision: "/".join(decision.key) in self._waiting.told)
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
        left = self._waiting.told.get(key, float("-inf")) + self._pace.reason - now
        if left > 0:
            self._remind_in(left)
        return left <= 0

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
            self._waiting.withdraw(key)
            self._queue.add(key)
        except ApiError as error:
            # The write may have arrived. Nothing is decided until that is known.
            self._uncertain.add(key)
            self._wake()
            log.warning("decision not written", job=key, error=str(error))

    async def _admit(self, key: str, job: JobView, placed: Placed) -> None:
        place = placement(placed, spares(job), job.status.placement)
        plan = trainingjob.placed(job, place, self._clock())
        if job.status.placement is None:
            waited = max(0.0, self._clock() - waits_since(job))
            self._metrics.queue_wait.labels(job.spec.queue or NO_QUEUE).observe(waited)
        job = await self._executor.write_status(job, plan.status)
        self._waiting.withdraw(key)
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
            self._wake()
            return
        except ApiError as error:
            self._uncertain.add(key)
            self._wake()
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
            self._waiting.told[key] = now
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
            self._waiting.withdraw(key)
            self._queue.add(key)
        await self._executor.apply(job, plan.actions, pinned=False)
