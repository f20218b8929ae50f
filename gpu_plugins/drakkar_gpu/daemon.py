"""The daemon of a node put together: it watches the devices and serves the kubelet."""

import asyncio
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from drakkar_gpu.cluster import Api
from drakkar_gpu.devices import detect
from drakkar_gpu.devices.base import Vendor
from drakkar_gpu.devices.simulated import Simulated
from drakkar_gpu.exporter import Exporter
from drakkar_gpu.inventory import Inventory
from drakkar_gpu.nics import network_cards
from drakkar_gpu.plugin import cdi, podresources
from drakkar_gpu.plugin.claims import Claims
from drakkar_gpu.plugin.deviceplugin import DevicePlugin
from drakkar_gpu.plugin.dra import Driver
from drakkar_gpu.plugin.kubelet import Plugins
from drakkar_gpu.plugin.offering import Offering
from drakkar_gpu.published import Facts, wanted
from drakkar_gpu.publisher import Publisher
from drakkar_gpu.resources import Shares
from drakkar_gpu.settings import Settings

DRIVER = "gpu.drakkar.dev"
"""Name of the DRA driver, and of its folder below the kubelet's plugins."""
CLAIMS = "claims.json"
FAULTS = "simulated-faults.json"
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the daemon runs."""

    node: str
    kubelet: Path = Path("/var/lib/kubelet")
    cdi: Path = Path("/var/run/cdi")

    @property
    def plugins(self) -> Path:
        """Folder of the device plugins' sockets."""
        return self.kubelet / "device-plugins"

    @property
    def own(self) -> Path:
        """Folder of what this daemon keeps."""
        return self.kubelet / "plugins" / DRIVER

    @property
    def registry(self) -> Path:
        """Folder where the kubelet finds drivers."""
        return self.kubelet / "plugins_registry"

    @property
    def pod_resources(self) -> Path:
        """Socket of the pod resources API."""
        return self.kubelet / "pod-resources" / "kubelet.sock"


def vendors(settings: Settings, place: Place) -> list[Vendor]:
    """The vendors whose devices this node has. Raises VendorError for one that there is not."""
    if settings.simulated is not None:
        return [Simulated(settings.simulated, node=place.node, faults=place.own / FAULTS)]
    return detect.make(settings.vendors) if settings.vendors else detect.present()


class Daemon:
    """``run`` works until it is cancelled or a part of it fails."""

    def __init__(
        self,
        settings: Settings,
        place: Place,
        found: Sequence[Vendor],
        api: Api,
        *,
        metrics_port: int = 0,
    ) -> None:
        """``metrics_port``: where Prometheus finds the devices' metrics; 0 is nowhere."""
        self._metrics_port = metrics_port
        self._settings = settings
        self._place = place
        shares = Shares(settings.shares.devices, settings.shares.each)
        self.inventories = [
            Inventory(
                vendor,
                shares=shares,
                settle=settings.health.settle_seconds,
                patience=settings.health.patience_seconds,
            )
            for vendor in found
        ]
        self._mounts = [(mount.host, mount.container) for mount in settings.mounts]
        self.driver: Driver | None = None
        self._offering: Offering | None = None
        if settings.dra:
            self.driver = Driver(
                DRIVER,
                place.node,
                self.inventories,
                claims=Claims(place.own / CLAIMS),
                cluster=api,
                taken=self._taken,
                cdi_folder=place.cdi,
                mounts=self._mounts,
            )
            self._offering = Offering(
                api, place.node, self.driver, self.inventories, self._taken, clock=time.monotonic
            )
        self.plugins = [self._plugins(inventory) for inventory in self.inventories]
        self.publisher = Publisher(api, place.node, lambda: wanted(self._facts()))
        self._nics = network_cards()
        self._exporter = Exporter(
            place.node,
            self.inventories,
            api=api,
            pod_resources=place.pod_resources,
            driver=DRIVER,
        )

    def _plugins(self, inventory: Inventory) -> Plugins:
        kind = cdi.DEVICE_KIND if self._settings.cdi else None
        return Plugins(
            inventory,
            self._place.plugins,
            lambda resource: DevicePlugin(inventory, resource, cdi_kind=kind, mounts=self._mounts),
        )

    def _facts(self) -> list[Facts]:
        return [
            Facts(i.vendor.name, i.vendor.resource, i.health, i.matrix, self._nics)
            for i in self.inventories
        ]

    @property
    def ready(self) -> bool:
        """The kubelet knows all resources, and the node's object says so."""
        return self.publisher.published and all(plugins.registered for plugins in self.plugins)

    async def run(self) -> None:
        """Work until cancelled. Raises what ended a part."""
        for inventory in self.inventories:
            await inventory.look()
        parts: list[Coroutine[Any, Any, None]] = [self.publisher.run()]
        for inventory, plugins in zip(self.inventories, self.plugins, strict=True):
            parts += [self._watch(inventory), self._tell(inventory), plugins.run()]
        if self._metrics_port:
            parts.append(self._exporter.run(self._metrics_port))
        if self.driver is not None and self._offering is not None:
            await self.driver.start()
            parts += [
                self.driver.run(self._place.own, self._place.registry),
                self._offering.run(),
            ]
        async with asyncio.TaskGroup() as group:
            for part in parts:
                group.create_task(part)

    async def _watch(self, inventory: Inventory) -> None:
        while True:
            await asyncio.sleep(self._settings.health.period_seconds)
            await inventory.look()

    async def _tell(self, inventory: Inventory) -> None:
        version = inventory.version
        while True:
            self.publisher.wake()
            if self._settings.cdi:
                self._write_cdi(inventory)
            version = await inventory.changed(version)

    def _write_cdi(self, inventory: Inventory) -> None:
        name = cdi.file_name(cdi.DEVICE_KIND, inventory.vendor.name)
        cdi.write(self._place.cdi, name, cdi.node_devices(inventory.health.devices))

    async def _taken(self) -> dict[str, str]:
        """Device.id -> who holds it through the device plugin; see ``dra.Taken``."""
        held = await podresources.held(self._place.pod_resources)
        offered = {
            (resource, offer.id): offer.device.id
            for inventory in self.inventories
            for resource, offers in inventory.offers().items()
            for offer in offers
        }
        just = {name for inventory in self.inventories for name in inventory.just_given()}
        found = dict.fromkeys(just, "a container that is about to start")
        for key, holder in held.devices.items():
            if key in offered:
                found[offered[key]] = f"pod {holder.namespace}/{holder.pod}"
        return found
