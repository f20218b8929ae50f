"""Huawei Ascend NPUs, read with npu-smi.

Layouts: Huawei, "npu-smi Command Reference" (Atlas A2 and A3), ``npu-smi info`` and
``npu-smi info -t topo``.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations

from drakkar import catalogue
from drakkar_gpu.devices import sysfs, text
from drakkar_gpu.devices.base import Device, Fault, Link, LinkKind, Severity, VendorError
from drakkar_gpu.devices.reading import Reading, ToolReadings, ratio, samples
from drakkar_gpu.devices.tool import Tool

COMMAND = "npu-smi info"
SHARED = ("/dev/davinci_manager", "/dev/devmm_svm", "/dev/hisi_hdc")
SEVERITY = {
    "warning": Severity.WARNING,
    "alarm": Severity.UNHEALTHY,
    "critical": Severity.FATAL,
    "unknown": Severity.UNHEALTHY,
}
"""By npu-smi's word for the health of a chip; OK is none."""
KINDS = {
    "HCCS": LinkKind.FABRIC,
    "HCCS_SW": LinkKind.FABRIC,
    "SIO": LinkKind.FABRIC,
    "PIX": LinkKind.SWITCH,
    "PXB": LinkKind.SWITCH,
    "PHB": LinkKind.BRIDGE,
    "NODE": LinkKind.NUMA,
}
"""By npu-smi's word for a link; SYS is across the sockets."""


def parse_info(output: str) -> list[Reading]:
    """The chips in the table that ``npu-smi info`` prints: each has a line with its NPU's name and
    health and one with its bus and memory, after which come processes in a table of their own."""
    found: list[Reading] = []
    rows = _rows(output)
    for first in rows:
        name = first[0].split(maxsplit=1)
        if len(name) != 2 or len(first) < 3:
            raise VendorError(f"{COMMAND}: the line of an NPU has no name and health: {first}")
        second = next(rows, None)
        if second is None:
            raise VendorError(f"{COMMAND}: NPU {name[0]} has no line with its chip's memory")
        found.append(_chip(len(found), name[1], first, second))
    if not found:
        raise VendorError(f"{COMMAND}: there is no NPU in the table")
    return found


def _rows(output: str) -> Iterator[list[str]]:
    """Lines of NPUs and chips: those that begin with a number, before the table of processes."""
    seen = False
    for line in output.splitlines():
        if not line.lstrip().startswith("|"):
            continue
        row = text.cells(line)
        if "Process id" in line:
            return
        if "NPU" in row[0].split():
            seen = True
        elif seen and row[0][:1].isdigit():
            yield row


def _chip(index: int, name: str, first: Sequence[str], second: Sequence[str]) -> Reading:
    what = f"{COMMAND}: chip {index}"
    if len(second) < 3:
        raise VendorError(f"{what}: its second line is too short")
    address = "" if text.absent(second[1]) else text.pci(second[1], f"{what}: Bus-Id")
    used, total = _memory(second[2], what)
    numbers = first[2].split()
    values = second[2].split()
    identity = f"npu-{address}" if address else f"npu-{index}"
    device = Device(
        id=identity,
        index=index,
        model=name,
        memory_bytes=total,
        pci_address=address,
        paths=(f"/dev/davinci{index}", *SHARED),
    )
    health = first[1]
    faults: tuple[Fault, ...] = ()
    if health.lower() != "ok":
        severity = SEVERITY.get(health.lower())
        if severity is None:
            raise VendorError(f"{what}: its health {health[:20]!r} is no word of npu-smi")
        faults = (Fault(identity, "health", f"npu-smi: health is {health}", severity),)
    return Reading(
        device,
        faults,
        samples(
            identity,
            {
                "utilization_ratio": ratio(text.number(values[0], f"{what}: AICore(%)")),
                "memory_used_bytes": float(used),
                "memory_total_bytes": float(total),
                "power_watts": text.number(numbers[0], f"{what}: Power(W)") if numbers else None,
                "temperature_celsius": (
                    text.number(numbers[1], f"{what}: Temp(C)") if len(numbers) > 1 else None
                ),
            },
        ),
    )


def _memory(cell: str, what: str) -> tuple[int, int]:
    """Used and total bytes: the last pair "used / total" that isn't empty (HBM, else DDR)."""
    parts = cell.replace("/", " / ").split()
    pairs = [
        (parts[at - 1], parts[at + 1])
        for at, word in enumerate(parts)
        if word == "/" and 0 < at < len(parts) - 1
    ]
    sizes = [
        (text.mebibytes(used, f"{what}: memory"), text.mebibytes(total, f"{what}: memory"))
        for used, total in pairs
    ]
    filled = [size for size in sizes if size[1]]
    if not filled:
        raise VendorError(f"{what}: it says no size of its memory")
    return filled[-1]


def parse_topology(output: str, devices: Sequence[Device]) -> list[Link]:
    """Links from the matrix of ``npu-smi info -t topo``; a word that is not known is SYS."""
    words = text.matrix(output, "NPU")
    found = []
    for a, b in combinations(devices, 2):
        kind = KINDS.get(words.get((a.index, b.index), "SYS").upper())
        if kind is not None:
            gbps = _fabric(a, len(devices)) if kind is LinkKind.FABRIC else None
            found.append(Link(a.id, b.id, kind, gbps))
    return found


def _fabric(device: Device, count: int) -> float | None:
    """HCCS is a full mesh: a device's bandwidth is shared among its peers."""
    chip = catalogue.find(device.model)
    if chip is None or chip.fabric_gbps is None or count < 2:
        return None
    return round(chip.fabric_gbps / (count - 1), 1)


class Ascend(ToolReadings):
    """All NPUs of the node."""

    name = "ascend"
    visible = "ASCEND_VISIBLE_DEVICES"
    tool = Tool(
        "npu-smi", paths=("/usr/local/sbin/npu-smi", "/usr/local/Ascend/driver/tools/npu-smi")
    )

    @property
    def resource(self) -> str:  # type: ignore[override]
        """As Huawei's own plugin names it: by the series of the first NPU."""
        try:
            model = self.devices()[0].model.removeprefix("Ascend")
        except (VendorError, IndexError):
            model = "910"
        return f"huawei.com/Ascend{'310P' if model.startswith('310P') else '910'}"

    def read(self) -> Sequence[Reading]:
        """One call of npu-smi."""
        return parse_info(self._run("info"))

    def links(self) -> Sequence[Link]:
        """As npu-smi says; on single cards, where it knows no topology, those over PCIe."""
        devices = self.devices()
        if len(devices) < 2:
            return []
        try:
            return parse_topology(self._run("info", "-t", "topo"), devices)
        except VendorError:
            return sysfs.pcie_links(self._sys, devices)
