"""Tells each Queue what its jobs use and wait for, and keeps there what it used lately."""

import asyncio
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import structlog

from drakkar import quantity
from drakkar.constants import FIELD_MANAGER
from drakkar.kube.rest import ApiError, Rest
from drakkar.v1alpha1.meta import Condition
from drakkar_operator.cluster import paths, project
from drakkar_operator.cluster.caches import Caches
from drakkar_operator.cluster.gangs import Gangs
from drakkar_operator.cluster.merge import merge_patch
from drakkar_operator.model import Amounts
from drakkar_operator.reconcile.conditions import with_condition
from drakkar_operator.scheduling.usage import QueueUse, Use

if TYPE_CHECKING:
    from drakkar_operator.scheduler import Scheduler

PERIOD_SECONDS = 2.0
"""A queue's status is written at most this often."""
RECENT_SECONDS = 600.0
"""What a queue used lately is written this often while it changes, and nothing else does."""
VALID = "Valid"
"""Condition: the queue and all its parents can be used."""
log = structlog.get_logger(__name__)


class QueueStatus:
    """``run`` writes until cancelled; ``check`` raises NotLeaderError when it must not."""

    def __init__(
        self,
        rest: Rest,
        *,
        caches: Caches,
        jobs: Gangs,
        scheduler: "Scheduler",
        check: Callable[[], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._rest = rest
        self._caches = caches
        self._scheduler = scheduler
        self._check = check
        self._clock = clock
        self._changed = asyncio.Event()
        self._changed.set()
        jobs.subscribe(lambda *_: self._changed.set())
        caches.queues.subscribe(lambda *_: self._changed.set())

    async def run(self) -> None:
        """Write the statuses that changed."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self.write()
            await asyncio.sleep(PERIOD_SECONDS)

    async def write(self) -> None:
        """Write now what differs from what the queues say. Raises NotLeaderError."""
        now = self._clock()
        found = self._scheduler.usage()
        for name, entry in list(self._caches.queues.items.items()):
            use = found.get(name)
            if use is None:
                continue
            average = self._scheduler.history.note(name, use.use.used, now)
            status = queue_status(use, entry.status, generation=entry.generation, now=now)
            told = entry.recent_time
            news = any(entry.status.get(key) != value for key, value in status.items())
            if average and (news or told is None or now - told >= RECENT_SECONDS):
                status |= _recent(average, now)
            old = {key: entry.status[key] for key in status if key in entry.status}
            patch = merge_patch(old, status)
            if not patch or not (news or "recent" in patch):
                continue
            self._check()
            try:
                raw = await self._rest.patch(
                    f"{paths.queue(name)}/status",
                    {"status": patch},
                    params={"fieldManager": FIELD_MANAGER},
                )
                self._caches.queues.upsert(raw)
            except ApiError as error:
                if error.status != 404:
                    self._changed.set()
                    log.info("queue status not written", queue=name, error=str(error))


def queue_status(
    use: QueueUse,
    before: Mapping[str, Any],
    *,
    generation: int,
    now: float,
    average: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """The status that tells this, after the one before; ``average`` is what it used lately."""
    return {
        "conditions": _conditions(before, use, generation, now),
        **(_recent(average, now) if average else {}),
        **_amounts(use.use),
        "flavors": [{"name": name, **_amounts(each)} for name, each in use.flavors.items()],
        "admitted": use.admitted,
        "pending": use.pending,
        "share": round(use.share, 3),
        "fairShare": round(use.fair_share, 3),
    }


def _recent(average: Mapping[str, float], now: float) -> dict[str, Any]:
    at = datetime.fromtimestamp(int(now), UTC)
    return {
        "recent": project.show_recent(average),
        "recentTime": at.isoformat().replace("+00:00", "Z"),
    }


def _amounts(use: Use) -> dict[str, Any]:
    def show(amounts: Amounts) -> dict[str, str]:
        return {r: quantity.show(r, amount) for r, amount in sorted(amounts.items())}

    return {"used": show(use.used), "borrowed": show(use.borrowed), "lent": show(use.lent)}


def _conditions(
    status: Mapping[str, Any], use: QueueUse, generation: int, now: float
) -> list[dict[str, Any]]:
    old = [Condition.model_validate(each) for each in status.get("conditions") or ()]
    conditions = with_condition(
        old,
        VALID,
        "False" if use.problem else "True",
        "ParentUnusable" if use.problem else "Usable",
        f"{use.problem}: its jobs wait until this is mended" if use.problem else "",
        at=datetime.fromtimestamp(int(now), UTC),
        generation=generation,
    )
    return [each.wire() for each in conditions]
