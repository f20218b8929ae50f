"""Enflame GCUs, read with efsmi.

Layout: the report of ``efsmi -q`` (TopsRider drivers 1.2 to 1.7).
"""

from collections.abc import Mapping, Sequence

from drakkar_gpu.devices import text
from drakkar_gpu.devices.base import Device, Fault, Severity, VendorError
from drakkar_gpu.devices.reading import Reading, ToolReadings, ratio, samples
from drakkar_gpu.devices.tool import Tool

COMMAND = "efsmi -q"
Report = Mapping[tuple[str, ...], str]


def parse_query(output: str) -> list[Reading]:
    """The devices of ``efsmi -q``."""
    found = [_card(index, report) for index, report in text.reports(output, "DEV ID").items()]
    if not found:
        raise VendorError(f"{COMMAND}: there is no device in the report")
    return found


def _card(index: int, report: Report) -> Reading:
    what = f"{COMMAND}: device {index}"

    def value(*key: str) -> str:
        return report.get(key, "")

    model = value("Device Info", "Dev Name")
    if text.absent(model):
        raise VendorError(f"{what}: it says no name")
    parts = [value("PCIe Info", name) for name in ("Domain", "Bus", "Dev", "Func")]
    address = text.pci("{}:{}:{}.{}".format(*parts), f"{what}: PCIe Info")
    uuid = value("Device Info", "Dev UUID") or value("Device Info", "Dev SN")
    identity = f"GCU-{address if text.absent(uuid) else uuid}"
    memory = "Device Mem Info"
    total = text.mebibytes(
        value(memory, "Total Size") or value(memory, "Mem Size"), f"{what}: memory"
    )
    used = text.number(value(memory, "Used Size") or value(memory, "Mem Usage"), f"{what}: memory")
    return Reading(
        Device(
            id=identity,
            index=index,
            model=model,
            memory_bytes=total,
            pci_address=address,
            paths=(f"/dev/gcu{index}", "/dev/gcuctl"),
        ),
        tuple(_faults(identity, report, what)),
        samples(
            identity,
            {
                "utilization_ratio": ratio(
                    text.number(value("Device Usage Info", "GCU Usage"), f"{what}: usage")
                ),
                "memory_used_bytes": None if used is None else used * 2**20,
                "memory_total_bytes": float(total),
                "power_watts": text.number(value("Power Info", "Cur Power"), f"{what}: power"),
                "power_limit_watts": text.number(value("Power Info", "Power Capa"), f"{what}: cap"),
                "temperature_celsius": text.number(
                    value("Temperature Info", "GCU Temp"), f"{what}: temperature"
                ),
            },
        ),
    )


def _faults(identity: str, report: Report, what: str) -> list[Fault]:
    found = []
    if report.get(("Device Info", "Health"), "True").lower() != "true":
        found.append(Fault(identity, "health", "efsmi: Health is not True"))
    if report.get(("RMA Info", "Flags"), "False").lower() == "true":
        message = "efsmi: the device is marked to be returned to its maker"
        found.append(Fault(identity, "rma", message, Severity.FATAL))
    errors = text.number(report.get(("RMA Info", "Total DBE"), ""), f"{what}: Total DBE")
    if errors:
        message = f"efsmi: {errors:.0f} double bit errors"
        found.append(Fault(identity, "ecc-uncorrectable", message))
    cable = report.get(("Power Cable", "Status"), "")
    if not text.absent(cable) and cable.lower() != "normal":
        found.append(Fault(identity, "power-cable", f"efsmi: the power cable is {cable}"))
    return found


class Enflame(ToolReadings):
    """All GCUs of the node."""

    name = "enflame"
    resource = "enflame.com/gcu"
    visible = "ENFLAME_VISIBLE_DEVICES"
    tool = Tool("efsmi", paths=("/usr/bin/efsmi", "/usr/local/efsmi/efsmi"))

    def read(self) -> Sequence[Reading]:
        """One call of efsmi."""
        return parse_query(self._run("-q"))
