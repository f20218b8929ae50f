"""GPUs of the amdgpu driver and its relatives, by what the kernel tells below /sys.

Layout: Linux, drivers/gpu/drm/amd/amdkfd/kfd_topology.c (``/sys/class/kfd/kfd/topology/nodes``)
and "AMDGPU driver: sysfs interfaces" of the kernel's documentation. No tool and no library is
needed, and nothing here can hang in user space.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from drakkar_gpu.devices import text
from drakkar_gpu.devices.base import Fault, LinkKind, Sample, Severity, VendorError
from drakkar_gpu.devices.reading import ecc, ratio, samples
from drakkar_gpu.devices.tool import read

NODES = Path("class/kfd/kfd/topology/nodes")
LINK_PCIE, LINK_XGMI = 2, 11
"""CRAT link types of kfd_crat.h."""


@dataclass(frozen=True, slots=True)
class KfdLink:
    """A way from one node to another."""

    peer: int
    """Number of the node that it leads to."""
    kind: LinkKind
    gbps: float | None


@dataclass(frozen=True, slots=True)
class KfdGpu:
    """A node of the KFD topology that is a GPU."""

    node: int
    properties: Mapping[str, int]
    memory_bytes: int
    pci_address: str
    links: tuple[KfdLink, ...]

    @property
    def render(self) -> str:
        """Name of its DRM render node, such as renderD128."""
        return f"renderD{self.properties.get('drm_render_minor', 0)}"

    @property
    def unique_id(self) -> str:
        """The chip's serial number in hex, empty where it has none."""
        value = self.properties.get("unique_id", 0)
        return f"{value:016x}" if value else ""


def gpus(sys: Path, vendor_id: int) -> list[KfdGpu]:
    """GPUs of a PCI vendor, in the order of their nodes, which is that of the runtime.

    Raises VendorError if the driver's topology can't be understood.
    """
    folder = sys / NODES
    try:
        nodes = sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal())
    except OSError as error:
        raise VendorError(f"{folder}: {error.strerror or error}") from error
    found = []
    for node in nodes:
        values = _properties(folder / str(node))
        # A CPU is a node without SIMD units; a GPU that a container may not use has an empty file.
        if values.get("simd_count", 0) > 0 and values.get("vendor_id") == vendor_id:
            found.append(_gpu(folder / str(node), node, values))
    return found


def _properties(folder: Path) -> dict[str, int]:
    path = folder / "properties"
    found: dict[str, int] = {}
    for line in (read(path) or "").splitlines():
        name, _, value = line.partition(" ")
        if not value.strip().isascii() or not value.strip().isdecimal() or len(value) > 24:
            raise VendorError(f"{path}: {line[:60]!r} is no name with a number")
        found[name] = int(value)
    return found


def _gpu(folder: Path, node: int, values: Mapping[str, int]) -> KfdGpu:
    place = values.get("location_id", 0)
    address = "{:04x}:{:02x}:{:02x}.{:x}".format(
        values.get("domain", 0), place >> 8 & 0xFF, place >> 3 & 0x1F, place & 0x7
    )
    banks = _below(folder / "mem_banks")
    # Heap type 1 and 2: memory of the device, visible to the CPU or not.
    memory = sum(b.get("size_in_bytes", 0) for b in banks if b.get("heap_type") in (1, 2))
    links = [
        link
        for kind in ("io_links", "p2p_links")
        for entry in _below(folder / kind)
        if (link := _link(entry)) is not None
    ]
    return KfdGpu(node, values, memory, address, tuple(links))


def _below(folder: Path) -> list[dict[str, int]]:
    try:
        names = sorted(path.name for path in folder.iterdir() if path.name.isdecimal())
    except OSError:
        return []
    return [_properties(folder / name) for name in names]


def _link(values: Mapping[str, int]) -> KfdLink | None:
    if "node_to" not in values:
        return None
    most = values.get("max_bandwidth", 0)
    # Megabytes per second in one direction.
    gbps = most * 8 / 1000 if most else None
    if values.get("type") == LINK_XGMI:
        return KfdLink(values["node_to"], LinkKind.FABRIC, gbps)
    if values.get("type") == LINK_PCIE:
        return KfdLink(values["node_to"], LinkKind.BRIDGE, gbps)
    return None


def drm(sys: Path, gpu: KfdGpu) -> Path:
    """The folder of the GPU's PCI device, by its render node."""
    return sys / "class" / "drm" / gpu.render / "device"


def measured(device: str, folder: Path, what: str) -> tuple[Sample, ...]:
    """Values of the driver's files of a GPU."""

    def number(path: Path) -> float | None:
        said = read(path)
        return None if said is None else text.number(said, f"{what}: {path.name}")

    monitor = next(iter(sorted(folder.glob("hwmon/hwmon*"))), folder / "hwmon")
    power = number(monitor / "power1_average")
    if power is None:
        power = number(monitor / "power1_input")
    limit = number(monitor / "power1_cap")
    heat = number(monitor / "temp2_input")
    if heat is None:
        heat = number(monitor / "temp1_input")
    corrected, uncorrected = errors(folder, what)
    found = samples(
        device,
        {
            "utilization_ratio": ratio(number(folder / "gpu_busy_percent")),
            "memory_bandwidth_ratio": ratio(number(folder / "mem_busy_percent")),
            "memory_used_bytes": number(folder / "mem_info_vram_used"),
            "memory_total_bytes": number(folder / "mem_info_vram_total"),
            "power_watts": None if power is None else power / 1e6,
            "power_limit_watts": None if limit is None else limit / 1e6,
            "temperature_celsius": None if heat is None else heat / 1000,
        },
    )
    clock = number(monitor / "freq1_input")
    if clock is not None:
        found += (Sample(device, "clock_hertz", clock, {"clock": "sm"}),)
    return found + ecc(device, corrected=corrected, uncorrected=uncorrected)


def errors(folder: Path, what: str) -> tuple[float | None, float | None]:
    """Corrected and uncorrected errors of the memory, from "ue: 0" and "ce: 0"."""
    said = read(folder / "ras" / "umc_err_count")
    if said is None:
        return None, None
    counts = dict(line.partition(":")[::2] for line in said.splitlines())
    return (
        text.number(counts.get("ce", ""), f"{what}: umc_err_count"),
        text.number(counts.get("ue", ""), f"{what}: umc_err_count"),
    )


def memory_faults(device: str, folder: Path, what: str) -> tuple[Fault, ...]:
    """Uncorrectable errors of the memory since the driver was loaded."""
    _, uncorrected = errors(folder, what)
    if not uncorrected:
        return ()
    message = f"umc_err_count: {uncorrected:.0f} uncorrectable errors since the driver was loaded"
    return (Fault(device, "ecc-uncorrectable", message, Severity.UNHEALTHY),)


def best(links: Sequence[KfdLink]) -> KfdLink | None:
    """The nearest of several ways, of these the widest."""
    order = list(LinkKind)
    return min(links, key=lambda link: (order.index(link.kind), -(link.gbps or 0)), default=None)
