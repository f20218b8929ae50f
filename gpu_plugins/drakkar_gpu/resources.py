"""Which extended resource each device is offered as, and under which ids. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from drakkar_gpu.devices.base import Device

_SHARE = "::"


@dataclass(frozen=True, slots=True)
class Shares:
    """Devices that several containers use at once, each holding a share."""

    devices: tuple[int, ...] = ()
    """Indices; these devices are not handed out whole."""
    each: int = 1
    """Shares of one device."""


@dataclass(frozen=True, slots=True)
class Offer:
    """One thing that the kubelet may hand out: a device, a partition or a share of a device."""

    id: str
    device: Device

    def as_device(self) -> Device:
        """A share as if it were a partition of its device."""
        if self.id == self.device.id:
            return self.device
        return replace(self.device, id=self.id, parent=self.device.id)


def offers(
    devices: Sequence[Device], resource: str, shares: Shares | None = None
) -> dict[str, list[Offer]]:
    """Resource name -> what is offered as it, in the devices' order.

    Partitions are a resource per profile (``nvidia.com/mig-1g.10gb``), shares are ``<resource>.shared``.
    A device with partitions or shares is not offered whole: nothing is handed out twice.
    """
    shares = shares or Shares()
    parents = {device.parent for device in devices}
    found: dict[str, list[Offer]] = {resource: []}
    for device in devices:
        if device.parent is not None:
            found.setdefault(partition_resource(resource, device.profile), []).append(
                Offer(device.id, device)
            )
        elif device.id in parents:
            continue
        elif device.index in shares.devices:
            found.setdefault(f"{resource}.shared", []).extend(
                Offer(f"{device.id}{_SHARE}{share}", device) for share in range(shares.each)
            )
        else:
            found[resource].append(Offer(device.id, device))
    return {name: offered for name, offered in found.items() if offered or name == resource}


def partition_resource(resource: str, profile: str) -> str:
    """As the vendors' own plugins call it: mig-<profile> at NVIDIA, <resource>-<profile> else."""
    domain, name = resource.split("/")
    clean = re.sub(r"[^a-z0-9.-]+", "-", profile.lower()).strip("-.")
    return f"{domain}/mig-{clean}" if domain == "nvidia.com" else f"{domain}/{name}-{clean}"
