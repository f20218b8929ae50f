"""Each vendor's parser against the layout that its tool prints."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from drakkar_gpu.devices import (
    ascend,
    cambricon,
    enflame,
    gaudi,
    hygon,
    moorethreads,
    neuron,
)
from drakkar_gpu.devices.base import Link, LinkKind, Severity, VendorError
from drakkar_gpu.devices.nvidia import Nvidia
from drakkar_gpu.exporter import METRICS
from support.nvml import FakeNvml, Gpu

SAMPLES = Path(__file__).parent / "samples"
GIB = 1 << 30
MIB = 1 << 20


def sample(name: str) -> str:
    return (SAMPLES / name).read_text(encoding="utf-8")


def values(vendor, device: str) -> dict[str, float]:
    return {s.name: s.value for s in vendor.metrics() if s.device == device and not s.labels}


class Told:
    """Answers a tool's calls by the first argument that an answer is kept under."""

    def __init__(self, **answers: str) -> None:
        self.answers = answers
        self.calls: list[tuple[str, ...]] = []

    def __call__(self, *arguments: str) -> str:
        self.calls.append(arguments)
        key = arguments[-1].lstrip("-") if arguments else "overview"
        answer = self.answers.get(key) or self.answers.get("any")
        if answer is None:
            raise VendorError(f"no answer to {arguments}")
        return answer


def test_ascend(tmp_path):
    run = Told(info=sample("npu-smi-910b2.txt"), topo=sample("npu-smi-topo.txt"))
    vendor = ascend.Ascend(run, sys=tmp_path)
    first, second, third, fourth = vendor.devices()
    assert (first.id, first.index, first.model) == ("npu-0000:c1:00.0", 0, "910B2")
    assert first.memory_bytes == 64 * GIB and second.pci_address == "0000:01:00.0"
    assert first.paths[0] == "/dev/davinci0" and "/dev/davinci_manager" in first.paths
    assert [(f.device, f.severity) for f in vendor.faults()] == [
        (second.id, Severity.UNHEALTHY),
        (fourth.id, Severity.WARNING),
    ]
    assert vendor.faults()[0].message == "npu-smi: health is Alarm"
    assert values(vendor, first.id) == {
        "utilization_ratio": 0.75,
        "memory_used_bytes": 60185 * MIB,
        "memory_total_bytes": 64 * GIB,
        "power_watts": 93.2,
        "temperature_celsius": 47.0,
    }
    assert "power_watts" not in values(vendor, fourth.id)
    assert vendor.resource == "huawei.com/Ascend910"
    assert vendor.environment([first, third]) == {"ASCEND_VISIBLE_DEVICES": "0,2"}
    # 1568 Gbit/s of a 910B2 among its three peers.
    fabric = Link(first.id, second.id, LinkKind.FABRIC, 522.7)
    links = {(link.a, link.b): link for link in vendor.links()}
    assert links[first.id, second.id] == fabric
    assert links[first.id, fourth.id] == Link(first.id, fourth.id, LinkKind.BRIDGE)
    assert (third.id, fourth.id) not in links


def test_one_look_asks_the_tool_once(tmp_path):
    run = Told(info=sample("npu-smi-310b.txt"))
    vendor = ascend.Ascend(run, sys=tmp_path, clock=lambda: 5.0)
    vendor.devices(), vendor.faults(), vendor.links(), vendor.metrics()
    assert run.calls == [("info",)]


def test_ascend_without_bus_and_hbm(tmp_path):
    vendor = ascend.Ascend(Told(info=sample("npu-smi-310b.txt")), sys=tmp_path)
    (device,) = vendor.devices()
    assert device.id == "npu-0" and device.pci_address == ""
    assert device.memory_bytes == 10810 * MIB
    assert vendor.links() == []


def test_cambricon(tmp_path):
    vendor = cambricon.Cambricon(Told(info=sample("cnmon-info.txt")), sys=tmp_path)
    first, second = vendor.devices()
    assert first.id == "MLU-77013006-2457-0000-0000-000000000000"
    assert first.pci_address == "0000:01:00.0" and first.model == "MLU370-X8"
    assert second.id == "MLU-1" and second.pci_address == ""
    assert values(vendor, first.id)["temperature_celsius"] == 78
    assert values(vendor, first.id)["power_limit_watts"] == 150
    assert "utilization_ratio" not in values(vendor, second.id)
    (fault,) = vendor.faults()
    assert fault.device == second.id and fault.message == "cnmon: device is Warning"


def test_enflame(tmp_path):
    vendor = enflame.Enflame(Told(q=sample("efsmi-q.txt")), sys=tmp_path)
    first, second = vendor.devices()
    assert first.id == "GCU-TR6Y46010302" and first.pci_address == "0000:17:00.0"
    assert values(vendor, first.id) == {
        "utilization_ratio": 0.125,
        "memory_used_bytes": 0,
        "memory_total_bytes": 42976 * MIB,
        "power_watts": 96,
        "power_limit_watts": 300,
        "temperature_celsius": 35,
    }
    assert {fault.device for fault in vendor.faults()} == {second.id}
    assert [(f.code, f.severity) for f in vendor.faults()] == [
        ("health", Severity.UNHEALTHY),
        ("rma", Severity.FATAL),
        ("ecc-uncorrectable", Severity.UNHEALTHY),
        ("power-cable", Severity.UNHEALTHY),
    ]


def test_enflame_with_an_older_driver(tmp_path):
    vendor = enflame.Enflame(Told(q=sample("efsmi-q-old.txt")), sys=tmp_path)
    (device,) = vendor.devices()
    assert device.id == "GCU-A0A1650510676" and device.memory_bytes == 42976 * MIB
    assert values(vendor, device.id)["memory_used_bytes"] == 1129 * MIB


def test_moore_threads(tmp_path):
    vendor = moorethreads.MooreThreads(Told(overview=sample("mthreads-gmi.txt")), sys=tmp_path)
    first, second = vendor.devices()
    assert (first.id, first.model) == ("MTT-0000:03:00.0", "MTT S4000")
    assert second.memory_bytes == 48 * GIB
    assert values(vendor, second.id) == {
        "utilization_ratio": 0.75,
        "memory_used_bytes": 8 * GIB,
        "memory_total_bytes": 48 * GIB,
        "temperature_celsius": 50,
    }


def test_hygon(tmp_path):
    vendor = hygon.Hygon(Told(any=sample("hy-smi.json")), sys=tmp_path)
    first, second = vendor.devices()
    assert (first.id, first.model) == ("DCU-7100fa8866904061", "K100_AI")
    assert first.memory_bytes == 65520 * MIB and second.memory_bytes == 68702699520
    assert values(vendor, first.id)["temperature_celsius"] == 39
    assert values(vendor, second.id)["memory_used_bytes"] == 2 * MIB


def test_gaudi(tmp_path):
    run = Told(any=sample("hl-smi.csv"))
    vendor = gaudi.Gaudi(run, sys=tmp_path)
    first, second = vendor.devices()
    assert run.calls == [("-Q", ",".join(gaudi.FIELDS), "-f", "csv,noheader")]
    assert first.model == "HL-325L" and first.memory_bytes == 128 * GIB
    assert first.paths == ("/dev/accel/accel0", "/dev/accel/accel_controlD0")
    (fault,) = vendor.faults()
    assert fault.device == second.id and fault.code == "ecc-uncorrectable"
    errors = {
        s.labels["kind"]: s.value for s in vendor.metrics() if s.device == second.id if s.labels
    }
    assert errors == {"corrected": 2, "uncorrected": 1}
    # 21 ports of 200 Gbit/s among seven peers.
    assert vendor.links() == [Link(first.id, second.id, LinkKind.FABRIC, 600)]


def test_neuron(tmp_path):
    counters = tmp_path / "devices/virtual/neuron_device/neuron2/stats/hardware"
    counters.mkdir(parents=True)
    (counters / "mem_ecc_uncorrected").write_text("2\n")
    vendor = neuron.Neuron(Told(any=sample("neuron-ls.json")), sys=tmp_path)
    first, second, third = vendor.devices()
    assert first.model == "Trainium2" and first.memory_bytes == 96 * GIB
    assert [d.numa_node for d in (first, second, third)] == [1, None, 0]
    assert [(link.a, link.b) for link in vendor.links()] == [
        (first.id, second.id),
        (first.id, third.id),
    ]
    (fault,) = vendor.faults()
    assert fault.device == third.id and "2 uncorrectable" in fault.message


@pytest.mark.parametrize(
    ("parse", "output", "complaint"),
    [
        (ascend.parse_info, "", "there is no NPU in the table"),
        (ascend.parse_info, "| NPU Name |\n| 0 910B |", "has no name and health"),
        (
            ascend.parse_info,
            sample("npu-smi-910b2.txt").replace("Alarm", "Tired"),
            "'Tired' is no word of npu-smi",
        ),
        (
            ascend.parse_info,
            sample("npu-smi-310b.txt").replace("1003 / 10810", "0 / 0"),
            "no size of its memory",
        ),
        (cambricon.parse_info, "No MLU found", "there is no card"),
        (cambricon.parse_info, "Card 0\n    Driver : v5", "card 0: it says no product name"),
        (
            cambricon.parse_info,
            sample("cnmon-info.txt").replace("23308 MiB", "plenty", 1),
            "card 0: memory: 'plenty' is not a number",
        ),
        (enflame.parse_query, "no device", "there is no device"),
        (
            enflame.parse_query,
            sample("efsmi-q.txt").replace(": 17", ": xx"),
            "device 0: PCIe Info: '0000:xx:00.0' is not a PCI address",
        ),
        (moorethreads.parse_overview, "No GPU", "there is no GPU"),
        (
            moorethreads.parse_overview,
            "0    MTT S4000 |00000000:03:00.0 |0% 4MiB(49152MiB)\n",
            "has one line instead of two",
        ),
        (hygon.parse, "ERROR: no device", "hy-smi is not JSON"),
        (hygon.parse, "[1]", "no JSON object"),
        (hygon.parse, '{"card0": {}}', "card0: it says no size of its memory"),
        (gaudi.parse_query, "", "it lists no device"),
        (gaudi.parse_query, "0, uuid, HL-325L", "3 values instead of 11"),
        (neuron.parse_list, "[]", "it lists no device"),
        (neuron.parse_list, '[{"neuron_device": -1}]', "is not a whole number"),
        (
            neuron.parse_list,
            '[{"neuron_device": 0, "memory_size": 1e300}]',
            "memory_size: '1e+300'",
        ),
        (neuron.parse_list, '[{"neuron_device": 0, "memory_size": 1e16}]', "is no size"),
    ],
)
def test_what_is_not_understood_is_named(parse, output, complaint):
    with pytest.raises(VendorError) as error:
        parse(output)
    assert complaint in str(error.value)


def test_two_devices_of_one_name_are_an_error(tmp_path):
    twice = sample("hl-smi.csv").replace("01P4-HL3090A0-18-U4V298-03-04-04", "same")
    twice = twice.replace("01P4-HL3090A0-18-U4V193-22-07-00", "same")
    with pytest.raises(VendorError, match="several devices are called same"):
        gaudi.Gaudi(Told(any=twice), sys=tmp_path).devices()


def test_every_sample_has_a_metric(tmp_path):
    vendors = [
        ascend.Ascend(Told(info=sample("npu-smi-910b2.txt")), sys=tmp_path),
        cambricon.Cambricon(Told(info=sample("cnmon-info.txt")), sys=tmp_path),
        enflame.Enflame(Told(q=sample("efsmi-q.txt")), sys=tmp_path),
        moorethreads.MooreThreads(Told(overview=sample("mthreads-gmi.txt")), sys=tmp_path),
        hygon.Hygon(Told(any=sample("hy-smi.json")), sys=tmp_path),
        gaudi.Gaudi(Told(any=sample("hl-smi.csv")), sys=tmp_path),
        neuron.Neuron(Told(any=sample("neuron-ls.json")), sys=tmp_path),
        Nvidia(lambda: FakeNvml([Gpu("GPU-0")]), fabric_info=SimpleNamespace, watch=False),
    ]
    for vendor in vendors:
        found = {(s.name, tuple(s.labels)) for s in vendor.metrics()}
        assert found and found <= {(name, labels) for name, (_, labels) in METRICS.items()}
