"""The metrics of a node's devices: names, labels, whose they are, and that nothing blocks them."""

import asyncio
import json
import threading
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from drakkar.protocol import GANG_ENV
from drakkar_gpu.cluster import Api
from drakkar_gpu.devices.base import Device, Sample, VendorError
from drakkar_gpu.devices.simulated import Simulated, SimulatedSpec
from drakkar_gpu.exporter import METRICS, Exporter, Reading, families
from drakkar_gpu.health import Health
from drakkar_gpu.inventory import Inventory
from drakkar_gpu.jobs import Use, Work, holders, uses, works
from drakkar_gpu.plugin import rpc
from drakkar_gpu.plugin.podresources import Held, Holder
from drakkar_gpu.plugin.proto import podresources_pb2 as api

DRIVER = "gpu.drakkar.dev"
RESOURCE = "drakkar.dev/gpu"


def pod(name: str, job: str, replica: int, processes: int, queue: str = "") -> dict:
    labels = {"drakkar.dev/job": job, "drakkar.dev/replica": str(replica)}
    if queue:
        labels["drakkar.dev/queue"] = queue
    gang = json.dumps({"processesPerReplica": processes})
    return {
        "metadata": {"namespace": "ml", "name": name, "labels": labels},
        "spec": {"containers": [{"name": "trainer", "env": [{"name": GANG_ENV, "value": gang}]}]},
    }


def device(index: int, **more) -> Device:
    return Device(f"GPU-{index}", index, "NVIDIA H100 80GB HBM3", 80 << 30, **more)


def holder(name: str) -> Holder:
    return Holder("ml", name, "trainer")


@pytest.mark.parametrize(
    ("processes", "count", "ranks"),
    [
        (4, 4, ["8", "9", "10", "11"]),
        (2, 4, ["4", "4", "5", "5"]),
        (1, 4, ["2", "2", "2", "2"]),
        (4, 2, ["8", "10"]),
    ],
)
def test_ranks_use_a_pod_s_devices_in_order(processes, count, ranks):
    devices = [device(index) for index in (7, 3, 5, 1)][:count]
    held = {d.id: holder("j-2") for d in devices}
    found = uses(devices, held, {("ml", "j-2"): Work("j", "q", 2, processes)})
    ordered = sorted(devices, key=lambda d: d.index)
    assert [found[d.id].rank for d in ordered] == ranks
    assert {use.replica for use in found.values()} == {"2"}


@given(st.integers(1, 16), st.integers(1, 16), st.integers(0, 100))
def test_no_rank_is_of_another_replica(processes, count, replica):
    devices = [device(index) for index in range(count)]
    held = {d.id: holder("p") for d in devices}
    found = uses(devices, held, {("ml", "p"): Work("j", "", replica, processes)})
    ranks = [int(found[d.id].rank) for d in devices]
    assert ranks == sorted(ranks)
    assert all(replica * processes <= rank < (replica + 1) * processes for rank in ranks)


def test_what_pods_run():
    other = {"metadata": {"namespace": "x", "name": "web", "labels": {"app": "web"}}}
    broken = pod("b-0", "b", 0, 1)
    broken["spec"]["containers"][0]["env"][0]["value"] = "{"
    broken["metadata"]["labels"]["drakkar.dev/replica"] = "first"
    own = {"metadata": {"namespace": "ml", "name": "o-0", "labels": {"drakkar.dev/job": "o"}}}
    assert works([pod("j-1", "j", 1, 8, "gold"), other, broken, own]) == {
        ("ml", "j-1"): Work("j", "gold", 1, 8),
        ("ml", "b-0"): Work("b"),
        ("ml", "o-0"): Work("o"),
    }


def test_holders_through_plugin_claim_partition_and_shares():
    whole, claimed, shared, alone = (device(index) for index in range(4))
    part = Device("MIG-1", 1, "x", 1, parent=claimed.id, profile="1g.10gb")
    held = Held(
        {
            (RESOURCE, whole.id): holder("a"),
            ("nvidia.com/mig-1g.10gb", "MIG-1"): holder("b"),
            (f"{RESOURCE}.shared", f"{shared.id}::0"): holder("c"),
            (f"{RESOURCE}.shared", f"{shared.id}::1"): holder("d"),
            (f"{RESOURCE}.shared", f"{alone.id}::1"): holder("e"),
            ("other.com/nic", "nic0"): holder("f"),
        },
        {(DRIVER, "node", "nvidia-1"): holder("g"), ("x", "node", "nvidia-0"): holder("h")},
    )
    found = holders(held, [whole, claimed, part, shared, alone], vendor="nvidia", driver=DRIVER)
    assert {name: h.pod for name, h in found.items()} == {
        whole.id: "a", "MIG-1": "b", alone.id: "e", claimed.id: "g",
    }  # fmt: skip


def exposed(node: str, *readings: Reading) -> dict[str, list]:
    class Once:
        def collect(self):
            return families(node, readings)

    registry = CollectorRegistry()
    registry.register(Once())
    text = generate_latest(registry).decode()
    return {f.name: f.samples for f in text_string_to_metric_families(text)}


def test_a_device_with_its_job():
    one = device(3, pci_address="0000:0c:00.0", domain="fabric-1")
    reading = Reading(
        "nvidia",
        Health((one,)),
        [
            Sample(one.id, "utilization_ratio", 0.5),
            Sample(one.id, "ecc_errors_total", 2, {"kind": "corrected"}),
            Sample(one.id, "ecc_errors_total", 3, {"kind": "corrected"}),
            Sample(one.id, "unheard_of", 1),
            Sample("GPU-unknown", "power_watts", 1),
        ],
        {one.id: Use("ml", "j-1", "trainer", "j", "gold", "1", "11")},
        up=True,
    )
    found = exposed("node-1", reading)
    (sample,) = found["drakkar_device_utilization_ratio"]
    assert sample.value == 0.5
    assert sample.labels == {
        "node": "node-1", "vendor": "nvidia", "device": "GPU-3", "index": "3",
        "model": "NVIDIA H100 80GB HBM3", "namespace": "ml", "pod": "j-1",
        "container": "trainer", "job": "j", "queue": "gold", "replica": "1", "rank": "11",
    }  # fmt: skip
    (errors,) = found["drakkar_device_ecc_errors"]
    assert (errors.labels["kind"], errors.value) == ("corrected", 2)
    (info,) = found["drakkar_device_info"]
    assert info.labels["pci"] == "0000:0c:00.0" and info.labels["domain"] == "fabric-1"
    assert not any("unheard_of" in name for name in found)
    assert found["drakkar_device_power_watts"] == []
    assert found["drakkar_device_vendor_up"][0].value == 1


def test_labels_have_a_longest_length():
    long = Device("x" * 500, 0, "m" * 500, 1)
    found = exposed("n", Reading("v", Health((long,)), [], {}, up=False))
    (sample,) = found["drakkar_device_healthy"]
    assert len(sample.labels["device"]) == len(sample.labels["model"]) == 128


class Machine:
    """A node: simulated devices, a kubelet's socket and an API server."""

    def __init__(self, folder: Path, vendor: Simulated) -> None:
        self.folder = folder
        self.inventory = Inventory(vendor, settle=0)
        self.answer = api.ListPodResourcesResponse()
        self.pods = [pod("j-1", "j", 1, 2, "gold")]
        self.requests: list[httpx.Request] = []
        self.status = 200

    def give(self, name: str, *devices: str) -> None:
        self.answer.pod_resources.add(
            name=name,
            namespace="ml",
            containers=[
                api.ContainerResources(
                    name="trainer",
                    devices=[
                        api.ContainerDevices(resource_name=RESOURCE, device_ids=list(devices))
                    ],
                )
            ],
        )

    def _list(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return httpx.Response(self.status, json={"items": self.pods})

    def exporter(self, **options) -> Exporter:
        transport = httpx.MockTransport(self._list)
        client = httpx.AsyncClient(base_url="http://api", transport=transport)
        return Exporter(
            "node-1",
            [self.inventory],
            api=Api(client),
            pod_resources=self.folder / "kubelet.sock",
            driver=DRIVER,
            **options,
        )

    async def kubelet(self):
        async def answer(request, context):
            return self.answer

        lister = rpc.service(
            "v1.PodResourcesLister", {"List": rpc.Method(answer, api.ListPodResourcesRequest)}
        )
        return await rpc.serve(self.folder / "kubelet.sock", lister)


def labels_of(exporter: Exporter, device: str) -> dict[str, str]:
    registry = CollectorRegistry()
    registry.register(exporter)
    text = generate_latest(registry).decode()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "drakkar_device_healthy" and sample.labels["device"] == device:
                return sample.labels
    return {}


async def test_from_kubelet_and_api_server_to_labels(tmp_path):
    machine = Machine(tmp_path, Simulated(SimulatedSpec(count=4), node="n"))
    await machine.inventory.look()
    exporter = machine.exporter()
    await exporter.read()
    assert labels_of(exporter, "SIM-n-1")["pod"] == "", "a kubelet that does not answer"

    server = await machine.kubelet()
    machine.give("j-1", "SIM-n-2", "SIM-n-1")
    await exporter.read()
    labels = labels_of(exporter, "SIM-n-2")
    assert (labels["job"], labels["queue"], labels["replica"], labels["rank"]) == (
        "j", "gold", "1", "3",
    )  # fmt: skip
    assert labels_of(exporter, "SIM-n-1")["rank"] == "2"
    assert labels_of(exporter, "SIM-n-0")["job"] == ""
    (request,) = machine.requests
    assert dict(request.url.params) == {
        "fieldSelector": "spec.nodeName=node-1", "labelSelector": "drakkar.dev/job", "limit": "500",
    }  # fmt: skip

    await exporter.read()
    assert len(machine.requests) == 1, "asked again though no pod is new"
    machine.give("web-0", "SIM-n-3")
    machine.status = 503
    await exporter.read()
    assert labels_of(exporter, "SIM-n-3")["pod"] == "web-0"
    assert labels_of(exporter, "SIM-n-2")["job"] == "j", "forgotten as the API server failed"
    machine.status = 200
    await exporter.read()
    await exporter.read()
    assert len(machine.requests) == 3
    await server.stop(0)


class Hanging(Simulated):
    def __init__(self) -> None:
        super().__init__(SimulatedSpec(count=1), node="n")
        self.let = threading.Event()

    def metrics(self):
        self.let.wait(60)
        return super().metrics()


async def test_a_driver_that_hangs_blocks_neither_reading_nor_scrape(tmp_path):
    vendor = Hanging()
    machine = Machine(tmp_path, vendor)
    await machine.inventory.look()
    exporter = machine.exporter(limit=0.1)
    await asyncio.wait_for(exporter.read(), 30)
    assert labels_of(exporter, "SIM-n-0"), "its health is told all the same"
    registry = CollectorRegistry()
    registry.register(exporter)
    assert b'drakkar_device_vendor_up{node="node-1",vendor="simulated"} 0.0' in generate_latest(
        registry
    )
    vendor.let.set()
    async with asyncio.timeout(60):
        while b"vendor_up{" not in (text := generate_latest(registry)) or b"} 0.0" in next(
            line for line in text.splitlines() if line.startswith(b"drakkar_device_vendor_up")
        ):
            await exporter.read()


async def test_a_vendor_that_fails_is_down_and_its_devices_are_told(tmp_path):
    class Failing(Simulated):
        def metrics(self):
            raise VendorError("hl-smi: exit status 1")

    machine = Machine(tmp_path, Failing(SimulatedSpec(count=1), node="n"))
    await machine.inventory.look()
    exporter = machine.exporter()
    await exporter.read()
    assert labels_of(exporter, "SIM-n-0")["vendor"] == "simulated"


async def test_it_is_served_over_http(tmp_path):
    faults = tmp_path / "faults.json"
    faults.write_text('[{"device": "0", "code": "xid-79", "message": "gone"}]')
    vendor = Simulated(SimulatedSpec(count=2), node="n", faults=faults)
    machine = Machine(tmp_path, vendor)
    await machine.inventory.look()
    exporter = machine.exporter(period=0.05)
    serving = asyncio.create_task(exporter.run(0))
    async with asyncio.timeout(60), httpx.AsyncClient(trust_env=False) as client:
        while exporter.port is None:
            await asyncio.sleep(0.01)
        while True:
            response = await client.get(f"http://127.0.0.1:{exporter.port}/metrics")
            if "xid-79" in response.text:
                break
            await asyncio.sleep(0.01)
    found = {f.name: f.samples for f in text_string_to_metric_families(response.text)}
    (fault,) = found["drakkar_device_fault"]
    assert fault.labels["severity"] == "fatal" and fault.labels["device"] == "SIM-n-0"
    assert [s.value for s in found["drakkar_device_healthy"]] == [0, 1]
    assert len(found["drakkar_device_memory_total_bytes"]) == 2
    assert found["drakkar_device_reading_age_seconds"][0].value >= 0
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    async with httpx.AsyncClient(trust_env=False) as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(f"http://127.0.0.1:{exporter.port}/metrics")


def test_help_of_all_metrics_is_a_sentence():
    assert all(text.endswith(".") and labels is not None for text, labels in METRICS.values())


def test_the_guide_names_all_metrics():
    guide = (Path(__file__).parents[3] / "docs/how-to/vendors.md").read_text(encoding="utf-8")
    for name in METRICS:
        assert f"drakkar_device_{name}`" in guide or f"`_{name}`" in guide, name
