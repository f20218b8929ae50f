"""Claims are prepared over real sockets; the API server's answers are written here."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from drakkar_gpu.cluster import Api
from drakkar_gpu.devices.simulated import Simulated, SimulatedSpec
from drakkar_gpu.inventory import Inventory
from drakkar_gpu.plugin import dra, rpc
from drakkar_gpu.plugin.claims import Claims
from drakkar_gpu.plugin.dra import Driver
from drakkar_gpu.plugin.offering import SLICES, Offering
from drakkar_gpu.plugin.proto import dra_pb2 as api
from drakkar_gpu.plugin.proto import registration_pb2 as registration

DRIVER, NODE = "gpu.drakkar.dev", "n1"
Object = dict[str, Any]


def claim(uid: str, *results: tuple[str, int], **more: Any) -> Object:
    """A claim that kube-scheduler gave (request, index of device) on the node."""
    given = [
        {"request": request, "driver": DRIVER, "pool": NODE, "device": f"simulated-{index}", **more}
        for request, index in results
    ]
    other = {"request": "nic", "driver": "nic.example", "pool": NODE, "device": "simulated-7"}
    return {
        "metadata": {"name": f"claim-{uid}", "namespace": "ml", "uid": uid},
        "status": {"allocation": {"devices": {"results": [*given, other]}}},
    }


class Server:
    """ResourceClaims, ResourceSlices and one Node."""

    def __init__(self, *claims: Object) -> None:
        self.claims = {item["metadata"]["name"]: item for item in claims}
        self.slices: dict[str, Object] = {}
        self.writes = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        name = request.url.path.rsplit("/", 1)[-1]
        if request.method in ("POST", "PUT"):
            self.writes += 1
            body = json.loads(request.content)
            self.slices[body["metadata"]["name"]] = body
            return httpx.Response(200, json=body)
        if name == NODE:
            return httpx.Response(200, json={"metadata": {"name": NODE, "uid": "node-uid"}})
        found = self.claims.get(name) or self.slices.get(name)
        if found is None:
            return httpx.Response(404, json={"message": f"{name} not found"})
        return httpx.Response(200, json=found)


class World:
    """A driver that serves, and the kubelet's way to call it."""

    def __init__(self, folder: Path, server: Server) -> None:
        self.folder = folder
        self.faults = folder / "faults.json"
        vendor = Simulated(SimulatedSpec(fabric="groups"), node=NODE, faults=self.faults)
        self.inventory = Inventory(vendor, settle=0.0)
        self.taken: dict[str, str] = {}
        client = httpx.AsyncClient(transport=httpx.MockTransport(server), base_url="http://api")
        self.server, self.api = server, Api(client)
        self.driver = self.make()
        self.offering = Offering(
            self.api, NODE, self.driver, [self.inventory], self.who, clock=lambda: 0.0
        )

    def make(self) -> Driver:
        return Driver(
            DRIVER,
            NODE,
            [self.inventory],
            claims=Claims(self.folder / "claims.json"),
            cluster=self.api,
            taken=self.who,
            cdi_folder=self.folder / "cdi",
        )

    async def who(self) -> dict[str, str]:
        return self.taken

    async def call(self, method: str, uid: str) -> Any:
        kind = f"Node{method}Resources"
        request = getattr(api, f"{kind}Request")()
        request.claims.add(namespace="ml", uid=uid, name=f"claim-{uid}")
        response = getattr(api, f"{kind}Response")
        answer = await rpc.call(
            self.folder / "dra.sock", f"/{dra.SERVICE}/{kind}", request, response
        )
        return answer.claims[uid]

    async def prepare(self, uid: str) -> Any:
        return await self.call("Prepare", uid)

    def cdi(self, uid: str) -> dict[str, Object]:
        spec = json.loads((self.folder / f"cdi/drakkar.dev-claim-{uid}.json").read_text())
        assert spec["kind"] == "drakkar.dev/claim"
        return {d["name"]: d["containerEdits"] for d in spec["devices"]}

    async def offered(self) -> set[str]:
        await self.offering.publish()
        (found,) = self.server.slices.values()
        return {device["name"] for device in found["spec"]["devices"]}


@asynccontextmanager
async def world(folder: Path, *claims: Object) -> AsyncIterator[World]:
    (folder / "registry").mkdir()
    made = World(folder, Server(*claims))
    await made.inventory.look()
    await made.driver.start()
    running = asyncio.create_task(made.driver.run(folder, folder / "registry"))
    try:
        registry = folder / f"registry/{DRIVER}-reg.sock"
        async with asyncio.timeout(10):
            while not registry.exists():
                await asyncio.sleep(0.01)
        yield made
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await made.api.close()


async def test_the_kubelet_gets_to_know_the_driver(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        socket = tmp_path / f"registry/{DRIVER}-reg.sock"
        method = f"/{dra.REGISTRATION}/GetInfo"
        info = await rpc.call(socket, method, registration.InfoRequest(), registration.PluginInfo)
        assert (info.type, info.name) == ("DRAPlugin", DRIVER)
        assert info.endpoint == str(tmp_path / "dra.sock")
        assert list(info.supported_versions) == ["v1.DRAPlugin"]
        status = registration.RegistrationStatus(plugin_registered=True)
        method = f"/{dra.REGISTRATION}/NotifyRegistrationStatus"
        await rpc.call(socket, method, status, registration.RegistrationStatusResponse)
        assert made.driver.registered.is_set()


async def test_a_claim_becomes_a_cdi_device_per_request(tmp_path: Path) -> None:
    async with world(tmp_path, claim("u1", ("a", 2), ("a", 3), ("b", 5))) as made:
        answer = await made.prepare("u1")
        assert answer.error == ""
        assert [(list(d.request_names), d.pool_name, d.device_name) for d in answer.devices] == [
            (["a"], NODE, "simulated-2"),
            (["a"], NODE, "simulated-3"),
            (["b"], NODE, "simulated-5"),
        ]
        assert [list(d.cdi_device_ids) for d in answer.devices] == [
            ["drakkar.dev/claim=u1-a"],
            ["drakkar.dev/claim=u1-a"],
            ["drakkar.dev/claim=u1-b"],
        ]
        assert made.cdi("u1")["u1-a"]["env"] == [
            "DRAKKAR_DEVICES=SIM-n1-2,SIM-n1-3",
            "CUDA_VISIBLE_DEVICES=2,3",
        ]
        assert await made.prepare("u1") == answer, "the kubelet asks again after it was restarted"


async def test_what_a_claim_holds_the_device_plugin_does_not_give(tmp_path: Path) -> None:
    async with world(tmp_path, claim("u1", ("a", 2))) as made:
        device = made.inventory.health.devices[2]
        await made.prepare("u1")
        assert made.inventory.problem(device) == (
            "device SIM-n1-2 is held by ResourceClaim ml/claim-u1"
        )
        assert "simulated-2" in await made.offered(), "it stays in the slice: it is given"
        await made.call("Unprepare", "u1")
        assert made.inventory.usable(device)
        assert not list((tmp_path / "cdi").glob("*.json"))


async def test_what_the_device_plugin_gave_no_claim_gets(tmp_path: Path) -> None:
    async with world(tmp_path, claim("u1", ("a", 2))) as made:
        made.taken = {"SIM-n1-2": "pod ml/other"}
        answer = await made.prepare("u1")
        assert answer.error == "ml/claim-u1: device SIM-n1-2 is held by pod ml/other"
        assert "simulated-2" not in await made.offered()
        made.taken = {}
        assert (await made.prepare("u1")).error == ""


async def test_a_broken_device_is_not_prepared_and_not_offered(tmp_path: Path) -> None:
    async with world(tmp_path, claim("u1", ("a", 2))) as made:
        made.faults.write_text('[{"device": "2", "code": "xid-79"}]')
        assert "is unhealthy: xid-79" in (await made.prepare("u1")).error
        assert await made.offered() == {f"simulated-{i}" for i in range(8) if i != 2}


async def test_a_claimed_device_that_breaks_is_tainted(tmp_path: Path) -> None:
    async with world(tmp_path, claim("u1", ("a", 2))) as made:
        await made.prepare("u1")
        made.faults.write_text('[{"device": "2", "code": "xid-79"}]')
        await made.inventory.look()
        await made.offering.publish()
        (found,) = made.server.slices.values()
        tainted = {d["name"]: d["taints"] for d in found["spec"]["devices"] if "taints" in d}
        assert tainted == {
            "simulated-2": [
                {"key": "drakkar.dev/device-fault", "value": "xid-79", "effect": "NoExecute"}
            ]
        }


async def test_prepared_claims_outlive_the_process(tmp_path: Path) -> None:
    async with world(tmp_path, claim("u1", ("a", 2))) as made:
        answer = await made.prepare("u1")
        (tmp_path / "cdi/drakkar.dev-claim-u1.json").unlink()
        await made.inventory.claim({})
        await made.make().start()
        assert made.inventory.claimed == {"SIM-n1-2": "ml/claim-u1"}
        assert made.cdi("u1").keys() == {"u1-a"}
        assert answer.error == ""


async def test_admin_access_looks_at_a_device_beside_its_holder(tmp_path: Path) -> None:
    async with world(tmp_path, claim("u1", ("a", 2), adminAccess=True)) as made:
        made.taken = {"SIM-n1-2": "pod ml/other"}
        assert (await made.prepare("u1")).error == ""
        assert made.inventory.claimed == {}


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (claim("other", ("a", 2)), "not found"),
        ({**claim("u1"), "metadata": {"name": "claim-u1", "uid": "u2"}}, "its UID is u2, not u1"),
        (claim("u1", ("a", 9)), "there is no device simulated-9 on n1"),
    ],
)
async def test_what_cannot_be_prepared_says_why(tmp_path: Path, raw: Object, message: str) -> None:
    async with world(tmp_path, raw) as made:
        assert message in (await made.prepare("u1")).error


async def test_a_slice_is_written_when_it_changes_and_not_else(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        await made.offering.publish()
        await made.offering.publish()
        assert made.server.writes == 1
        (found,) = made.server.slices.values()
        assert found["metadata"]["ownerReferences"][0]["uid"] == "node-uid"
        device = found["spec"]["devices"][5]
        assert device["attributes"]["model"] == {"string": "Simulated"}
        assert device["attributes"]["numaNode"] == {"int": 1}
        assert device["attributes"]["fabricIsland"] == {"int": 1}
        assert device["capacity"] == {"memory": {"value": str(80 << 30)}}
        # As the server writes it.
        found["spec"]["devices"][5]["capacity"] = {"memory": {"value": "80Gi"}}
        made.driver.registered.set()
        await made.offering.publish()
        assert made.server.writes == 1
        made.taken = {"SIM-n1-0": "pod ml/p"}
        await made.offering.publish()
        (found,) = made.server.slices.values()
        assert found["spec"]["pool"]["generation"] == 2
        assert found["metadata"]["name"] == f"{NODE}-{DRIVER}"
        assert SLICES.endswith("/resourceslices")


async def test_an_unknown_method_is_unimplemented(tmp_path: Path) -> None:
    async with world(tmp_path):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await rpc.call(tmp_path / "dra.sock", f"/{dra.SERVICE}/Other", api.Claim(), api.Claim)
        assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("text", ["[]", '{"u": 3}', "{", '{"u": {"namespace": "ml"}}'])
def test_a_damaged_record_of_claims_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "claims.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"claims\.json|Expecting"):
        Claims(file)
