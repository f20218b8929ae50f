"""Keeps the node's object saying what its devices are and how they are."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

import structlog

from drakkar_gpu.cluster import STRATEGIC, Api, ApiError
from drakkar_gpu.published import Changes, Wanted, changes

RETRY_SECONDS = 2.0
log = structlog.get_logger(__name__)


class Publisher:
    """Writes labels, annotations, the condition and the taint of one node."""

    def __init__(
        self, api: Api, node: str, wanted: Callable[[], Wanted], *, period: float = 60.0
    ) -> None:
        """``period``: seconds after which the node is looked at though nothing changed here."""
        self._api = api
        self._path = f"/api/v1/nodes/{node}"
        self._wanted = wanted
        self._period = period
        self._wake = asyncio.Event()
        self.published = False
        """Whether the node has said all of it once."""

    def wake(self) -> None:
        """Something changed."""
        self._wake.set()

    async def run(self) -> None:
        """Write whenever something changed, until cancelled."""
        while True:
            self._wake.clear()
            try:
                await self.write()
                wait = self._period
            except ApiError as error:
                # 409: somebody else wrote; look again.
                log.info("node not written", error=str(error), status=error.status)
                wait = RETRY_SECONDS
            try:
                await asyncio.wait_for(self._wake.wait(), wait)
            except TimeoutError:
                continue

    async def write(self) -> Changes:
        """Write what differs. Raises ApiError."""
        node = await self._api.get(self._path)
        now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        found = changes(node, self._wanted(), now)
        if found.node:
            await self._api.patch(self._path, dict(found.node))
        if found.status:
            await self._api.patch(f"{self._path}/status", dict(found.status), kind=STRATEGIC)
        self.published = True
        return found
