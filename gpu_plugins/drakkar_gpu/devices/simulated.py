"""Accelerators that are not there: for clusters without any, and for trying faults.

They are listed, linked, handed out and watched like real ones. What breaks them is a file::

    [{"device": "3", "code": "xid-79", "message": "GPU has fallen off the bus", "severity": "fatal"}]

``drakkar cluster device fault`` and ``clear`` write it on the local cluster.
"""

import json
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from drakkar import catalogue, quantity
from drakkar_gpu.devices.base import (
    Device,
    Fault,
    Link,
    LinkKind,
    Sample,
    Severity,
    VendorError,
)

RESOURCE = "drakkar.dev/gpu"
COMMON_MEMORY_GIB = 80
COMMON_GBPS = 3600.0
"""What is pretended of a chip that the catalogue does not know."""

GROUP_SIZES = {"pairs": 2, "groups": 4}
FATAL = frozenset({"xid-79", "ecc-uncorrectable", "lost"})
"""Codes that are fatal unless the file says otherwise."""


class SimulatedSpec(BaseModel):
    """What one node pretends to have."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel)

    model: str = "Simulated"
    """A name that the catalogue knows brings that chip's memory and links."""
    count: int = Field(default=8, ge=1, le=128)
    memory_gib: int | None = Field(default=None, ge=1)
    fabric: Literal["switch", "groups", "pairs", "none"] = "switch"
    """All with all (NVSwitch), groups of 4 (HCCS), pairs (NVLink bridges), or PCIe alone."""
    gbps: float | None = Field(default=None, gt=0)
    """Of the fabric between two devices, in one direction."""
    pcie_gbps: float = Field(default=504.0, gt=0)
    numa_nodes: int = Field(default=2, ge=1)
    domain: str = ""
    """Fabric that spans nodes, the same on all of its nodes."""

    @property
    def island(self) -> int:
        """Devices that the fabric joins; 0 without one."""
        return self.count if self.fabric == "switch" else GROUP_SIZES.get(self.fabric, 0)

    @property
    def memory_bytes(self) -> int:
        """Of one device: as set, as the catalogue says, or that of a common chip."""
        chip = catalogue.find(self.model)
        if self.memory_gib is None and chip is not None and chip.memory is not None:
            return quantity.amount("memory", chip.memory)
        return (self.memory_gib or COMMON_MEMORY_GIB) << 30

    @property
    def link_gbps(self) -> float:
        """Between two devices: through a switch all of a device's links, else its share of them."""
        if self.gbps is not None:
            return self.gbps
        chip = catalogue.find(self.model)
        together = (chip.fabric_gbps if chip else None) or COMMON_GBPS
        return together if self.fabric == "switch" else together / max(self.island - 1, 1)


class _Told(BaseModel):
    model_config = ConfigDict(extra="forbid")

    device: str
    code: str = Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")
    message: str = "injected"
    severity: Severity | None = None


class Simulated:
    """A vendor of devices as a SimulatedSpec describes them."""

    name = "simulated"
    resource = RESOURCE

    def __init__(self, spec: SimulatedSpec, *, node: str, faults: Path | None = None) -> None:
        self._spec = spec
        self._node = node
        self._gbps = spec.link_gbps
        self._faults = faults

    def devices(self) -> Sequence[Device]:
        """As many as the spec says, spread over its NUMA nodes in order."""
        spec, memory = self._spec, self._spec.memory_bytes
        return [
            Device(
                id=f"SIM-{self._node}-{index}",
                index=index,
                model=spec.model,
                memory_bytes=memory,
                numa_node=index * spec.numa_nodes // spec.count,
                pci_address=f"0000:{index + 1:02x}:00.0",
                domain=spec.domain,
            )
            for index in range(spec.count)
        ]

    def faults(self) -> Sequence[Fault]:
        """What the file says, by index or id of the device. No file: no faults."""
        devices = {key: d.id for d in self.devices() for key in (d.id, str(d.index))}
        found = []
        for told in self._told():
            if told.device not in devices:
                raise VendorError(f"{self._faults}: there is no device {told.device!r}")
            severity = told.severity or (
                Severity.FATAL if told.code in FATAL else Severity.UNHEALTHY
            )
            found.append(Fault(devices[told.device], told.code, told.message, severity))
        return found

    def _told(self) -> list[_Told]:
        if self._faults is None:
            return []
        try:
            told: Any = json.loads(self._faults.read_text())
            return [_Told.model_validate(item) for item in told]
        except FileNotFoundError:
            return []
        except (OSError, UnicodeDecodeError, TypeError, ValidationError, ValueError) as error:
            first = str(error).splitlines()[0]
            raise VendorError(f"{self._faults} is no list of faults: {first}") from error

    def links(self) -> Sequence[Link]:
        """The fabric, and PCIe switches of two and host bridges of four where it does not reach.

        A device whose link is down is on no fabric.
        """
        down = {fault.device for fault in self.faults() if fault.code == "link-down"}
        pairs = combinations(self.devices(), 2)
        return [link for a, b in pairs if (link := self._link(a, b, down)) is not None]

    def _link(self, a: Device, b: Device, down: set[str]) -> Link | None:
        spec = self._spec
        size = spec.island
        if size and a.index // size == b.index // size and not down & {a.id, b.id}:
            return Link(a.id, b.id, LinkKind.FABRIC, self._gbps)
        for kind, near in ((LinkKind.SWITCH, 2), (LinkKind.BRIDGE, 4)):
            if a.index // near == b.index // near and a.numa_node == b.numa_node:
                return Link(a.id, b.id, kind, spec.pcie_gbps)
        return None

    def metrics(self) -> Sequence[Sample]:
        """Memory alone: nothing runs on a device that is not there."""
        return [
            sample
            for device in self.devices()
            for sample in (
                Sample(device.id, "memory_total_bytes", float(device.memory_bytes)),
                Sample(device.id, "memory_used_bytes", 0.0),
                Sample(device.id, "utilization_ratio", 0.0),
            )
        ]

    def environment(self, devices: Sequence[Device]) -> Mapping[str, str]:
        """As CUDA's: the runtime sees these indices only."""
        return {"CUDA_VISIBLE_DEVICES": ",".join(str(device.index) for device in devices)}
