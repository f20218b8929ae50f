"""Moore Threads GPUs, read with mthreads-gmi.

Layout: the overview that mthreads-gmi 1.6 and 2.0 print (Moore Threads, "mthreads-gmi User Guide").
"""

import re
from collections.abc import Sequence

from drakkar_gpu.devices import text
from drakkar_gpu.devices.base import Device, VendorError
from drakkar_gpu.devices.reading import Reading, ToolReadings, ratio, samples
from drakkar_gpu.devices.tool import Tool

COMMAND = "mthreads-gmi"
_FIRST = re.compile(r"(\d{1,4})\s+(\S.*)", re.ASCII)
_MEMORY = re.compile(r"(\d{1,4})%\s+(\d{1,8})MiB\s*\(\s*(\d{1,8})MiB\s*\)", re.ASCII)
_TEMPERATURE = re.compile(r"(\d{1,3})C\b", re.ASCII)


def parse_overview(output: str) -> list[Reading]:
    """The GPUs of the overview: two lines each, with three cells parted by |."""
    found: list[Reading] = []
    waiting: list[str] | None = None
    for line in output.splitlines():
        if line.strip().startswith("Processes"):
            break
        cells = text.cells(line)
        if len(cells) != 3:
            continue
        if _FIRST.fullmatch(cells[0]):
            if waiting is not None:
                raise VendorError(f"{COMMAND}: GPU {waiting[0][:20]!r} has one line instead of two")
            waiting = cells
        elif waiting is not None and not cells[0].startswith(("ID", "Device Type")):
            found.append(_gpu(waiting, cells))
            waiting = None
    if waiting is not None:
        raise VendorError(f"{COMMAND}: GPU {waiting[0][:20]!r} has one line instead of two")
    if not found:
        raise VendorError(f"{COMMAND}: there is no GPU in the overview")
    return found


def _gpu(first: Sequence[str], second: Sequence[str]) -> Reading:
    match = _FIRST.fullmatch(first[0])
    assert match is not None
    index, model = int(match.group(1)), match.group(2).strip()
    what = f"{COMMAND}: GPU {index}"
    address = text.pci(first[1], f"{what}: PCIe")
    memory = _MEMORY.match(first[2])
    if memory is None:
        raise VendorError(f"{what}: {first[2][:40]!r} is no load and memory")
    used, total = (text.mebibytes(size, f"{what}: memory") for size in memory.groups()[1:])
    heat = _TEMPERATURE.match(second[2])
    identity = f"MTT-{address}"
    return Reading(
        Device(
            id=identity,
            index=index,
            model=model,
            memory_bytes=total,
            pci_address=address,
            paths=(f"/dev/mtgpu.{index}",),
        ),
        (),
        samples(
            identity,
            {
                "utilization_ratio": ratio(float(memory.group(1))),
                "memory_used_bytes": float(used),
                "memory_total_bytes": float(total),
                "temperature_celsius": float(heat.group(1)) if heat else None,
            },
        ),
    )


class MooreThreads(ToolReadings):
    """All GPUs of the node."""

    name = "moorethreads"
    resource = "mthreads.com/gpu"
    visible = "MTHREADS_VISIBLE_DEVICES"
    tool = Tool("mthreads-gmi", paths=("/usr/bin/mthreads-gmi",))

    def read(self) -> Sequence[Reading]:
        """One call of mthreads-gmi."""
        return parse_overview(self._run())
