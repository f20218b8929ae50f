"""Tells each Topology what its widest domains hold: nodes, and devices that are free."""

import asyncio
from collections.abc import Callable

import structlog

from drakkar.constants import FIELD_MANAGER
from drakkar.kube.rest import ApiError, Rest
from drakkar_operator.cluster import paths
from drakkar_operator.cluster.caches import Caches
from drakkar_operator.cluster.merge import merge_patch
from drakkar_operator.scheduling.domains import domains

PERIOD_SECONDS = 5.0
"""A topology's status is written at most this often."""
log = structlog.get_logger(__name__)


class TopologyStatus:
    """``run`` writes until cancelled; ``check`` raises NotLeaderError when it must not."""

    def __init__(self, rest: Rest, *, caches: Caches, check: Callable[[], None]) -> None:
        self._rest = rest
        self._caches = caches
        self._check = check
        self._changed = asyncio.Event()
        self._changed.set()
        for informer in (caches.topologies, caches.nodes, caches.pods):
            informer.subscribe(lambda *_: self._changed.set())

    async def run(self) -> None:
        """Write the statuses that changed."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self.write()
            await asyncio.sleep(PERIOD_SECONDS)

    async def write(self) -> None:
        """Write now what differs from what the topologies say. Raises NotLeaderError."""
        caches = self._caches
        for name, entry in list(caches.topologies.items.items()):
            found = domains(
                entry.levels[0][1], caches.nodes.items.values(), caches.pods.items.values()
            )
            status = {
                "domains": [
                    {"name": d.name, "nodes": d.nodes, "free": dict(sorted(d.free.items()))}
                    for d in found
                ]
            }
            old = {key: entry.status[key] for key in status if key in entry.status}
            patch = merge_patch(old, status)
            if not patch:
                continue
            self._check()
            try:
                raw = await self._rest.patch(
                    f"{paths.topology(name)}/status",
                    {"status": patch},
                    params={"fieldManager": FIELD_MANAGER},
                )
                caches.topologies.upsert(raw)
            except ApiError as error:
                if error.status != 404:
                    self._changed.set()
                    log.info("topology status not written", topology=name, error=str(error))
