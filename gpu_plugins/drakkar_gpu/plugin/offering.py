"""Keeps the node's ResourceSlice true: what claims may be given of its devices now."""

import asyncio
from collections.abc import Callable, Mapping, Sequence

import grpc
import structlog

from drakkar_gpu.cluster import Api, ApiError
from drakkar_gpu.inventory import Inventory
from drakkar_gpu.plugin.dra import Driver, Taken
from drakkar_gpu.plugin.slices import Object, Pool, resource_slice, same_devices, slice_devices

SLICES = "/apis/resource.k8s.io/v1/resourceslices"
PERIOD_SECONDS = 2.0
CHECK_SECONDS = 60.0
"""The slice is read again after so long though nothing changed here."""
log = structlog.get_logger(__name__)


def pools(inventories: Sequence[Inventory], taken: Mapping[str, str]) -> list[Pool]:
    """Each vendor's devices as claims see them. Shares of a device are not for claims."""
    return [
        Pool(
            vendor=inventory.vendor.name,
            health=inventory.health,
            matrix=inventory.matrix,
            offered=frozenset(
                offer.id for offered in inventory.offers().values() for offer in offered
            ),
            taken=frozenset(taken),
            claimed=frozenset(inventory.claimed),
        )
        for inventory in inventories
    ]


class Offering:
    """Publishes the slice of one driver on one node."""

    def __init__(
        self,
        api: Api,
        node: str,
        driver: Driver,
        inventories: Sequence[Inventory],
        taken: Taken,
        *,
        clock: Callable[[], float],
    ) -> None:
        self._api = api
        self._node = node
        self._driver = driver
        self._inventories = inventories
        self._taken = taken
        self._clock = clock
        self._written: list[Object] | None = None
        self._checked = float("-inf")

    async def run(self) -> None:
        """Publish whenever something changed, until cancelled."""
        while True:
            try:
                await self.publish()
            except (ApiError, grpc.aio.AioRpcError) as error:
                log.info("slice not written", error=str(error))
            await asyncio.sleep(PERIOD_SECONDS)

    async def publish(self) -> None:
        """Write the slice if it differs. Raises ApiError, or AioRpcError of the kubelet."""
        if self._driver.registered.is_set():
            # A kubelet takes away the slices of a driver that was gone for a while.
            self._driver.registered.clear()
            self._checked = float("-inf")
        taken = await self._taken()
        devices = [d for pool in pools(self._inventories, taken) for d in slice_devices(pool)]
        now = self._clock()
        if devices == self._written and now - self._checked < CHECK_SECONDS:
            return
        await self._write(devices)
        self._written, self._checked = devices, now

    async def _write(self, devices: list[Object]) -> None:
        path = f"{SLICES}/{self._node}-{self._driver.name}"
        try:
            there = await self._api.get(path)
        except ApiError as error:
            if error.status != 404:
                raise
            node = await self._api.get(f"/api/v1/nodes/{self._node}")
            uid = node["metadata"]["uid"]
            made = resource_slice(self._driver.name, self._node, uid, devices, 1)
            await self._api.create(SLICES, made)
            return
        if same_devices(there, devices):
            return
        there["spec"]["devices"] = devices
        there["spec"]["pool"]["generation"] += 1
        await self._api.replace(path, there)
