"""Intel Gaudi accelerators, read with hl-smi.

Layout: CSV of ``hl-smi -Q`` (Intel Gaudi documentation, "System Management Interface Tool").
"""

import csv
from collections.abc import Sequence
from itertools import combinations

from drakkar import catalogue
from drakkar_gpu.devices import text
from drakkar_gpu.devices.base import Device, Fault, Link, LinkKind, Severity, VendorError
from drakkar_gpu.devices.reading import Reading, ToolReadings, ecc, ratio, samples
from drakkar_gpu.devices.tool import Tool

COMMAND = "hl-smi -Q"
CORRECTED = "ecc.errors.corrected.volatile.total"
UNCORRECTED = "ecc.errors.uncorrected.volatile.total"
FIELDS = (
    "index",
    "uuid",
    "name",
    "bus_id",
    "memory.total",
    "memory.used",
    "utilization.aip",
    "temperature.aip",
    "power.draw",
    CORRECTED,
    UNCORRECTED,
)
MESH = 8
"""Modules of a baseboard, each of which has links to the seven others."""


def parse_query(output: str) -> list[Reading]:
    """A line of CSV per device with the values of FIELDS."""
    try:
        rows = [row for row in csv.reader(output.splitlines(), skipinitialspace=True) if row]
    except csv.Error as error:
        raise VendorError(f"{COMMAND}: it is not CSV: {error}") from error
    if not rows:
        raise VendorError(f"{COMMAND}: it lists no device")
    return [_device(row) for row in rows]


def _device(row: Sequence[str]) -> Reading:
    if len(row) != len(FIELDS):
        raise VendorError(f"{COMMAND}: a line has {len(row)} values instead of {len(FIELDS)}")
    value = dict(zip(FIELDS, (cell.strip() for cell in row), strict=True))
    index = text.count(value["index"], f"{COMMAND}: index")
    what = f"{COMMAND}: device {index}"
    for key in ("uuid", "name"):
        if text.absent(value[key]):
            raise VendorError(f"{what}: it has no {key}")
    total = text.mebibytes(value["memory.total"], f"{what}: memory.total")
    uuid = value["uuid"]

    def number(key: str) -> float | None:
        return text.number(value[key], f"{what}: {key}")

    used = number("memory.used")
    uncorrected = number(UNCORRECTED)
    faults: tuple[Fault, ...] = ()
    if uncorrected:
        message = f"hl-smi: {uncorrected:.0f} uncorrected ECC errors since the driver was loaded"
        faults = (Fault(uuid, "ecc-uncorrectable", message, Severity.UNHEALTHY),)
    return Reading(
        Device(
            id=uuid,
            index=index,
            model=value["name"],
            memory_bytes=total,
            pci_address=text.pci(value["bus_id"], f"{what}: bus_id"),
            paths=(f"/dev/accel/accel{index}", f"/dev/accel/accel_controlD{index}"),
        ),
        faults,
        ecc(uuid, corrected=number(CORRECTED), uncorrected=uncorrected)
        + samples(
            uuid,
            {
                "utilization_ratio": ratio(number("utilization.aip")),
                "memory_used_bytes": None if used is None else used * 2**20,
                "memory_total_bytes": float(total),
                "power_watts": number("power.draw"),
                "temperature_celsius": number("temperature.aip"),
            },
        ),
    )


class Gaudi(ToolReadings):
    """All Gaudis of the node."""

    name = "gaudi"
    resource = "habana.ai/gaudi"
    visible = "HABANA_VISIBLE_DEVICES"
    tool = Tool("hl-smi", paths=("/usr/bin/hl-smi",))

    def read(self) -> Sequence[Reading]:
        """One call of hl-smi."""
        return parse_query(self._run("-Q", ",".join(FIELDS), "-f", "csv,noheader"))

    def links(self) -> Sequence[Link]:
        """Modules of a baseboard have links of equal width to each other; cards have PCIe."""
        found = []
        devices = self.devices()
        for a, b in combinations(devices, 2):
            chip = catalogue.find(a.model)
            if chip is not None and chip.fabric_gbps is not None and len(devices) <= MESH:
                gbps = round(chip.fabric_gbps / (MESH - 1), 1)
                found.append(Link(a.id, b.id, LinkKind.FABRIC, gbps))
        return found or super().links()
