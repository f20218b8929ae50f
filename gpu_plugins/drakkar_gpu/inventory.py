"""The devices of this node as all parts of the process share them: health, links, who holds what."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import structlog

from drakkar_gpu import health
from drakkar_gpu.devices.base import Device, Fault, Link, Vendor, VendorError
from drakkar_gpu.health import Health
from drakkar_gpu.links import LinkMatrix, link_matrix
from drakkar_gpu.resources import Offer, Shares, offers

GIVEN_SECONDS = 10.0
"""A device counts as held for so long after it was handed out, whatever the kubelet says."""
log = structlog.get_logger(__name__)


class Inventory:
    """One vendor's devices. ``look`` reads them; others wait for ``changed``."""

    def __init__(
        self,
        vendor: Vendor,
        *,
        shares: Shares | None = None,
        settle: float = 30.0,
        patience: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``settle``: see ``health.look``. After ``patience`` seconds without an answer of the
        vendor's library or tool no device is trusted."""
        self.vendor = vendor
        self.health = Health()
        self.matrix: LinkMatrix = link_matrix((), ())
        self.claimed: Mapping[str, str] = {}
        """Device id -> the ResourceClaim that holds it (namespace/name)."""
        self._given: dict[str, float] = {}
        self._shares = shares
        self._settle = settle
        self._patience = patience
        self._clock = clock
        self._answered = clock()
        self._changed = asyncio.Condition()
        self._looking = asyncio.Lock()
        """Answers must not overtake each other."""
        self._version = 0

    async def look(self) -> None:
        """Read the vendor's devices, faults and links once; who asks meanwhile waits for his own."""
        async with self._looking:
            await self._look()

    async def _look(self) -> None:
        now = self._clock()
        try:
            devices, faults, links = await asyncio.to_thread(self._read)
        except VendorError as error:
            log.warning("devices can't be read", vendor=self.vendor.name, error=str(error))
            if now - self._answered >= self._patience:
                await self._set(health.blind(self.health, str(error)), self.matrix)
            return
        self._answered = now
        seen = health.look(self.health, devices, faults, now, settle=self._settle)
        await self._set(seen, link_matrix(seen.devices, links))

    def _read(self) -> tuple[Sequence[Device], Sequence[Fault], Sequence[Link]]:
        vendor = self.vendor
        return vendor.devices(), vendor.faults(), vendor.links()

    async def _set(self, seen: Health, matrix: LinkMatrix) -> None:
        for device in seen.devices:
            before, now = self.health.faults.get(device.id), seen.faults.get(device.id)
            if now is not None and (before is None or before.code != now.code):
                log.warning("fault", device=device.id, code=now.code, message=now.message)
            elif before is not None and now is None:
                log.info("recovered", device=device.id, code=before.code)
        changed = seen.devices != self.health.devices or seen.faults != self.health.faults
        self.health, self.matrix = seen, matrix
        if changed:
            await self._notify()

    async def claim(self, claimed: Mapping[str, str]) -> None:
        """Set which devices claims hold."""
        if dict(claimed) != dict(self.claimed):
            self.claimed = dict(claimed)
            await self._notify()

    async def _notify(self) -> None:
        async with self._changed:
            self._version += 1
            self._changed.notify_all()

    @property
    def version(self) -> int:
        """Grows with each change of health, of the list or of the claims."""
        return self._version

    async def changed(self, since: int) -> int:
        """Return the version once it is not ``since``."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._version != since)
            return self._version

    def offers(self) -> dict[str, list[Offer]]:
        """What is offered, by resource."""
        return offers(self.health.devices, self.vendor.resource, self._shares)

    def give(self, devices: Iterable[Device]) -> None:
        """The device plugin hands these out now; the kubelet tells of it a little later."""
        now = self._clock()
        self._given.update({device.id: now for device in devices})

    def just_given(self) -> set[str]:
        """Ids of the devices that were handed out in the last GIVEN_SECONDS."""
        now = self._clock()
        return {name for name, at in self._given.items() if now - at < GIVEN_SECONDS}

    def usable(self, device: Device) -> bool:
        """Whether the kubelet may hand the device out: it is well, and no claim holds it."""
        return self.health.healthy(device) and device.id not in self.claimed

    def problem(self, device: Device) -> str | None:
        """Why the device can't be had, or None if it can."""
        fault = self.health.faults.get(device.id) or self.health.faults.get(device.parent or "")
        if fault is not None:
            return f"device {device.id} is unhealthy: {fault.code}: {fault.message}"
        if device.id in self.claimed:
            return f"device {device.id} is held by ResourceClaim {self.claimed[device.id]}"
        return None
