"""Keeping plugins known to the kubelet, whoever of the two is started anew.

A kubelet that starts removes all sockets from its folder and makes its own anew; it knows nobody
then. So a plugin serves again once its socket is gone, and registers again once the kubelet's
socket is another one, or its connection was lost.
"""

import asyncio
import contextlib
import re
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import structlog

from drakkar_gpu.inventory import Inventory
from drakkar_gpu.plugin import deviceplugin, rpc
from drakkar_gpu.plugin.deviceplugin import DevicePlugin
from drakkar_gpu.plugin.proto import deviceplugin_pb2 as api

KUBELET_SOCKET = "kubelet.sock"
PERIOD_SECONDS = 0.5
"""How often the sockets are looked at: two stat calls."""
FORGOTTEN_SECONDS = 10.0
"""A kubelet that does not follow the devices for so long has lost its connection: register anew."""
BACKOFF_SECONDS = (0.5, 1.0, 2.0, 5.0)
log = structlog.get_logger(__name__)

Identity = tuple[int, int, int]


def identity(socket: Path) -> Identity | None:
    """What tells a socket from another one at the same path; None if there is none."""
    try:
        found = socket.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_ctime_ns


def socket_name(resource: str) -> str:
    """File name of a resource's socket."""
    return f"drakkar-{re.sub(r'[^a-zA-Z0-9.-]+', '-', resource)}.sock"


class Registered:
    """One resource, served at a socket of its own and registered at the kubelet."""

    def __init__(
        self,
        plugin: DevicePlugin,
        folder: Path,
        *,
        period: float = PERIOD_SECONDS,
        patience: float = FORGOTTEN_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._plugin = plugin
        self._socket = folder / socket_name(plugin.resource)
        self._kubelet = folder / KUBELET_SOCKET
        self._period = period
        self._patience = patience
        self._clock = clock
        self._followed_at = 0.0
        """When the kubelet followed the devices most lately, or got to know of them."""
        self._server: grpc.aio.Server | None = None
        self._served: Identity | None = None
        self.registered_at: Identity | None = None
        """The kubelet's socket where this resource is registered."""

    async def run(self) -> None:
        """Serve, register, and do so again when needed, until cancelled."""
        failures = 0
        try:
            while True:
                try:
                    await self.ensure()
                    failures = 0
                except (grpc.aio.AioRpcError, OSError, RuntimeError) as error:
                    wait = BACKOFF_SECONDS[min(failures, len(BACKOFF_SECONDS) - 1)]
                    failures += 1
                    log.warning("not registered", resource=self._plugin.resource, error=_say(error))
                    await asyncio.sleep(wait)
                await asyncio.sleep(self._period)
        finally:
            await self._stop()

    async def ensure(self) -> None:
        """Do what is missing; nothing while the kubelet is not there."""
        if self._server is None or identity(self._socket) != self._served:
            await self._serve()
        kubelet = identity(self._kubelet)
        if kubelet is None or (kubelet == self.registered_at and not self._forgotten()):
            return
        request = api.RegisterRequest(
            version=deviceplugin.VERSION,
            endpoint=self._socket.name,
            resource_name=self._plugin.resource,
            options=deviceplugin.options(),
        )
        await rpc.call(self._kubelet, deviceplugin.REGISTER, request, api.Empty)
        self.registered_at = kubelet
        self._followed_at = self._clock()
        log.info("registered", resource=self._plugin.resource)

    def _forgotten(self) -> bool:
        """Whether the kubelet knows the resource but has not followed its devices for long."""
        now = self._clock()
        if self._plugin.watchers > 0:
            self._followed_at = now
        return now - self._followed_at > self._patience

    async def _serve(self) -> None:
        await self._stop()
        self._server = await rpc.serve(self._socket, self._plugin.service())
        self._served = identity(self._socket)
        self.registered_at = None
        # The kubelet dials back at once: it must find somebody who answers.
        await rpc.call(
            self._socket, deviceplugin.OPTIONS_METHOD, api.Empty(), api.DevicePluginOptions
        )

    async def _stop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            await server.stop(grace=None)


def _say(error: BaseException) -> str:
    return (
        (error.details() or str(error.code()))
        if isinstance(error, grpc.aio.AioRpcError)
        else str(error)
    )


class Plugins:
    """A ``Registered`` for each resource that the inventory offers, also those that come later."""

    def __init__(
        self,
        inventory: Inventory,
        folder: Path,
        make: Callable[[str], DevicePlugin],
        *,
        period: float = PERIOD_SECONDS,
    ) -> None:
        self._inventory = inventory
        self._folder = folder
        self._make = make
        self._period = period
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.plugins: dict[str, Registered] = {}

    async def run(self) -> None:
        """Serve all resources until cancelled. Raises what ended one of them."""
        try:
            while True:
                version = self._inventory.version
                for resource in self._inventory.offers():
                    if resource not in self._tasks:
                        plugin = Registered(self._make(resource), self._folder, period=self._period)
                        self.plugins[resource] = plugin
                        self._tasks[resource] = asyncio.create_task(plugin.run())
                change = asyncio.create_task(self._inventory.changed(version))
                try:
                    await asyncio.wait(
                        [change, *self._tasks.values()], return_when=asyncio.FIRST_COMPLETED
                    )
                finally:
                    change.cancel()
                for task in self._tasks.values():
                    if task.done():
                        task.result()
        finally:
            for task in self._tasks.values():
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    @property
    def registered(self) -> bool:
        """Whether every resource is known to the kubelet that runs now."""
        kubelet = identity(self._folder / KUBELET_SOCKET)
        known = [plugin.registered_at for plugin in self.plugins.values()]
        return bool(known) and kubelet is not None and all(at == kubelet for at in known)
