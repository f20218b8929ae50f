"""Which vendors' devices this node has."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from drakkar_gpu.devices import (
    ascend,
    cambricon,
    enflame,
    gaudi,
    hygon,
    kfd,
    moorethreads,
    neuron,
    tpu,
)
from drakkar_gpu.devices.amd import VENDOR_ID as AMD_ID
from drakkar_gpu.devices.amd import Amd
from drakkar_gpu.devices.base import Vendor, VendorError
from drakkar_gpu.devices.bounded import Bounded
from drakkar_gpu.devices.nvidia import Nvidia
from drakkar_gpu.devices.reading import SYS
from drakkar_gpu.devices.tool import Tool, read

Maker = Callable[[], Vendor]

VENDORS: Mapping[str, Maker] = {
    "nvidia": Nvidia,
    "amd": Amd,
    "ascend": ascend.Ascend,
    "cambricon": cambricon.Cambricon,
    "enflame": enflame.Enflame,
    "moorethreads": moorethreads.MooreThreads,
    "hygon": hygon.Hygon,
    "gaudi": gaudi.Gaudi,
    "tpu": tpu.Tpu,
    "neuron": neuron.Neuron,
}
"""In the order in which they are looked for. A node may have devices of several."""
PCI_IDS = {
    "nvidia": (0x10DE,),
    "amd": (AMD_ID,),
    "ascend": (0x19E5,),
    "cambricon": (0xCABC,),
    "enflame": (0x1E36,),
    "moorethreads": (0x1ED5,),
    "hygon": (hygon.VENDOR_ID,),
    "gaudi": (0x1DA3,),
    "tpu": (0x1AE0,),
    "neuron": (0x1D0F,),
}
"""PCI vendor ids (pci.ids), to tell a device without its driver from no device."""
ACCELERATOR_CLASSES = ("0x03", "0x0b40", "0x12")
"""PCI classes of displays (GPUs among them), co-processors and processing accelerators."""
DEVICE_IDS = {
    "tpu": tuple(tpu.MODELS),
    "neuron": ("0x7164", "0x7264", "0x7364"),
}
"""PCI device ids (pci.ids) of accelerators whose class says nothing, of vendors whose network cards
and disks have the same vendor id."""
TOOLS: Mapping[str, Tool] = {
    "ascend": ascend.Ascend.tool,
    "cambricon": cambricon.Cambricon.tool,
    "enflame": enflame.Enflame.tool,
    "moorethreads": moorethreads.MooreThreads.tool,
    "hygon": hygon.Hygon.tool,
    "gaudi": gaudi.Gaudi.tool,
    "neuron": neuron.Neuron.tool,
}


def hardware(sys: Path = SYS) -> dict[str, list[str]]:
    """PCI addresses of what looks like accelerators, by vendor, in the order of VENDORS."""
    names = {identity: name for name, ids in PCI_IDS.items() for identity in ids}
    found: dict[str, list[str]] = {}
    try:
        paths = sorted((sys / "bus" / "pci" / "devices").iterdir())
    except OSError:
        return {}
    for path in paths:
        try:
            vendor = int(read(path / "vendor") or "0", 16)
        except ValueError:
            continue
        name = names.get(vendor)
        if name is not None and _computes(sys, name, path):
            found.setdefault(name, []).append(path.name)
    return {name: found[name] for name in VENDORS if name in found}


def _computes(sys: Path, vendor: str, path: Path) -> bool:
    if vendor in DEVICE_IDS:
        return (read(path / "device") or "").lower() in DEVICE_IDS[vendor]
    kind = read(path / "class") or ""
    if vendor == "amd" and kind.startswith("0x0300"):
        # Processors have a small GPU for a screen; those for computing have the KFD driver.
        return (sys / kfd.NODES).is_dir()
    return kind.startswith(ACCELERATOR_CLASSES)


def make(names: Sequence[str], *, seconds: float = 30.0) -> list[Vendor]:
    """The vendors of these names, wanted whether their devices are seen or not.

    Raises VendorError for a name that there is not.
    """
    unknown = [name for name in names if name not in VENDORS]
    if unknown:
        raise VendorError(
            f"there is no vendor {unknown[0]!r}; there are {', '.join(VENDORS)} and simulated"
        )
    return [Bounded(VENDORS[name](), seconds=seconds) for name in names]


def present(sys: Path = SYS, *, seconds: float = 30.0) -> list[Vendor]:
    """The vendors of whom this node has devices, by the PCI bus; virtual machines without one
    show theirs to the vendor's tool alone."""
    seen = hardware(sys)
    names = [
        name
        for name in VENDORS
        if name in seen or (name in TOOLS and TOOLS[name].find() is not None)
    ]
    return make(names, seconds=seconds)
