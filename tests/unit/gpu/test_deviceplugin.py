"""The plugin answers a kubelet over real sockets."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from drakkar_gpu.devices.simulated import RESOURCE, Simulated, SimulatedSpec
from drakkar_gpu.inventory import Inventory
from drakkar_gpu.plugin.deviceplugin import DevicePlugin
from drakkar_gpu.plugin.kubelet import Plugins, Registered
from drakkar_gpu.plugin.proto import deviceplugin_pb2 as api
from drakkar_gpu.resources import Shares
from support.kubelet import Kubelet, kubelet_in

DEFAULTS = dict(Registered.__init__.__kwdefaults__ or {})


class Node:
    """A node's devices, their plugin and a kubelet."""

    def __init__(self, folder: Path, kubelet: Kubelet, **settings: Any) -> None:
        self.kubelet = kubelet
        self.faults = folder / "faults.json"
        spec = SimulatedSpec(fabric="groups", domain="clique-1")
        vendor = Simulated(spec, node="n1", faults=self.faults)
        self.inventory = Inventory(vendor, settle=0.0, **settings)
        self.plugins = Plugins(
            self.inventory,
            kubelet.folder,
            lambda resource: DevicePlugin(self.inventory, resource),
            period=0.01,
        )
        self.ids = {f"SIM-n1-{i}" for i in range(8)}

    async def fault(self, *faults: dict[str, str]) -> None:
        self.faults.write_text(json.dumps(list(faults)))
        await self.inventory.look()


@asynccontextmanager
async def node(folder: Path, **settings: Any) -> AsyncIterator[Node]:
    async with kubelet_in(folder) as kubelet:
        made = Node(folder, kubelet, **settings)
        await made.inventory.look()
        running = asyncio.create_task(made.plugins.run())
        try:
            await kubelet.until(lambda: len(kubelet.healthy(RESOURCE)) > 0)
            yield made
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def test_devices_are_told_with_their_numa_nodes(tmp_path: Path) -> None:
    async with node(tmp_path) as made:
        told = made.kubelet.devices[RESOURCE]
        assert made.kubelet.healthy(RESOURCE) == made.ids
        numa = {name: [n.ID for n in d.topology.nodes] for name, d in told.items()}
        assert numa["SIM-n1-0"] == [0]
        assert numa["SIM-n1-7"] == [1]
        (registration,) = made.kubelet.registrations
        assert registration.version == "v1beta1"
        assert registration.options.get_preferred_allocation_available
        assert registration.options.pre_start_required


async def test_a_fault_makes_a_device_unhealthy_until_it_is_gone(tmp_path: Path) -> None:
    async with node(tmp_path) as made:
        await made.fault({"device": "3", "code": "xid-79"})
        await made.kubelet.until(lambda: made.kubelet.healthy(RESOURCE) == made.ids - {"SIM-n1-3"})
        with pytest.raises(grpc.aio.AioRpcError, match=r"SIM-n1-3 is unhealthy: xid-79: injected"):
            await made.kubelet.allocate(RESOURCE, "SIM-n1-2", "SIM-n1-3")
        await made.fault()
        await made.kubelet.until(lambda: made.kubelet.healthy(RESOURCE) == made.ids)
        assert await made.kubelet.allocate(RESOURCE, "SIM-n1-3")


async def test_a_warning_does_not_take_a_device_away(tmp_path: Path) -> None:
    async with node(tmp_path) as made:
        await made.fault({"device": "3", "code": "xid-13", "severity": "warning"})
        assert await made.kubelet.allocate(RESOURCE, "SIM-n1-3")


async def test_a_container_does_not_start_on_a_device_that_broke_since(tmp_path: Path) -> None:
    async with node(tmp_path) as made:
        await made.kubelet.allocate(RESOURCE, "SIM-n1-3")
        made.faults.write_text('[{"device": "3", "code": "thermal", "message": "95 C"}]')
        request = api.PreStartContainerRequest(devices_ids=["SIM-n1-3"])
        with pytest.raises(grpc.aio.AioRpcError, match="thermal: 95 C"):
            await made.kubelet.call(
                RESOURCE, "PreStartContainer", request, api.PreStartContainerResponse
            )


async def test_environment_names_the_devices_in_their_order(tmp_path: Path) -> None:
    async with node(tmp_path) as made:
        given = await made.kubelet.allocate(RESOURCE, "SIM-n1-5", "SIM-n1-2")
        assert dict(given.envs) == {
            "DRAKKAR_DEVICES": "SIM-n1-2,SIM-n1-5",
            "CUDA_VISIBLE_DEVICES": "2,5",
        }


async def test_preferred_devices_share_a_fabric_group(tmp_path: Path) -> None:
    async with node(tmp_path) as made:
        free = made.ids - {"SIM-n1-0"}
        assert await made.kubelet.preferred(RESOURCE, free, 2) == ["SIM-n1-1", "SIM-n1-2"]
        assert await made.kubelet.preferred(RESOURCE, free, 4) == [
            f"SIM-n1-{i}" for i in range(4, 8)
        ]
        with pytest.raises(grpc.aio.AioRpcError, match="9 devices asked for"):
            await made.kubelet.preferred(RESOURCE, made.ids, 9)


async def test_a_restarted_kubelet_gets_to_know_the_plugin_again(tmp_path: Path) -> None:
    async with node(tmp_path) as made:
        await made.kubelet.stop()
        assert made.kubelet.devices == {}
        await made.kubelet.start()
        await made.kubelet.until(lambda: made.kubelet.healthy(RESOURCE) == made.ids)
        assert len(made.kubelet.registrations) == 2
        assert await made.kubelet.allocate(RESOURCE, "SIM-n1-3")


async def test_a_kubelet_that_lost_its_connection_gets_it_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Registered.__init__, "__kwdefaults__", {**DEFAULTS, "patience": 0.2})
    async with node(tmp_path) as made:
        await made.kubelet.forget()
        await made.kubelet.until(lambda: made.kubelet.healthy(RESOURCE) == made.ids)
        assert len(made.kubelet.registrations) >= 2


async def test_a_plugin_starts_before_the_kubelet(tmp_path: Path) -> None:
    async with kubelet_in(tmp_path) as kubelet:
        await kubelet.stop()
        (tmp_path / "kubelet.sock").unlink(missing_ok=True)
        made = Node(tmp_path, kubelet)
        await made.inventory.look()
        running = asyncio.create_task(made.plugins.run())
        try:
            await kubelet.start()
            await kubelet.until(lambda: kubelet.healthy(RESOURCE) == made.ids)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def test_a_device_that_a_claim_holds_is_not_given_to_others(tmp_path: Path) -> None:
    async with node(tmp_path) as made:
        await made.inventory.claim({"SIM-n1-1": "ml/one"})
        await made.kubelet.until(lambda: made.kubelet.healthy(RESOURCE) == made.ids - {"SIM-n1-1"})
        with pytest.raises(grpc.aio.AioRpcError, match="held by ResourceClaim ml/one"):
            await made.kubelet.allocate(RESOURCE, "SIM-n1-1")
        await made.inventory.claim({})
        await made.kubelet.until(lambda: made.kubelet.healthy(RESOURCE) == made.ids)


async def test_shares_are_a_resource_of_their_own(tmp_path: Path) -> None:
    async with node(tmp_path, shares=Shares((6, 7), each=2)) as made:
        shared = f"{RESOURCE}.shared"
        await made.kubelet.until(lambda: shared in made.kubelet.devices)
        names = {f"SIM-n1-{i}::{s}" for i in (6, 7) for s in (0, 1)}
        assert made.kubelet.healthy(shared) == names
        assert made.kubelet.healthy(RESOURCE) == made.ids - {"SIM-n1-6", "SIM-n1-7"}
        # The device that is in use already fills up first.
        left = names - {"SIM-n1-7::0"}
        assert await made.kubelet.preferred(shared, left, 1) == ["SIM-n1-7::1"]
        given = await made.kubelet.allocate(shared, "SIM-n1-7::0", "SIM-n1-7::1")
        assert given.envs["DRAKKAR_DEVICES"] == "SIM-n1-7"
        await made.fault({"device": "7", "code": "xid-79"})
        await made.kubelet.until(lambda: len(made.kubelet.healthy(shared)) == 2)


async def test_an_unknown_device_is_refused(tmp_path: Path) -> None:
    async with node(tmp_path) as made:
        with pytest.raises(grpc.aio.AioRpcError, match="no device SIM-n2-0 on this node"):
            await made.kubelet.allocate(RESOURCE, "SIM-n2-0")
