"""The interface of a vendor's devices: what there is, whether it is well, how it is linked.

Everything above this module (the kubelet's plugin, DRA, topology, health, the exporter) knows these
types only. A vendor is a class with four methods that read a library, a tool or sysfs; they block,
and callers run them in a thread.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol


class LinkKind(StrEnum):
    """How two devices reach each other, the nearest first (the classes of ``nvidia-smi topo``)."""

    FABRIC = "fabric"
    """NVLink, xGMI, HCCS, MLU-Link, ICI and the like."""
    SWITCH = "switch"
    """The same PCIe switch."""
    BRIDGE = "bridge"
    """The same PCIe host bridge."""
    NUMA = "numa"
    """The same NUMA node."""
    SYSTEM = "system"
    """Across the sockets' interconnect."""


class Severity(StrEnum):
    """What a fault means for the device."""

    WARNING = "warning"
    """It works, and is worth a look."""
    UNHEALTHY = "unhealthy"
    """No new pod may get it until the fault is gone."""
    FATAL = "fatal"
    """Nor does it come back without a reset or a repair; pods that hold it must move."""


@dataclass(frozen=True, slots=True)
class Device:
    """One accelerator, or one partition of it that is handed out by itself."""

    id: str
    """Unique on the node and the same after a restart: the vendor's UUID or serial number."""
    index: int
    """The vendor's number of the device on this node, as its runtime counts."""
    model: str
    """As the vendor's tool prints it; ``catalogue.find`` knows it."""
    memory_bytes: int
    numa_node: int | None = None
    pci_address: str = ""
    """Domain:bus:device.function, lower case; empty where there is none."""
    paths: tuple[str, ...] = ()
    """Device files that a container needs for this device."""
    parent: str | None = None
    """The whole device that this is a partition of."""
    profile: str = ""
    """Kind of partition, such as 1g.10gb."""
    domain: str = ""
    """Fabric that spans nodes which the device belongs to (an NVLink clique, a TPU slice)."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong with a device, for as long as ``faults`` returns it."""

    device: str
    """Device.id."""
    code: str
    """Bounded set, for metrics and taints: xid-79, ecc-uncorrectable, thermal, link-down, lost, ..."""
    message: str
    """The evidence in the vendor's words, with its numbers."""
    severity: Severity = Severity.UNHEALTHY
    since: float | None = None
    """Epoch seconds, where the vendor says."""


@dataclass(frozen=True, slots=True)
class Link:
    """A way between two devices of the node; it works in both directions."""

    a: str
    b: str
    kind: LinkKind
    gbps: float | None = None
    """Bandwidth in one direction, Gbit/s; None where neither tool nor catalogue says."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One measured value of a device."""

    device: str
    name: str
    """Metric name without prefix and with its unit: memory_used_bytes, power_watts, ..."""
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


class Vendor(Protocol):
    """Accelerators of one vendor on this node.

    Methods may block for seconds. They raise ``VendorError`` if the library, tool or sysfs can't be
    read or says something that can't be understood: never anything else.
    """

    @property
    def name(self) -> str:
        """Short name: nvidia, amd, ascend, ..., simulated."""

    @property
    def resource(self) -> str:
        """Extended resource of whole devices, such as nvidia.com/gpu."""

    def devices(self) -> Sequence[Device]:
        """All devices and partitions, in order of index, those with faults too."""

    def faults(self) -> Sequence[Fault]:
        """What is wrong now."""

    def links(self) -> Sequence[Link]:
        """Links between whole devices, each pair once; pairs left out are ``SYSTEM``."""

    def metrics(self) -> Sequence[Sample]:
        """Current values, for the exporter."""

    def environment(self, devices: Sequence[Device]) -> Mapping[str, str]:
        """What a container needs in its environment to see just these devices."""


class VendorError(Exception):
    """A vendor's source can't be read or understood; the message names it and what it said."""
