"""The daemon of a node put together: it watches the devices and serves the kubelet."""

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from drakkar_gpu.cluster import Api
from drakkar_gpu.devices.base import Vendor
from drakkar_gpu.devices.simulated import Simulated
from drakkar_gpu.inventory import Inventory
from drakkar_gpu.nics import network_cards
from drakkar_gpu.plugin.deviceplugin import DevicePlugin
from drakkar_gpu.plugin.kubelet import Plugins
from drakkar_gpu.published import Facts, wanted
from drakkar_gpu.publisher import Publisher
from drakkar_gpu.resources import Shares
from drakkar_gpu.settings import Settings

DRIVER = "gpu.drakkar.dev"
"""Name of the DRA driver, and of its folder below the kubelet's plugins."""
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
    def pod_resources(self) -> Path:
        """Socket of the pod resources API."""
        return self.kubelet / "pod-resources" / "kubelet.sock"


def vendors(settings: Settings, place: Place) -> list[Vendor]:
    """The vendors whose devices this node has."""
    if settings.simulated is not None:
        return [Simulated(settings.simulated, node=place.node, faults=place.own / FAULTS)]
    return []


class Daemon:
    """``run`` works until it is cancelled or a part of it fails."""

    def __init__(self, settings: Settings, place: Place, found: Sequence[Vendor], api: Api) -> None:
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
        self.plugins = [self._plugins(inventory) for inventory in self.inventories]
        self.publisher = Publisher(api, place.node, lambda: wanted(self._facts()))
        self._nics = network_cards()

    def _plugins(self, inventory: Inventory) -> Plugins:
        mounts = [(mount.host, mount.container) for mount in self._settings.mounts]
        return Plugins(
            inventory,
            self._place.plugins,
            lambda resource: DevicePlugin(inventory, resource, mounts=mounts),
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
            version = await inventory.changed(version)
