"""Cambricon MLUs, read with cnmon.

Layout: the report of ``cnmon info`` (cnmon 4 and 5, Cambricon "CNMon User Guide").
"""

from collections.abc import Mapping, Sequence

from drakkar_gpu.devices import text
from drakkar_gpu.devices.base import Device, Fault, VendorError
from drakkar_gpu.devices.reading import Reading, ToolReadings, ratio, samples
from drakkar_gpu.devices.tool import Tool

COMMAND = "cnmon info"
Report = Mapping[tuple[str, ...], str]


def parse_info(output: str) -> list[Reading]:
    """The cards of ``cnmon info``."""
    found = [_card(index, report) for index, report in text.reports(output, "Card").items()]
    if not found:
        raise VendorError(f"{COMMAND}: there is no card in the report")
    return found


def _card(index: int, report: Report) -> Reading:
    what = f"{COMMAND}: card {index}"
    model = report.get(("Product Name",), "")
    if text.absent(model):
        raise VendorError(f"{what}: it says no product name")
    address = _address(report, what)
    uuid = report.get(("UUID",), "")
    identity = f"MLU-{uuid}" if not text.absent(uuid) else f"MLU-{address or index}"
    total = text.mebibytes(report.get(("Physical Memory Usage", "Total"), ""), f"{what}: memory")
    temperature = report.get(("Temperature", "Chip")) or report.get(("Temperature", "Board"), "")
    return Reading(
        Device(
            id=identity,
            index=index,
            model=model,
            memory_bytes=total,
            pci_address=address,
            paths=(f"/dev/cambricon_dev{index}", "/dev/cambricon_ctl"),
        ),
        tuple(_faults(identity, report)),
        samples(
            identity,
            {
                "utilization_ratio": ratio(
                    text.number(report.get(("Utilization", "MLU Average"), ""), f"{what}: load")
                ),
                "memory_used_bytes": float(
                    text.mebibytes(
                        report.get(("Physical Memory Usage", "Used"), ""), f"{what}: used memory"
                    )
                ),
                "memory_total_bytes": float(total),
                "power_watts": text.number(report.get(("Power", "Usage"), ""), f"{what}: power"),
                "power_limit_watts": text.number(report.get(("Power", "Cap"), ""), f"{what}: cap"),
                "temperature_celsius": text.number(temperature, f"{what}: temperature"),
            },
        ),
    )


def _address(report: Report, what: str) -> str:
    names = ("Domain ID", "Bus num", "Device", "Function")
    parts = [report.get(("PCI", name), "") for name in names]
    if all(text.absent(part) for part in parts):
        return ""
    return text.pci("{}:{}:{}.{}".format(*parts), f"{what}: PCI")


def _faults(identity: str, report: Report) -> list[Fault]:
    found = []
    for part, good in (("Device", "good"), ("Driver", "running")):
        state = report.get(("Health State", part), "")
        if not text.absent(state) and state.lower() != good:
            found.append(Fault(identity, "health", f"cnmon: {part.lower()} is {state}"))
    return found


class Cambricon(ToolReadings):
    """All MLUs of the node."""

    name = "cambricon"
    resource = "cambricon.com/mlu"
    visible = "CAMBRICON_VISIBLE_DEVICES"
    tool = Tool("cnmon", paths=("/usr/bin/cnmon", "/usr/local/neuware/bin/cnmon"))

    def read(self) -> Sequence[Reading]:
        """One call of cnmon."""
        return parse_info(self._run("info"))
