"""What is read below /sys: PCI distances, AMD's KFD topology, TPUs."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drakkar_gpu.devices import kfd, sysfs
from drakkar_gpu.devices.amd import Amd
from drakkar_gpu.devices.base import Device, Link, LinkKind, VendorError
from drakkar_gpu.devices.hygon import Hygon
from drakkar_gpu.devices.tpu import Tpu
from support.systree import pci, write

WAYS = {
    # Two behind one switch, one behind another port of the same root, one at the other socket.
    "0000:03:00.0": ("pci0000:00/0000:00:01.0/0000:01:00.0/0000:02:00.0/0000:03:00.0", "0"),
    "0000:04:00.0": ("pci0000:00/0000:00:01.0/0000:01:00.0/0000:02:01.0/0000:04:00.0", "0"),
    "0000:05:00.0": ("pci0000:00/0000:00:02.0/0000:05:00.0", "0"),
    "0000:45:00.0": ("pci0000:40/0000:40:01.0/0000:45:00.0", "0"),
    "0000:85:00.0": ("pci0000:80/0000:80:01.0/0000:85:00.0", "1"),
}


@pytest.fixture
def sys(tmp_path):
    for way, numa in WAYS.values():
        pci(tmp_path, way, numa_node=numa)
    return tmp_path


def device(sys, address: str) -> Device:
    return Device(address, 0, "x", 1, sysfs.numa_node(sys, address), address)


@pytest.mark.parametrize(
    ("a", "b", "kind"),
    [
        ("0000:03:00.0", "0000:04:00.0", LinkKind.SWITCH),
        ("0000:03:00.0", "0000:05:00.0", LinkKind.BRIDGE),
        ("0000:03:00.0", "0000:45:00.0", LinkKind.NUMA),
        ("0000:03:00.0", "0000:85:00.0", LinkKind.SYSTEM),
        ("0000:03:00.0", "0000:99:00.0", LinkKind.SYSTEM),
    ],
)
def test_distance_over_pcie(sys, a, b, kind):
    one, other = device(sys, a), device(sys, b)
    assert sysfs.distance(sys, one, other) == sysfs.distance(sys, other, one) == kind


def test_links_leave_out_what_is_far_and_partitions(sys):
    a, b, far = (device(sys, x) for x in ("0000:03:00.0", "0000:04:00.0", "0000:85:00.0"))
    part = Device("part", 0, "x", 1, parent=a.id)
    assert sysfs.pcie_links(sys, [a, b, far, part]) == [Link(a.id, b.id, LinkKind.SWITCH)]


def test_numa_node_is_unknown_where_the_kernel_says_minus_one_or_nothing(tmp_path):
    pci(tmp_path, "pci0000:00/0000:00:01.0", numa_node="-1")
    pci(tmp_path, "pci0000:00/0000:00:02.0", numa_node="what")
    for address in ("0000:00:01.0", "0000:00:02.0", "0000:00:03.0", ""):
        assert sysfs.numa_node(tmp_path, address) is None


def node(root, number: int, peers=(), **properties: int) -> None:
    folder = f"class/kfd/kfd/topology/nodes/{number}"
    text = "".join(f"{name} {value}\n" for name, value in properties.items())
    files = {f"{folder}/properties": text, f"{folder}/gpu_id": f"{number * 1000}\n"}
    if properties.get("simd_count"):
        files[f"{folder}/mem_banks/0/properties"] = (
            f"heap_type 1\nsize_in_bytes {192 << 30}\nflags 0\n"
        )
    for at, (peer, kind, bandwidth) in enumerate(peers):
        files[f"{folder}/io_links/{at}/properties"] = (
            f"type {kind}\nversion_major 0\nnode_from {number}\nnode_to {peer}\nweight 15\n"
            f"min_bandwidth {bandwidth}\nmax_bandwidth {bandwidth}\n"
        )
    write(root, files)


@pytest.fixture
def amd(tmp_path):
    """A CPU and two MI300X with xGMI, as the kernel of ROCm 6 shows them."""
    node(tmp_path, 0, cpu_cores_count=96, simd_count=0, vendor_id=0)
    for number, bus in ((1, 0x0C), (2, 0x22)):
        peer = 3 - number
        node(
            tmp_path,
            number,
            [(0, kfd.LINK_PCIE, 64_000), (peer, kfd.LINK_XGMI, 64_000)],
            simd_count=1216,
            vendor_id=4098,
            device_id=0x74A1,
            location_id=bus << 8,
            domain=0,
            drm_render_minor=127 + number,
            unique_id=0x1A2B3C0 + number,
            hive_id=0xFEED,
        )
        folder = pci(tmp_path, f"pci0000:00/0000:00:0{number}.0/0000:{bus:02x}:00.0", numa_node="0")
        drm = tmp_path / f"class/drm/renderD{127 + number}"
        drm.mkdir(parents=True)
        (drm / "device").symlink_to(folder)
        write(
            folder,
            {
                "gpu_busy_percent": "42\n",
                "mem_info_vram_used": f"{3 << 30}\n",
                "mem_info_vram_total": f"{192 << 30}\n",
                "hwmon/hwmon3/power1_average": "120000000\n",
                "hwmon/hwmon3/power1_cap": "750000000\n",
                "hwmon/hwmon3/temp1_input": "40000\n",
                "hwmon/hwmon3/temp2_input": "45000\n",
                "hwmon/hwmon3/freq1_input": "2100000000\n",
                "ras/umc_err_count": f"ue: {number - 1}\nce: 4\n",
                "current_compute_partition": "SPX\n",
                f"drm/card{number}/dev": "226:1\n",
                f"drm/renderD{127 + number}/dev": "226:128\n",
            },
        )
    return tmp_path


def test_amd(amd):
    vendor = Amd(sys=amd)
    first, second = vendor.devices()
    assert (first.id, first.index, first.model) == (
        "GPU-0000000001a2b3c1",
        0,
        "AMD Instinct MI300X",
    )
    assert first.memory_bytes == 192 << 30 and first.pci_address == "0000:0c:00.0"
    assert first.paths == ("/dev/kfd", "/dev/dri/renderD128", "/dev/dri/card1")
    assert first.domain == second.domain == "000000000000feed" and first.numa_node == 0
    assert vendor.links() == [Link(first.id, second.id, LinkKind.FABRIC, 512)]
    (fault,) = vendor.faults()
    assert fault.device == second.id and fault.code == "ecc-uncorrectable"
    values = {s.name: s.value for s in vendor.metrics() if s.device == first.id if not s.labels}
    assert values == {
        "utilization_ratio": 0.42,
        "memory_used_bytes": 3 << 30,
        "memory_total_bytes": 192 << 30,
        "power_watts": 120,
        "power_limit_watts": 750,
        "temperature_celsius": 45,
    }
    assert vendor.environment([second]) == {"ROCR_VISIBLE_DEVICES": second.id}


def test_amd_without_its_driver_says_what_is_missing(tmp_path):
    with pytest.raises(VendorError, match=r"topology/nodes: No such file or directory"):
        Amd(sys=tmp_path).devices()


def test_amd_where_there_are_cpus_only(tmp_path):
    node(tmp_path, 0, cpu_cores_count=8, simd_count=0)
    with pytest.raises(VendorError, match="there is no AMD GPU"):
        Amd(sys=tmp_path).devices()


def test_hygon_links_come_from_the_topology(tmp_path):
    for number, bus in ((0, 0x33), (1, 0x36)):
        node(
            tmp_path,
            number,
            [(1 - number, kfd.LINK_XGMI, 50_000)],
            simd_count=480,
            vendor_id=0x1D94,
            location_id=bus << 8,
        )
    output = (
        '{"card0": {"PCI Bus": "0000:33:00.0", "vram Total Memory (MiB)": "65520"},'
        ' "card1": {"PCI Bus": "0000:36:00.0", "vram Total Memory (MiB)": "65520"}}'
    )
    folder = pci(tmp_path, "pci0000:00/0000:00:01.0/0000:33:00.0")
    write(folder, {"drm/card2/dev": "", "drm/renderD129/dev": ""})
    vendor = Hygon(lambda *_: output, sys=tmp_path)
    files = ("/dev/kfd", "/dev/mkfd", "/dev/dri/renderD129", "/dev/dri/card2")
    assert vendor.devices()[0].paths == files
    assert vendor.links() == [Link("DCU-0000:33:00.0", "DCU-0000:36:00.0", LinkKind.FABRIC, 400)]


@given(st.text(max_size=60), st.sampled_from(["properties", "mem_banks/0/properties"]))
@settings(max_examples=60, deadline=None)
def test_a_topology_that_is_damaged_is_an_error(tmp_path_factory, text, name):
    root = tmp_path_factory.mktemp("sys")
    node(root, 1, simd_count=1, vendor_id=4098)
    path = root / f"class/kfd/kfd/topology/nodes/1/{name}"
    path.write_text(path.read_text() + text)
    try:
        found = Amd(sys=root).devices()
    except VendorError as error:
        assert str(error)
    else:
        assert len(found) == 1


@pytest.mark.parametrize(
    ("code", "model", "gbps"),
    [("0x005e", "TPU v4", 400), ("0x0063", "TPU v5e", 400), ("0x0076", "TPU7x", 800)],
)
def test_tpu(tmp_path, code, model, gbps):
    for bus in (4, 5):
        folder = pci(
            tmp_path, f"pci0000:00/0000:00:0{bus}.0", vendor="0x1ae0", device=code, numa_node="0"
        )
        if model == "TPU v4":
            (folder / "accel" / f"accel{bus - 4}").mkdir(parents=True)
        else:
            group = tmp_path / "kernel" / "iommu_groups" / str(bus + 7)
            group.mkdir(parents=True)
            (folder / "iommu_group").symlink_to(group)
    pci(tmp_path, "pci0000:00/0000:00:06.0", vendor="0x1ae0", device="0x0042")
    vendor = Tpu({"TPU_NAME": "slice-1"}, sys=tmp_path)
    first, second = vendor.devices()
    assert first.model == model and first.domain == "slice-1"
    expected = ("/dev/accel0",) if model == "TPU v4" else ("/dev/vfio/11", "/dev/vfio/vfio")
    assert first.paths == expected
    assert vendor.links() == [Link(first.id, second.id, LinkKind.FABRIC, gbps)]
    assert vendor.environment([second]) == {"TPU_VISIBLE_CHIPS": "1"}


def test_no_tpu(tmp_path):
    with pytest.raises(VendorError, match="No such file"):
        Tpu({}, sys=tmp_path).devices()
    pci(tmp_path, "pci0000:00/0000:00:06.0", vendor="0x1af4", device="0x1000")
    with pytest.raises(VendorError, match="there is no TPU"):
        Tpu({}, sys=tmp_path).devices()
