"""Which container holds which devices, as the kubelet knows it (pod resources API)."""

from dataclasses import dataclass
from pathlib import Path

from drakkar_gpu.plugin import rpc
from drakkar_gpu.plugin.proto import podresources_pb2 as api

LIST = "/v1.PodResourcesLister/List"


@dataclass(frozen=True, slots=True)
class Holder:
    """A container."""

    namespace: str
    pod: str
    container: str


@dataclass(frozen=True, slots=True)
class Held:
    """What containers hold at one moment."""

    devices: dict[tuple[str, str], Holder]
    """(resource, device id) -> the container that holds it through the device plugin."""
    claimed: dict[tuple[str, str, str], Holder]
    """(driver, pool, device) -> one of the containers that use it through a claim."""


async def held(socket: Path) -> Held:
    """Ask the kubelet. Raises grpc.aio.AioRpcError."""
    answer: api.ListPodResourcesResponse = await rpc.call(
        socket, LIST, api.ListPodResourcesRequest(), api.ListPodResourcesResponse
    )
    devices: dict[tuple[str, str], Holder] = {}
    claimed: dict[tuple[str, str, str], Holder] = {}
    for pod in answer.pod_resources:
        for container in pod.containers:
            holder = Holder(pod.namespace, pod.name, container.name)
            for given in container.devices:
                devices.update({(given.resource_name, name): holder for name in given.device_ids})
            for resource in container.dynamic_resources:
                for part in resource.claim_resources:
                    claimed[part.driver_name, part.pool_name, part.device_name] = holder
    return Held(devices, claimed)
