"""NVIDIA GPUs through a recorded NVML."""

import ctypes
import time
from types import SimpleNamespace

import pytest

from drakkar_gpu.devices import nvml as api
from drakkar_gpu.devices.base import Link, LinkKind, Severity, VendorError
from drakkar_gpu.devices.nvidia import Nvidia
from drakkar_gpu.devices.nvidiahealth import Events
from drakkar_gpu.devices.xid import XIDS, Answer, classify
from support.nvml import FakeNvml, Gpu, Wire
from support.systree import pci

NOW = 1_800_000_000.0


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def bus(number: int) -> str:
    return f"00000000:{number:02X}:00.0"


def hgx(count: int = 4, wires: int = 18) -> list[Gpu]:
    """GPUs of a baseboard whose NVLinks all lead to NVSwitches."""
    return [
        Gpu(f"GPU-{at}", bus(at + 1), minor=at, wires=[Wire() for _ in range(wires)])
        for at in range(count)
    ]


def nvidia(nvml: FakeNvml, tmp_path, clock=None, *, watch: bool = False) -> Nvidia:
    return Nvidia(
        lambda: nvml,
        fabric_info=SimpleNamespace,
        sys=tmp_path,
        mig_minors=tmp_path / "mig-minors",
        clock=clock or Clock(),
        watch=watch,
    )


def test_devices(tmp_path):
    pci(tmp_path, "pci0000:00/0000:00:01.0/0000:02:00.0", numa_node="1")
    first, second = nvidia(FakeNvml(hgx(2)), tmp_path).devices()
    assert (first.id, first.index, first.model) == ("GPU-0", 0, "NVIDIA H100 80GB HBM3")
    assert first.memory_bytes == 80 << 30 and first.domain == ""
    assert first.paths[0] == "/dev/nvidia0" and "/dev/nvidiactl" in first.paths
    assert (second.pci_address, second.numa_node) == ("0000:02:00.0", 1)


def test_environment_is_by_uuid(tmp_path):
    vendor = nvidia(FakeNvml(hgx(3)), tmp_path)
    _, second, third = vendor.devices()
    assert vendor.environment([second, third]) == {
        "NVIDIA_VISIBLE_DEVICES": "GPU-1,GPU-2",
        "CUDA_VISIBLE_DEVICES": "GPU-1,GPU-2",
    }


def test_a_clique_of_a_fabric_that_spans_nodes(tmp_path):
    cluster = bytes(range(16))
    gpus = hgx(3)
    gpus[0].clique = (cluster, 7, api.FABRIC_COMPLETED)
    gpus[1].clique = (cluster, 7, 2)
    gpus[2].clique = (bytes(16), 0, api.FABRIC_COMPLETED)
    domains = [d.domain for d in nvidia(FakeNvml(gpus), tmp_path).devices()]
    assert domains == ["00010203-0405-0607-0809-0a0b0c0d0e0f.7", "", ""]


def test_mig_instances_are_devices_of_their_own(tmp_path):
    (tmp_path / "mig-minors").write_text(
        "config 1\nmonitor 2\ngpu0/gi9/access 84\ngpu0/gi9/ci0/access 85\n"
    )
    gpus = hgx(2, wires=0)
    gpus[0].mig = [
        Gpu(f"MIG-{at}", name="NVIDIA H100 80GB HBM3 MIG 1g.10gb", memory=10 << 30, instance=(9, 0))
        for at in range(2)
    ]
    vendor = nvidia(FakeNvml(gpus), tmp_path)
    whole, part, _, other = vendor.devices()
    assert (part.id, part.parent, part.profile) == ("MIG-0", whole.id, "1g.10gb")
    assert part.memory_bytes == 10 << 30
    assert part.paths[-2:] == ("/dev/nvidia-caps/nvidia-cap84", "/dev/nvidia-caps/nvidia-cap85")
    assert other.parent is None
    assert "utilization_ratio" not in {s.name for s in vendor.metrics() if s.device == whole.id}


def test_links_through_switches(tmp_path):
    gpus = hgx(3)
    for wire in gpus[2].wires[:6]:
        wire.active = False
    links = {(x.a, x.b): x for x in nvidia(FakeNvml(gpus), tmp_path).links()}
    # 18 links of 25 GB/s in one direction; the pair has what its weaker side has.
    assert links["GPU-0", "GPU-1"] == Link("GPU-0", "GPU-1", LinkKind.FABRIC, 3600)
    assert links["GPU-1", "GPU-2"].gbps == 2400


def test_links_from_gpu_to_gpu_and_over_pcie(tmp_path):
    gpus = [Gpu(f"GPU-{at}", bus(at + 1)) for at in range(4)]
    gpus[0].wires = [Wire(bus(2), version=2), Wire(bus(2), version=2)]
    gpus[1].wires = [Wire(bus(1), version=2), Wire(bus(1), version=2)]
    levels = {
        frozenset(("GPU-0", "GPU-2")): 20,
        frozenset(("GPU-0", "GPU-3")): 30,
        frozenset(("GPU-1", "GPU-2")): 40,
    }
    found = nvidia(FakeNvml(gpus, levels), tmp_path).links()
    assert found == [
        Link("GPU-0", "GPU-1", LinkKind.FABRIC, 400),
        Link("GPU-0", "GPU-2", LinkKind.SWITCH),
        Link("GPU-0", "GPU-3", LinkKind.BRIDGE),
        Link("GPU-1", "GPU-2", LinkKind.NUMA),
    ]


def test_a_well_machine_has_no_faults(tmp_path):
    assert nvidia(FakeNvml(hgx()), tmp_path).faults() == []


@pytest.mark.parametrize(
    ("change", "code", "severity", "words"),
    [
        ({"rows": (1, 2, 1, 0)}, "row-remap-pending", Severity.UNHEALTHY, "2 rows remapped"),
        ({"rows": (1, 2, 0, 1)}, "row-remap-failure", Severity.FATAL, "failed"),
        ({"ecc": (9, 1)}, "ecc-uncorrectable", Severity.UNHEALTHY, "1 uncorrectable"),
        ({"reasons": 0x40, "temperature": 93}, "thermal", Severity.UNHEALTHY, "at 93 °C"),
        ({"reasons": 0x20}, "thermal-limit", Severity.WARNING, "thermal_software"),
        ({"reasons": 0x80}, "power-brake", Severity.UNHEALTHY, "power_brake"),
        ({"recovery": 1}, "recovery", Severity.FATAL, "asks to reset the GPU"),
        ({"recovery": 9}, "recovery", Severity.FATAL, "action 9"),
        ({"wires": [Wire()] * 17}, "link-down", Severity.UNHEALTHY, "17 of 18 NVLinks work"),
    ],
)
def test_faults(tmp_path, change, code, severity, words):
    gpus = hgx()
    vendor = nvidia(FakeNvml(gpus), tmp_path)
    assert vendor.faults() == []
    for name, value in change.items():
        setattr(gpus[1], name, value)
    (fault,) = vendor.faults()
    assert (fault.device, fault.code, fault.severity) == ("GPU-1", code, severity)
    assert words in fault.message


def test_a_gpu_of_another_model_need_not_have_as_many_links(tmp_path):
    gpus = [*hgx(2), Gpu("GPU-small", bus(9), name="NVIDIA L4")]
    assert nvidia(FakeNvml(gpus), tmp_path).faults() == []


def test_a_lost_gpu_stays_listed_and_does_not_hide_the_others(tmp_path):
    gpus = hgx(3)
    vendor = nvidia(FakeNvml(gpus), tmp_path)
    before = vendor.devices()
    gpus[1].lost = True
    assert vendor.devices() == before
    (fault,) = vendor.faults()
    assert (fault.device, fault.code, fault.severity) == ("GPU-1", "lost", Severity.FATAL)
    assert {s.device for s in vendor.metrics()} == {"GPU-0", "GPU-2"}
    assert [(x.a, x.b) for x in vendor.links()] == [("GPU-0", "GPU-2")]


def test_metrics(tmp_path):
    vendor = nvidia(FakeNvml(hgx(1)), tmp_path)
    found = {(s.name, *s.labels.values()): s.value for s in vendor.metrics()}
    assert found["utilization_ratio",] == 0.87
    assert found["memory_used_bytes",] == 1 << 30
    assert found["power_watts",] == 100 and found["power_limit_watts",] == 700
    assert found["clock_hertz", "sm"] == 1.98e9
    assert found["ecc_errors_total", "uncorrected"] == 0
    assert found["link_errors_total", "replay"] == 52
    assert found["throttled", "thermal_hardware"] == 0


def test_a_gpu_that_tells_little(tmp_path):
    poor = Gpu("GPU-old", bus(1), rows=None, ecc=None, temperature=None, power=None, clocks=None)
    poor.reasons = poor.recovery = None
    vendor = nvidia(FakeNvml([poor]), tmp_path)
    assert vendor.faults() == []
    assert {s.name for s in vendor.metrics()} == {
        "utilization_ratio", "memory_bandwidth_ratio", "memory_total_bytes", "memory_used_bytes",
        "power_limit_watts", "link_errors_total",
    }  # fmt: skip


def test_errors_of_nvml_are_vendor_errors(tmp_path):
    nvml = FakeNvml(hgx(1))
    vendor = nvidia(nvml, tmp_path)
    nvml.gpus[0].bus = "somewhere"
    with pytest.raises(VendorError, match="bus of GPU 0: 'somewhere' is not a PCI address"):
        vendor.devices()


def test_nvml_is_started_anew_when_the_driver_was_reloaded(tmp_path):
    machines = [FakeNvml(hgx(1)), FakeNvml(hgx(2))]
    vendor = Nvidia(lambda: machines[0], fabric_info=SimpleNamespace, sys=tmp_path, watch=False)
    assert len(vendor.devices()) == 1
    machines.pop(0).closed = True
    with pytest.raises(VendorError, match="nvidia: NVML: Error"):
        vendor.devices()
    assert len(vendor.devices()) == 2


def test_without_a_driver_the_error_says_so():
    with pytest.raises(VendorError, match="nvidia: NVML does not start"):
        Nvidia().devices()


def test_the_seam_names_functions_of_the_binding():
    import pynvml

    for name in vars(api.Nvml):
        if name.startswith("nvml"):
            assert callable(getattr(pynvml, name)), name
    fields = dict(pynvml.c_nvmlGpuFabricInfo_v2_t._fields_)
    assert {"clusterUuid", "cliqueId", "state", "status"} <= set(fields)
    assert api.fabric_info().version == pynvml.nvmlGpuFabricInfo_v2
    assert api.FIELD_RECOVERY_ACTION == pynvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION
    assert api.FIELD_LINK_REPLAYS == pynvml.NVML_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL
    assert pynvml.nvmlEventTypeXidCriticalError == api.EVENT_XID
    assert api.ERROR_LOST == pynvml.NVML_ERROR_GPU_IS_LOST
    assert pynvml.NVML_ERROR_NOT_SUPPORTED in api.NOT_SUPPORTED
    assert pynvml.NVML_ERROR_UNINITIALIZED not in api.NOT_SUPPORTED


class TestXids:
    @pytest.fixture
    def clock(self):
        return Clock()

    @pytest.fixture
    def nvml(self):
        return FakeNvml(hgx(2))

    @pytest.fixture
    def events(self, nvml, clock):
        return Events(nvml, ["GPU-0", "GPU-1"], clock)

    def test_are_kept_by_gpu(self, nvml, events):
        assert nvml.registered == ["GPU-0", "GPU-1"]
        for xid in (31, 79, 31):
            nvml.report(nvml.gpus[1], xid)
            assert events.collect(0)
        assert events.collect(0), "a timeout is no failure"
        assert [event.xid for event in events.of("GPU-1")] == [31, 79]
        assert events.of("GPU-0") == []

    def test_a_program_s_error_is_forgotten(self, nvml, events, clock):
        nvml.report(nvml.gpus[0], 31)
        events.collect(0)
        clock.now += 599
        assert events.of("GPU-0", recovery=None)
        clock.now += 2
        assert events.of("GPU-0", recovery=None) == []

    def test_one_that_asks_for_a_reset_stays_until_the_driver_is_content(self, nvml, events, clock):
        nvml.report(nvml.gpus[0], 119)
        events.collect(0)
        clock.now += 10
        assert events.of("GPU-0", recovery=0), "the driver may still be finding out"
        clock.now += 1e6
        assert events.of("GPU-0", recovery=None), "a driver that does not say"
        assert events.of("GPU-0", recovery=1)
        assert events.of("GPU-0", recovery=0) == []

    def test_pointers_to_one_gpu_are_one_gpu(self, nvml, events):
        target = ctypes.c_int(7)
        one, other = ctypes.pointer(target), ctypes.pointer(target)
        nvml.events.put(SimpleNamespace(device=one, eventType=8, eventData=31))
        assert events.collect(0) and one is not other
        assert [event.xid for event in events.of(other)] == [31]

    def test_a_driver_that_goes_away_is_told(self, nvml, events, monkeypatch):
        def gone(*_):
            raise nvml.NVMLError(1)

        monkeypatch.setattr(nvml, "nvmlEventSetWait_v2", gone)
        assert not events.collect(0)

    def test_no_flood_fills_the_memory(self, nvml, events):
        for _ in range(200):
            nvml.report(nvml.gpus[0], 31)
            events.collect(0)
        assert len(events._found["GPU-0"]) == 64

    def test_reach_faults_through_the_thread(self, nvml, tmp_path, clock):
        vendor = nvidia(nvml, tmp_path, clock, watch=True)
        assert vendor.faults() == []
        nvml.report(nvml.gpus[1], 79)
        deadline = time.monotonic() + 60
        while not (found := vendor.faults()) and time.monotonic() < deadline:
            time.sleep(0.01)
        (fault,) = found
        assert (fault.device, fault.code, fault.since) == ("GPU-1", "xid-79", NOW)
        assert fault.severity is Severity.FATAL
        assert fault.message == (
            "Xid 79: GPU has fallen off the bus; NVIDIA's answer: restart the machine"
        )


@pytest.mark.parametrize(
    ("xid", "severity"),
    [
        (13, Severity.WARNING),
        (31, Severity.WARNING),
        (43, Severity.WARNING),
        (45, Severity.WARNING),
        (48, Severity.FATAL),
        (63, Severity.WARNING),
        (64, Severity.FATAL),
        (74, Severity.UNHEALTHY),
        (79, Severity.FATAL),
        (94, Severity.WARNING),
        (95, Severity.FATAL),
        (119, Severity.FATAL),
        (149, Severity.UNHEALTHY),
        (9999, Severity.UNHEALTHY),
    ],
)
def test_severity_of_an_xid(xid, severity):
    assert classify(xid).severity is severity


def test_codes_of_xids_are_bounded_words():
    assert all(0 < number < 200 for number in XIDS)
    assert {kind.answer for kind in XIDS.values()} == set(Answer)
