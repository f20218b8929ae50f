"""What the device plugin tells of a node: annotations that the operator, checks and people read.

``drakkar.dev/devices`` and ``drakkar.dev/device-faults`` each hold a JSON list with an entry for
each vendor that the node has devices of.
"""

from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

T = TypeVar("T")


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True)


class NodeDevice(_Entry):
    """One accelerator, or one partition of one."""

    id: str
    index: int
    memory: int
    """Bytes."""
    numa: int | None = None
    pci: str = ""
    parent: str | None = None
    profile: str = ""


class Nic(_Entry):
    """One network card of the fabric between nodes."""

    name: str
    numa: int | None = None
    rail: int
    """Its place among the node's cards: cards of one rail stand on one switch."""


class NodeDevices(_Entry):
    """A vendor's devices on a node."""

    vendor: str
    resource: str
    model: str
    domain: str = ""
    """Fabric that spans nodes."""
    devices: tuple[NodeDevice, ...]
    links: tuple[tuple[int, int, str, float | None], ...] = ()
    """(position in devices, position, kind, Gbit/s) of each pair that is nearer than the system."""
    nics: tuple[Nic, ...] = ()


class DeviceFault(_Entry):
    """What is wrong with a device."""

    code: str
    message: str
    severity: Literal["unhealthy", "fatal"]


class NodeFaults(_Entry):
    """A vendor's devices that no new pod gets."""

    resource: str
    devices: dict[str, DeviceFault]
    """By id of the device."""


_DEVICES = TypeAdapter(tuple[NodeDevices, ...])
_FAULTS = TypeAdapter(tuple[NodeFaults, ...])


def parse_devices(text: str | None) -> tuple[NodeDevices, ...]:
    """The entries of an annotation; none if there is none or it can't be understood."""
    return _parsed(_DEVICES, text)


def parse_faults(text: str | None) -> tuple[NodeFaults, ...]:
    """The entries of an annotation; none if there is none or it can't be understood."""
    return _parsed(_FAULTS, text)


def _parsed(adapter: TypeAdapter[tuple[T, ...]], text: str | None) -> tuple[T, ...]:
    try:
        return adapter.validate_json(text) if text else ()
    except ValidationError:
        return ()


def show_devices(entries: tuple[NodeDevices, ...]) -> str:
    """The annotation's text."""
    return _DEVICES.dump_json(entries, exclude_defaults=True).decode()


def show_faults(entries: tuple[NodeFaults, ...]) -> str:
    """The annotation's text."""
    return _FAULTS.dump_json(entries).decode()
