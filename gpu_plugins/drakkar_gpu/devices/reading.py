"""What one call of a vendor's tool tells of all its devices, and the vendors made of such calls."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from drakkar_gpu.devices import sysfs
from drakkar_gpu.devices.base import Device, Fault, Link, Sample, VendorError
from drakkar_gpu.devices.tool import Tool

T = TypeVar("T")
Run = Callable[..., str]
"""Calls the vendor's tool with arguments; see ``tool.Tool``."""

SYS = Path("/sys")


@dataclass(frozen=True, slots=True)
class Reading:
    """One device as a tool describes it."""

    device: Device
    faults: tuple[Fault, ...] = ()
    samples: tuple[Sample, ...] = ()


class Fresh(Generic[T]):
    """A value that is read again only after some seconds: one look asks for devices, faults and
    links in turn, and they come from the same call of the tool."""

    def __init__(
        self, read: Callable[[], T], *, seconds: float = 2.0, clock: Callable[[], float]
    ) -> None:
        self._read = read
        self._seconds = seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._value: tuple[float, T] | None = None

    def __call__(self) -> T:
        with self._lock:
            now = self._clock()
            if self._value is None or now - self._value[0] >= self._seconds:
                self._value = None
                self._value = now, self._read()
            return self._value[1]


class Readings:
    """A vendor whose devices, faults and metrics come from ``read``: subclasses say what that is."""

    name: str
    resource: str
    visible: str
    """Environment variable that names to the vendor's container runtime what a container sees."""

    def __init__(self, *, sys: Path = SYS, clock: Callable[[], float] = time.monotonic) -> None:
        self._sys = sys
        self._fresh = Fresh(self._checked, clock=clock)

    def read(self) -> Sequence[Reading]:
        """Ask for everything once. Raises VendorError."""
        raise NotImplementedError

    def _checked(self) -> Sequence[Reading]:
        readings = sorted(self.read(), key=lambda reading: reading.device.index)
        ids = [reading.device.id for reading in readings]
        if len(set(ids)) < len(ids):
            twice = sorted({name for name in ids if ids.count(name) > 1})
            raise VendorError(f"{self.name}: several devices are called {', '.join(twice[:3])}")
        return [
            replace(reading, device=replace(reading.device, numa_node=self._numa(reading.device)))
            for reading in readings
        ]

    def _numa(self, device: Device) -> int | None:
        if device.numa_node is not None:
            return device.numa_node
        return sysfs.numa_node(self._sys, device.pci_address)

    def devices(self) -> Sequence[Device]:
        """See ``base.Vendor``."""
        return [reading.device for reading in self._fresh()]

    def faults(self) -> Sequence[Fault]:
        """See ``base.Vendor``."""
        return [fault for reading in self._fresh() for fault in reading.faults]

    def metrics(self) -> Sequence[Sample]:
        """See ``base.Vendor``."""
        return [sample for reading in self._fresh() for sample in reading.samples]

    def links(self) -> Sequence[Link]:
        """Those over PCIe, from sysfs."""
        return sysfs.pcie_links(self._sys, self.devices())

    def environment(self, devices: Sequence[Device]) -> Mapping[str, str]:
        """See ``base.Vendor``."""
        return {self.visible: ",".join(str(device.index) for device in devices)}


class ToolReadings(Readings):
    """A vendor that is read by running its tool."""

    tool: Tool

    def __init__(self, run: Run | None = None, **options: Any) -> None:
        """``run`` stands in for the tool. ``options``: see ``Readings``."""
        super().__init__(**options)
        self._run = run or self.tool


def samples(device: str, values: Mapping[str, float | None]) -> tuple[Sample, ...]:
    """Samples of the values that there are, by metric name."""
    return tuple(Sample(device, name, value) for name, value in values.items() if value is not None)


def ecc(device: str, *, corrected: float | None, uncorrected: float | None) -> tuple[Sample, ...]:
    """Counters of memory errors, those that there are."""
    counts = {"corrected": corrected, "uncorrected": uncorrected}
    return tuple(
        Sample(device, "ecc_errors_total", value, {"kind": kind})
        for kind, value in counts.items()
        if value is not None
    )


def ratio(percent: float | None) -> float | None:
    """0 to 1 of a value in per cent."""
    return None if percent is None else min(max(percent / 100, 0.0), 1.0)
