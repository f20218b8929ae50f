"""Tells each Queue what its jobs use and wait for."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import structlog

from drakkar import quantity
from drakkar.constants import FIELD_MANAGER
from drakkar_operator.cluster import paths
from drakkar_operator.cluster.caches import Caches
from drakkar_operator.cluster.jobs import Jobs
from drakkar_operator.cluster.merge import merge_patch
from drakkar_operator.cluster.rest import ApiError, Rest

if TYPE_CHECKING:
    from drakkar_operator.scheduler import Scheduler

PERIOD_SECONDS = 2.0
"""A queue's status is written at most this often."""
log = structlog.get_logger(__name__)


class QueueStatus:
    """``run`` writes until cancelled; ``check`` raises NotLeaderError when it must not."""

    def __init__(
        self,
        rest: Rest,
        *,
        caches: Caches,
        jobs: Jobs,
        scheduler: "Scheduler",
        check: Callable[[], None],
    ) -> None:
        self._rest = rest
        self._caches = caches
        self._scheduler = scheduler
        self._check = check
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
        used = self._scheduler.used()
        for name, entry in list(self._caches.queues.items.items()):
            admitted, pending = self._scheduler.counts(name)
            status: dict[str, Any] = {
                "used": {r: quantity.show(r, a) for r, a in sorted(used.get(name, {}).items())},
                "admitted": admitted,
                "pending": pending,
            }
            old = {key: entry.status[key] for key in status if key in entry.status}
            patch = merge_patch(old, status)
            if not patch:
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
