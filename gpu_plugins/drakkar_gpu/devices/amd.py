"""AMD GPUs, read from the kernel's KFD topology and the amdgpu driver's files below /sys."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from drakkar_gpu.devices import kfd, sysfs
from drakkar_gpu.devices.base import Device, Link, LinkKind, VendorError
from drakkar_gpu.devices.reading import Reading, Readings
from drakkar_gpu.devices.tool import read

VENDOR_ID = 0x1002
KFD_FILE = "/dev/kfd"
MODELS = {
    0x738C: "AMD Instinct MI100",
    0x7408: "AMD Instinct MI250X",
    0x740C: "AMD Instinct MI250X / MI250",
    0x740F: "AMD Instinct MI210",
    0x74A0: "AMD Instinct MI300A",
    0x74A1: "AMD Instinct MI300X",
    0x74A5: "AMD Instinct MI325X",
    0x75A0: "AMD Instinct MI350X",
    0x75A3: "AMD Instinct MI355X",
}
"""By PCI device id (pci.ids), for boards whose product_name is empty."""


class Amd(Readings):
    """All GPUs of the node that its driver offers for computing."""

    name = "amd"
    resource = "amd.com/gpu"
    visible = "ROCR_VISIBLE_DEVICES"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._gpus: dict[str, kfd.KfdGpu] = {}

    def read(self) -> Sequence[Reading]:
        """One walk through the topology."""
        found = kfd.gpus(self._sys, VENDOR_ID)
        if not found:
            raise VendorError(f"{self._sys / kfd.NODES}: there is no AMD GPU")
        readings = [reading(self._sys, index, gpu, MODELS) for index, gpu in enumerate(found)]
        self._gpus = {r.device.id: gpu for r, gpu in zip(readings, found, strict=True)}
        return readings

    def links(self) -> Sequence[Link]:
        """xGMI with the driver's bandwidth, else PCIe."""
        return kfd_links(self._sys, self.devices(), self._gpus)

    def environment(self, devices: Sequence[Device]) -> Mapping[str, str]:
        """By the chips' serial numbers: indices differ inside of a container."""
        return {self.visible: ",".join(device.id for device in devices)}


def reading(sys: Path, index: int, gpu: kfd.KfdGpu, models: Mapping[int, str]) -> Reading:
    """A GPU of the topology as a device."""
    folder = kfd.drm(sys, gpu)
    what = f"{folder}"
    chip = gpu.properties.get("device_id", 0)
    model = read(folder / "product_name") or models.get(chip, f"GPU {chip:#06x}")
    serial = gpu.unique_id or read(folder / "unique_id") or ""
    identity = f"GPU-{serial}" if serial else f"GPU-{gpu.pci_address}"
    hive = gpu.properties.get("hive_id", 0)
    partition = read(folder / "current_compute_partition")
    memory = gpu.memory_bytes
    if not memory:
        raise VendorError(f"{what}: the driver says no size of the memory of node {gpu.node}")
    return Reading(
        Device(
            id=identity,
            index=index,
            model=model,
            memory_bytes=memory,
            pci_address=gpu.pci_address,
            paths=(KFD_FILE, *sysfs.drm_files(sys, gpu.pci_address)),
            profile="" if partition in (None, "SPX") else str(partition),
            domain=f"{hive:016x}" if hive else "",
        ),
        kfd.memory_faults(identity, folder, what),
        kfd.measured(identity, folder, what),
    )


def kfd_links(sys: Path, devices: Sequence[Device], gpus: Mapping[str, kfd.KfdGpu]) -> list[Link]:
    """Links between GPUs of the topology; how near two are over PCIe says sysfs."""
    found = []
    for a, b in combinations(devices, 2):
        if a.id not in gpus or b.id not in gpus:
            continue
        one, other = gpus[a.id], gpus[b.id]
        ways = [link for link in one.links if link.peer == other.node]
        ways += [link for link in other.links if link.peer == one.node]
        way = kfd.best(ways)
        if way is not None and way.kind is LinkKind.FABRIC:
            found.append(Link(a.id, b.id, LinkKind.FABRIC, way.gbps))
            continue
        kind = sysfs.distance(sys, a, b)
        if kind is not LinkKind.SYSTEM:
            found.append(Link(a.id, b.id, kind, way.gbps if way else None))
    return found
