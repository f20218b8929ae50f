"""Google TPUs, found by their PCI devices below /sys.

A TPU VM gives its chips as /dev/accel0, ... (up to v4) or through VFIO (v5e and newer); PCI ids as
in Google's tpu-info. How busy a chip is its runtime alone knows, and tells the process that uses it.
"""

import os
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from drakkar import catalogue
from drakkar_gpu.devices import text
from drakkar_gpu.devices.base import Device, Link, LinkKind, VendorError
from drakkar_gpu.devices.reading import Reading, Readings, samples
from drakkar_gpu.devices.tool import read

VENDOR_ID = "0x1ae0"
MODELS = {
    "0x005e": "TPU v4",
    "0x0062": "TPU v5p",
    "0x0063": "TPU v5e",
    "0x006f": "TPU v6e",
    "0x0076": "TPU7x",
}
"""By PCI device id."""
LINKS = {"TPU v4": 6, "TPU v5p": 6, "TPU7x": 6, "TPU v5e": 4, "TPU v6e": 4}
"""ICI links of a chip: of a 3D torus, or a 2D one."""


class Tpu(Readings):
    """All TPU chips of the node."""

    name = "tpu"
    resource = "google.com/tpu"
    visible = "TPU_VISIBLE_CHIPS"

    def __init__(self, environment: Mapping[str, str] | None = None, **options: Any) -> None:
        """``environment``: where the slice's name is (TPU_NAME, as Google sets it on a TPU VM)."""
        super().__init__(**options)
        self._slice = (os.environ if environment is None else environment).get("TPU_NAME", "")

    def read(self) -> Sequence[Reading]:
        """One walk through the PCI devices."""
        folder = self._sys / "bus" / "pci" / "devices"
        try:
            paths = sorted(folder.iterdir())
        except OSError as error:
            raise VendorError(f"{folder}: {error.strerror or error}") from error
        chips = [
            (path, model)
            for path in paths
            if read(path / "vendor") == VENDOR_ID
            and (model := MODELS.get((read(path / "device") or "").lower())) is not None
        ]
        if not chips:
            raise VendorError(f"{folder}: there is no TPU")
        return [self._reading(index, path, model) for index, (path, model) in enumerate(chips)]

    def _reading(self, index: int, path: Path, model: str) -> Reading:
        address = text.pci(path.name, str(path))
        chip = catalogue.find(model)
        memory = chip.memory_bytes if chip is not None else None
        if memory is None:
            raise VendorError(f"{path}: the catalogue has no memory of a {model}")
        device = Device(
            id=f"tpu-{address}",
            index=index,
            model=model,
            memory_bytes=memory,
            pci_address=address,
            paths=_files(path),
            domain=self._slice,
        )
        return Reading(device, (), samples(device.id, {"memory_total_bytes": float(memory)}))

    def links(self) -> Sequence[Link]:
        """The chips of a host are neighbours on ICI."""
        found = []
        for a, b in combinations(self.devices(), 2):
            chip = catalogue.find(a.model)
            total = chip.fabric_gbps if chip is not None else None
            gbps = None if total is None else round(total / LINKS[a.model], 1)
            found.append(Link(a.id, b.id, LinkKind.FABRIC, gbps))
        return found


def _files(path: Path) -> tuple[str, ...]:
    accel = next(iter(sorted(entry.name for entry in path.glob("accel/accel*"))), None)
    if accel is not None:
        return (f"/dev/{accel}",)
    try:
        group = (path / "iommu_group").resolve(strict=True).name
    except (OSError, RuntimeError):
        return ()
    return (f"/dev/vfio/{group}", "/dev/vfio/vfio")
