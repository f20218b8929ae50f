"""What faults mean for each device, for new pods and for those that hold it. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from drakkar_gpu.devices.base import Device, Fault, Severity

LOST = "lost"
UNREADABLE = "unreadable"
_ORDER = (Severity.WARNING, Severity.UNHEALTHY, Severity.FATAL)


@dataclass(frozen=True, slots=True)
class Health:
    """All devices that were ever seen since the start, and what is wrong with them."""

    devices: tuple[Device, ...] = ()
    faults: Mapping[str, Fault] = field(default_factory=dict)
    """The worst fault of each device that has one which matters (not a mere warning)."""
    well_since: Mapping[str, float] = field(default_factory=dict)
    """Of devices whose fault is gone for now: when it was first seen gone."""
    warnings: tuple[Fault, ...] = ()

    def healthy(self, device: Device) -> bool:
        """Whether a new pod may get the device: it and the device that it is a part of are well."""
        return device.id not in self.faults and device.parent not in self.faults


def look(
    before: Health, devices: Sequence[Device], faults: Iterable[Fault], now: float, *, settle: float
) -> Health:
    """Health after a look at the devices. ``now`` is monotonic, ``settle`` in seconds.

    A device that is not listed any more is lost, and stays in the list as such: the kubelet must
    not forget what a pod still holds. A device recovers once its fault has been gone for
    ``settle``, so that one that comes and goes is not handed out in between.
    """
    listed = {device.id: device for device in devices}
    gone = [device for device in before.devices if device.id not in listed]
    found = {f.device: f for f in sorted(faults, key=lambda f: _ORDER.index(f.severity))}
    for device in gone:
        found[device.id] = Fault(
            device.id, LOST, f"{device.model} {device.id} is not listed any more", Severity.FATAL
        )
    current = {name: f for name, f in found.items() if f.severity != Severity.WARNING}
    well_since: dict[str, float] = {}
    for name, fault in before.faults.items():
        if name in current:
            # The time at which a vendor says it began stays that of the first look.
            continue
        since = before.well_since.get(name, now)
        if now - since < settle:
            well_since[name] = since
            current[name] = fault
    known = sorted([*devices, *gone], key=lambda device: (device.index, device.id))
    return Health(
        tuple(known),
        current,
        well_since,
        tuple(f for f in found.values() if f.severity == Severity.WARNING),
    )


def blind(before: Health, message: str) -> Health:
    """Health when the devices could not be looked at for too long: none can be trusted."""
    faults = {
        device.id: before.faults.get(device.id)
        or Fault(device.id, UNREADABLE, message, Severity.UNHEALTHY)
        for device in before.devices
    }
    return Health(before.devices, faults)
