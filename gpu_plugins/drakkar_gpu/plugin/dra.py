"""The DRA driver: offers the devices in a ResourceSlice and prepares claims for the kubelet."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import structlog

from drakkar_gpu.cluster import Api, ApiError
from drakkar_gpu.devices.base import Device
from drakkar_gpu.inventory import Inventory
from drakkar_gpu.plugin import cdi, rpc
from drakkar_gpu.plugin.claims import Allocated, Claim, Claims, Given, allocated
from drakkar_gpu.plugin.proto import dra_pb2 as api
from drakkar_gpu.plugin.proto import registration_pb2 as registration
from drakkar_gpu.plugin.slices import device_name

SERVICE = "k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin"
REGISTRATION = "pluginregistration.Registration"
VERSIONS = ("v1.DRAPlugin",)
log = structlog.get_logger(__name__)

Taken = Callable[[], Awaitable[Mapping[str, str]]]
"""Device.id -> who holds it through the device plugin now. Raises grpc.aio.AioRpcError."""


class PrepareError(Exception):
    """A claim can't be prepared now; the message says why. The kubelet tries again."""


class Driver:
    """Answers the kubelet for all vendors of the node."""

    def __init__(
        self,
        name: str,
        node: str,
        inventories: Sequence[Inventory],
        *,
        claims: Claims,
        cluster: Api,
        taken: Taken,
        cdi_folder: Path,
        mounts: Sequence[tuple[str, str]] = (),
    ) -> None:
        self.name = name
        self._node = node
        self._inventories = inventories
        self._claims = claims
        self._cluster = cluster
        self._taken = taken
        self._cdi = cdi_folder
        self._mounts = mounts
        self._lock = asyncio.Lock()
        self.registered = asyncio.Event()
        """Set whenever the kubelet has got to know the driver."""

    async def start(self) -> None:
        """Take up what was prepared before this process began."""
        for uid, claim in self._claims.items.items():
            self._write_cdi(uid, claim)
        await self._tell()

    def services(self) -> tuple[grpc.GenericRpcHandler, grpc.GenericRpcHandler]:
        """(at the driver's socket, at its socket in the kubelet's registry)."""
        return (
            rpc.service(
                SERVICE,
                {
                    "NodePrepareResources": rpc.Method(
                        self.prepare, api.NodePrepareResourcesRequest
                    ),
                    "NodeUnprepareResources": rpc.Method(
                        self.unprepare, api.NodeUnprepareResourcesRequest
                    ),
                },
            ),
            rpc.service(
                REGISTRATION,
                {
                    "GetInfo": rpc.Method(self._info, registration.InfoRequest),
                    "NotifyRegistrationStatus": rpc.Method(
                        self._registered, registration.RegistrationStatus
                    ),
                },
            ),
        )

    async def run(self, folder: Path, registry: Path) -> None:
        """Serve until cancelled."""
        driver, registry_service = self.services()
        self._endpoint = folder / "dra.sock"
        servers = [await rpc.serve(self._endpoint, driver)]
        try:
            # The kubelet watches its registry: this socket last, when the other one answers.
            servers.append(await rpc.serve(registry / f"{self.name}-reg.sock", registry_service))
            await asyncio.Event().wait()
        finally:
            for server in servers:
                await server.stop(grace=None)

    async def _info(self, _request: Any, _context: Any) -> registration.PluginInfo:
        return registration.PluginInfo(
            type="DRAPlugin",
            name=self.name,
            endpoint=str(self._endpoint),
            supported_versions=VERSIONS,
        )

    async def _registered(
        self, status: registration.RegistrationStatus, _context: Any
    ) -> registration.RegistrationStatusResponse:
        if status.plugin_registered:
            self.registered.set()
            log.info("registered", driver=self.name)
        else:
            log.warning("not registered", driver=self.name, error=status.error)
        return registration.RegistrationStatusResponse()

    async def prepare(
        self, request: api.NodePrepareResourcesRequest, _context: Any
    ) -> api.NodePrepareResourcesResponse:
        """Prepare claims, each by itself; repeating it gives the same answer."""
        response = api.NodePrepareResourcesResponse()
        async with self._lock:
            for wanted in request.claims:
                answer = response.claims[wanted.uid]
                try:
                    claim = await self._prepared(wanted)
                except (PrepareError, ApiError, OSError, grpc.aio.AioRpcError) as error:
                    log.warning("not prepared", claim=wanted.name, error=str(error))
                    answer.error = f"{wanted.namespace}/{wanted.name}: {error}"
                    continue
                for given in claim.given:
                    answer.devices.add(
                        request_names=[given.request],
                        pool_name=given.pool,
                        device_name=given.name,
                        cdi_device_ids=[given.cdi],
                    )
        return response

    async def unprepare(
        self, request: api.NodeUnprepareResourcesRequest, _context: Any
    ) -> api.NodeUnprepareResourcesResponse:
        """Give the devices of claims free; a claim that is not known is fine."""
        response = api.NodeUnprepareResourcesResponse()
        async with self._lock:
            for wanted in request.claims:
                answer = response.claims[wanted.uid]
                try:
                    (self._cdi / cdi.file_name(cdi.CLAIM_KIND, wanted.uid)).unlink(missing_ok=True)
                    self._claims.drop(wanted.uid)
                except OSError as error:
                    answer.error = str(error)
            await self._tell()
        return response

    async def _prepared(self, wanted: api.Claim) -> Claim:
        known = self._claims.items.get(wanted.uid)
        if known is not None:
            return known
        path = (
            f"/apis/resource.k8s.io/v1/namespaces/{wanted.namespace}/resourceclaims/{wanted.name}"
        )
        raw = await self._cluster.get(path)
        if raw["metadata"]["uid"] != wanted.uid:
            raise PrepareError(f"its UID is {raw['metadata']['uid']}, not {wanted.uid}")
        results = allocated(raw, self.name, self._node)
        given = await self._give(wanted, results)
        claim = Claim(wanted.namespace, wanted.name, tuple(given))
        self._write_cdi(wanted.uid, claim)
        self._claims.put(wanted.uid, claim)
        await self._tell()
        log.info("prepared", claim=f"{wanted.namespace}/{wanted.name}", devices=len(given))
        return claim

    async def _give(self, wanted: api.Claim, results: Sequence[Allocated]) -> list[Given]:
        for inventory in self._inventories:
            await inventory.look()
        known = self._devices()
        taken = await self._taken()
        given = []
        for result in results:
            found = known.get(result.name)
            if found is None:
                raise PrepareError(f"there is no device {result.name} on {self._node}")
            inventory, device = found
            problem = inventory.problem(device)
            if problem is not None and not result.admin:
                raise PrepareError(problem)
            if device.id in taken and not result.admin:
                raise PrepareError(f"device {device.id} is held by {taken[device.id]}")
            name = f"{cdi.CLAIM_KIND}={_cdi_name(wanted.uid, result.request)}"
            given.append(
                Given(result.request, result.pool, result.name, device.id, name, result.admin)
            )
        return given

    def _devices(self) -> dict[str, tuple[Inventory, Device]]:
        return {
            device_name(inventory.vendor.name, device): (inventory, device)
            for inventory in self._inventories
            for device in inventory.health.devices
        }

    def _write_cdi(self, uid: str, claim: Claim) -> None:
        """One CDI device per request of the claim: containers may use requests apart."""
        devices = self._devices()
        made: dict[str, Any] = {}
        for request in dict.fromkeys(given.request for given in claim.given):
            found = [
                devices[given.name]
                for given in claim.given
                if given.request == request and given.name in devices
            ]
            if found:
                vendor = found[0][0].vendor
                edits = cdi.edits(vendor, [device for _, device in found], self._mounts)
                made[_cdi_name(uid, request)] = edits
        spec = cdi.specification(cdi.CLAIM_KIND, made)
        cdi.write(self._cdi, cdi.file_name(cdi.CLAIM_KIND, uid), spec)

    async def _tell(self) -> None:
        """Let the device plugin know what claims hold."""
        holders = self._claims.holders()
        for inventory in self._inventories:
            mine = {device.id for device in inventory.health.devices}
            await inventory.claim({name: by for name, by in holders.items() if name in mine})


def _cdi_name(uid: str, request: str) -> str:
    """Requests may have a part of their own (name/subrequest); CDI names have no slashes."""
    return f"{uid}-{request.replace('/', '-')}"
