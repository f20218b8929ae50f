"""Hygon DCUs: hy-smi for what they are and how they are, the KFD topology for their links.

Layout: JSON of ``hy-smi ... --json`` (DTK 24 and 25), whose tool and driver descend from AMD's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from drakkar_gpu.devices import kfd, sysfs, text
from drakkar_gpu.devices.amd import kfd_links
from drakkar_gpu.devices.base import Device, Link, VendorError
from drakkar_gpu.devices.reading import Reading, ToolReadings, ratio, samples
from drakkar_gpu.devices.tool import Tool

VENDOR_ID = 0x1D94
COMMAND = "hy-smi"
SHARED = ("/dev/kfd", "/dev/mkfd")
ARGUMENTS = (
    "--showproductname",
    "--showserial",
    "--showuniqueid",
    "--showbus",
    "--showuse",
    "--showmeminfo",
    "vram",
    "--showpower",
    "--showtemp",
    "--json",
)


def parse(output: str) -> list[Reading]:
    """The cards ("card0", "card1", ...) of hy-smi's JSON."""
    entries = text.from_json(output, COMMAND)
    if not isinstance(entries, dict):
        raise VendorError(f"{COMMAND}: it prints no JSON object")
    cards = {
        name: entry
        for name, entry in entries.items()
        if name.startswith("card") and name[4:].isascii() and name[4:].isdecimal()
    }
    if not cards:
        raise VendorError(f"{COMMAND}: it lists no card")
    return [_card(name, entry) for name, entry in cards.items()]


def _card(name: str, entry: object) -> Reading:
    what = f"{COMMAND}: {name}"
    index = text.count(name.removeprefix("card"), what)
    if not isinstance(entry, dict):
        raise VendorError(f"{what}: it is no object")
    values = {str(key): str(value) for key, value in entry.items()}

    def number(*keys: str) -> float | None:
        return next(
            (text.number(values[key], f"{what}: {key}") for key in keys if key in values), None
        )

    total = _bytes(values, "vram Total Memory", what)
    if total is None:
        raise VendorError(f"{what}: it says no size of its memory")
    address = values.get("PCI Bus", "")
    address = "" if text.absent(address) else text.pci(address, f"{what}: PCI Bus")
    serial = next(
        (
            values[key].removeprefix("0x")
            for key in ("Unique ID", "Serial Number")
            if not text.absent(values.get(key, ""))
        ),
        address or str(index),
    )
    identity = f"DCU-{serial}"
    used = _bytes(values, "vram Total Used Memory", what)
    return Reading(
        Device(
            id=identity,
            index=index,
            model=values.get("Card Series") or values.get("Card series") or "DCU",
            memory_bytes=total,
            pci_address=address,
        ),
        (),
        samples(
            identity,
            {
                "utilization_ratio": ratio(number("DCU use (%)", "HCU use (%)")),
                "memory_used_bytes": None if used is None else float(used),
                "memory_total_bytes": float(total),
                "power_watts": number("Average Graphics Package Power (W)"),
                "temperature_celsius": number(
                    "Temperature (Sensor junction) (C)", "Temperature (Sensor edge) (C)"
                ),
            },
        ),
    )


def _bytes(values: Mapping[str, str], key: str, what: str) -> int | None:
    if f"{key} (MiB)" in values:
        return text.mebibytes(values[f"{key} (MiB)"], f"{what}: {key}")
    size = text.number(values.get(f"{key} (B)", ""), f"{what}: {key}")
    if size is not None and not 0 <= size < 1 << 46:
        raise VendorError(f"{what}: {key} is {size:g} bytes")
    return None if size is None else int(size)


class Hygon(ToolReadings):
    """All DCUs of the node."""

    name = "hygon"
    resource = "hygon.com/dcu"
    visible = "DCU_VISIBLE_DEVICES"
    tool = Tool("hy-smi", paths=("/opt/hyhal/bin/hy-smi", "/usr/local/hyhal/bin/hy-smi"))

    def read(self) -> Sequence[Reading]:
        """One call of hy-smi; the device files are those that the kernel names."""
        return [
            replace(reading, device=self._with_files(reading.device))
            for reading in parse(self._run(*ARGUMENTS))
        ]

    def _with_files(self, device: Device) -> Device:
        files = sysfs.drm_files(self._sys, device.pci_address)
        return replace(device, paths=(*SHARED, *files))

    def links(self) -> Sequence[Link]:
        """xGMI of the KFD topology, else PCIe."""
        devices = self.devices()
        try:
            found = {gpu.pci_address: gpu for gpu in kfd.gpus(self._sys, VENDOR_ID)}
        except VendorError:
            return super().links()
        gpus = {d.id: found[d.pci_address] for d in devices if d.pci_address in found}
        return kfd_links(self._sys, devices, gpus) if gpus else super().links()
