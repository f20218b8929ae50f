"""What Linux says of a PCI device: its NUMA node, and how near it is to another one."""

import re
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from drakkar_gpu.devices.base import Device, Link, LinkKind
from drakkar_gpu.devices.tool import read

_ADDRESS = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")


def numa_node(sys: Path, address: str) -> int | None:
    """NUMA node of a PCI device; None where the machine has one node only, or does not say."""
    text = read(sys / "bus" / "pci" / "devices" / address / "numa_node") if address else None
    try:
        node = int(text) if text is not None else -1
    except ValueError:
        return None
    return node if node >= 0 else None


def drm_files(sys: Path, address: str) -> tuple[str, ...]:
    """Device files of a PCI device that is a GPU to the kernel: /dev/dri/renderD128, .../card1."""
    folder = sys / "bus" / "pci" / "devices" / address / "drm"
    names = [path.name for path in folder.glob("*")] if address else []
    wanted = sorted(name for name in names if name.startswith(("renderD", "card")))
    return tuple(f"/dev/dri/{name}" for name in reversed(wanted))


def _way(sys: Path, address: str) -> list[str]:
    """Host bridge, root port, switch ports, ..., device: the folders that lead to a device."""
    path = sys / "bus" / "pci" / "devices" / address
    try:
        parts = path.resolve(strict=True).parts
    except (OSError, RuntimeError):
        return []
    return [part for part in parts if part.startswith("pci") or _ADDRESS.fullmatch(part)]


def distance(sys: Path, a: Device, b: Device) -> LinkKind:
    """How two devices reach each other over PCIe."""
    if a.pci_address and b.pci_address:
        ways = _way(sys, a.pci_address), _way(sys, b.pci_address)
        shared = 0
        for one, other in zip(*ways, strict=False):
            if one != other:
                break
            shared += 1
        # [0] is the host bridge; below it are a port of the root complex and ports of switches.
        if shared >= 2:
            return LinkKind.SWITCH
        if shared == 1:
            return LinkKind.BRIDGE
    if a.numa_node is not None and a.numa_node == b.numa_node:
        return LinkKind.NUMA
    return LinkKind.SYSTEM


def pcie_links(sys: Path, devices: Sequence[Device]) -> list[Link]:
    """Links over PCIe between whole devices, those that are nearer than the system."""
    whole = [device for device in devices if device.parent is None]
    return [
        Link(a.id, b.id, kind)
        for a, b in combinations(whole, 2)
        if (kind := distance(sys, a, b)) is not LinkKind.SYSTEM
    ]
