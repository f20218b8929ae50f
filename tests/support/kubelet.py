"""The kubelet's side of the device plugin API, for tests of plugins without a node."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc

from drakkar_gpu.plugin import deviceplugin, rpc
from drakkar_gpu.plugin.proto import deviceplugin_pb2 as api


class Kubelet:
    """Takes registrations at kubelet.sock and follows the devices of each, as a kubelet does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.registrations: list[api.RegisterRequest] = []
        self.devices: dict[str, dict[str, api.Device]] = {}
        """Resource -> id -> the device as last told."""
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        """Start as a kubelet does: remove every socket, then listen."""
        for socket in self.folder.glob("*.sock"):
            socket.unlink()
        service = rpc.service(
            "v1beta1.Registration", {"Register": rpc.Method(self._register, api.RegisterRequest)}
        )
        self._server = await rpc.serve(self.folder / "kubelet.sock", service)

    async def stop(self) -> None:
        """End, and forget everything."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        if self._server is not None:
            await self._server.stop(grace=None)
        self.devices.clear()

    async def forget(self) -> None:
        """Lose the connections to all plugins, and go on."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.devices.clear()

    async def until(self, true: Any, seconds: float = 20.0) -> None:
        """Wait for something to hold of what was told."""
        async with asyncio.timeout(seconds), self._changed:
            await self._changed.wait_for(true)

    def healthy(self, resource: str) -> set[str]:
        """Ids of the devices that may be handed out."""
        told = self.devices.get(resource, {})
        return {name for name, device in told.items() if device.health == "Healthy"}

    async def call(self, resource: str, method: str, request: Any, response: Any) -> Any:
        """Call the plugin of a resource."""
        endpoint = next(r.endpoint for r in self.registrations if r.resource_name == resource)
        path = f"/{deviceplugin.SERVICE}/{method}"
        return await rpc.call(self.folder / endpoint, path, request, response)

    async def allocate(self, resource: str, *ids: str) -> api.ContainerAllocateResponse:
        """Allocate devices for one container."""
        request = api.AllocateRequest()
        request.container_requests.add(devices_ids=ids)
        answer = await self.call(resource, "Allocate", request, api.AllocateResponse)
        (container,) = answer.container_responses
        return container  # type: ignore[no-any-return]

    async def preferred(
        self,
        resource: str,
        available: set[str],
        size: int,
        required: set[str] = frozenset(),  # type: ignore[assignment]
    ) -> list[str]:
        """Ask which devices are best for one container."""
        request = api.PreferredAllocationRequest()
        request.container_requests.add(
            available_deviceIDs=sorted(available),
            must_include_deviceIDs=sorted(required),
            allocation_size=size,
        )
        answer = await self.call(
            resource, "GetPreferredAllocation", request, api.PreferredAllocationResponse
        )
        (container,) = answer.container_responses
        return list(container.deviceIDs)

    async def _register(self, request: api.RegisterRequest, context: Any) -> api.Empty:
        self.registrations.append(request)
        task = asyncio.create_task(self._follow(request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return api.Empty()

    async def _follow(self, request: api.RegisterRequest) -> None:
        async with grpc.aio.insecure_channel(f"unix://{self.folder / request.endpoint}") as channel:
            watch = channel.unary_stream(
                f"/{deviceplugin.SERVICE}/ListAndWatch",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=api.ListAndWatchResponse.FromString,
            )
            async for told in watch(api.Empty()):
                async with self._changed:
                    self.devices[request.resource_name] = {d.ID: d for d in told.devices}
                    self._changed.notify_all()


@asynccontextmanager
async def kubelet_in(folder: Path) -> AsyncIterator[Kubelet]:
    """A kubelet that runs, with its sockets in a folder."""
    kubelet = Kubelet(folder)
    await kubelet.start()
    try:
        yield kubelet
    finally:
        await kubelet.stop()
