"""The kubelet's device plugin API for one resource."""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any

import grpc

from drakkar.constants import DEVICES_VARIABLE
from drakkar_gpu.allocation import AllocationError, preferred
from drakkar_gpu.inventory import Inventory
from drakkar_gpu.links import link_matrix
from drakkar_gpu.plugin import rpc
from drakkar_gpu.plugin.proto import deviceplugin_pb2 as api
from drakkar_gpu.resources import Offer

VERSION = "v1beta1"
SERVICE = "v1beta1.DevicePlugin"
REGISTER = "/v1beta1.Registration/Register"
OPTIONS_METHOD = f"/{SERVICE}/GetDevicePluginOptions"
HEALTHY, UNHEALTHY = "Healthy", "Unhealthy"


def options() -> api.DevicePluginOptions:
    """What the kubelet may call besides the rest."""
    return api.DevicePluginOptions(pre_start_required=True, get_preferred_allocation_available=True)


class DevicePlugin:
    """Answers the kubelet. Knows no vendor."""

    def __init__(
        self,
        inventory: Inventory,
        resource: str,
        *,
        cdi_kind: str | None = None,
        mounts: Sequence[tuple[str, str]] = (),
    ) -> None:
        """With ``cdi_kind`` device files are left to the CDI specification of that kind.

        ``mounts`` are (host path, container path), seen read-only in every container with a device.
        """
        self.resource = resource
        self._inventory = inventory
        self._cdi_kind = cdi_kind
        self._mounts = mounts
        self.watchers = 0
        """Kubelets that follow the devices now."""

    def service(self) -> grpc.GenericRpcHandler:
        """What to serve."""
        return rpc.service(
            SERVICE,
            {
                "GetDevicePluginOptions": rpc.Method(self.get_options, api.Empty),
                "ListAndWatch": rpc.Method(self.list_and_watch, api.Empty, stream=True),
                "GetPreferredAllocation": rpc.Method(
                    self.get_preferred_allocation, api.PreferredAllocationRequest
                ),
                "Allocate": rpc.Method(self.allocate, api.AllocateRequest),
                "PreStartContainer": rpc.Method(
                    self.pre_start_container, api.PreStartContainerRequest
                ),
            },
        )

    async def get_options(self, _request: api.Empty, _context: Any) -> api.DevicePluginOptions:
        """What else may be called."""
        return options()

    async def list_and_watch(
        self, _request: api.Empty, _context: Any
    ) -> AsyncIterator[api.ListAndWatchResponse]:
        """All devices with their health, again whenever something changes."""
        sent: api.ListAndWatchResponse | None = None
        self.watchers += 1
        try:
            while True:
                version = self._inventory.version
                devices = [self._device(offer) for offer in self._offers()]
                current = api.ListAndWatchResponse(devices=devices)
                if current != sent:
                    yield current
                    sent = current
                await self._inventory.changed(version)
        finally:
            self.watchers -= 1

    async def get_preferred_allocation(
        self, request: api.PreferredAllocationRequest, context: Any
    ) -> api.PreferredAllocationResponse:
        """The best linked set for each container."""
        response = api.PreferredAllocationResponse()
        for wanted in request.container_requests:
            try:
                chosen = self._preferred(
                    wanted.available_deviceIDs,
                    wanted.must_include_deviceIDs,
                    wanted.allocation_size,
                )
            except AllocationError as error:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"{self.resource}: {error}")
            response.container_responses.add(deviceIDs=chosen)
        return response

    async def allocate(self, request: api.AllocateRequest, context: Any) -> api.AllocateResponse:
        """Environment, device files, mounts and CDI names for each container."""
        response = api.AllocateResponse()
        for wanted in request.container_requests:
            given = await self._usable(wanted.devices_ids, context)
            self._inventory.give(offer.device for offer in given)
            response.container_responses.append(self._response(given))
        return response

    async def pre_start_container(
        self, request: api.PreStartContainerRequest, context: Any
    ) -> api.PreStartContainerResponse:
        """Look once more: a container that starts, or starts anew, gets no broken device."""
        await self._inventory.look()
        await self._usable(request.devices_ids, context)
        return api.PreStartContainerResponse()

    def _offers(self) -> list[Offer]:
        return self._inventory.offers().get(self.resource, [])

    def _device(self, offer: Offer) -> api.Device:
        usable = self._inventory.usable(offer.device)
        device = api.Device(ID=offer.id, health=HEALTHY if usable else UNHEALTHY)
        if offer.device.numa_node is not None:
            device.topology.nodes.add(ID=offer.device.numa_node)
        return device

    def _preferred(
        self, available: Iterable[str], required: Iterable[str], size: int
    ) -> tuple[str, ...]:
        """Shares of one device count as parts of one chip."""
        offered = self._offers()
        if all(offer.id == offer.device.id for offer in offered):
            matrix = self._inventory.matrix
        else:
            matrix = link_matrix([offer.as_device() for offer in offered], ())
        return preferred(matrix, set(available), set(required), size)

    async def _usable(self, ids: Iterable[str], context: Any) -> list[Offer]:
        offered = {offer.id: offer for offer in self._offers()}
        given = []
        for name in ids:
            if name not in offered:
                await context.abort(
                    grpc.StatusCode.NOT_FOUND, f"{self.resource}: no device {name} on this node"
                )
            problem = self._inventory.problem(offered[name].device)
            if problem is not None:
                await context.abort(grpc.StatusCode.FAILED_PRECONDITION, problem)
            given.append(offered[name])
        return given

    def _response(self, given: Sequence[Offer]) -> api.ContainerAllocateResponse:
        devices = list({o.device.id: o.device for o in given}.values())
        devices.sort(key=lambda device: device.index)
        environment: Mapping[str, str] = {
            DEVICES_VARIABLE: ",".join(device.id for device in devices),
            **self._inventory.vendor.environment(devices),
        }
        response = api.ContainerAllocateResponse(envs=dict(environment))
        for host, container in self._mounts:
            response.mounts.add(host_path=host, container_path=container, read_only=True)
        if self._cdi_kind is not None:
            for device in devices:
                if device.paths:
                    response.cdi_devices.add(name=f"{self._cdi_kind}={device.id}")
            return response
        for path in sorted({path for device in devices for path in device.paths}):
            response.devices.add(host_path=path, container_path=path, permissions="rw")
        return response
