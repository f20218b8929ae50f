"""AWS Trainium and Inferentia, read with neuron-ls.

Layout: ``neuron-ls --json-output`` (AWS Neuron documentation, "Neuron LS User Guide", 2.28) and
counters below /sys/devices/virtual/neuron_device ("Neuron Sysfs User Guide").
"""

from collections.abc import Sequence
from typing import Any

from drakkar_gpu.devices import text
from drakkar_gpu.devices.base import Device, Fault, Link, LinkKind, Severity, VendorError
from drakkar_gpu.devices.reading import Reading, Run, ToolReadings, ecc, samples
from drakkar_gpu.devices.tool import Tool, read

COMMAND = "neuron-ls --json-output"
MODELS = {
    "trn1": "Trainium",
    "trn1n": "Trainium",
    "trn2": "Trainium2",
    "trn2n": "Trainium2",
    "trn2u": "Trainium2",
    "trn3": "Trainium3",
    "trn3u": "Trainium3",
    "inf2": "Inferentia2",
}
"""By the family of the instance type."""
MAX_BYTES = 1 << 44


def parse_list(output: str) -> list[tuple[Device, tuple[int, ...]]]:
    """Devices, each with the numbers of those that it has NeuronLinks to."""
    entries = text.from_json(output, COMMAND)
    if isinstance(entries, dict):
        entries = entries.get("neuron_devices")
    if not isinstance(entries, list) or not entries:
        raise VendorError(f"{COMMAND}: it lists no device")
    return [_entry(entry) for entry in entries]


def _entry(entry: object) -> tuple[Device, tuple[int, ...]]:
    if not isinstance(entry, dict):
        raise VendorError(f"{COMMAND}: an entry is no object")
    index = text.count(entry.get("neuron_device", ""), f"{COMMAND}: neuron_device")
    what = f"{COMMAND}: device {index}"
    memory = text.needed(entry.get("memory_size", ""), f"{what}: memory_size")
    if not 0 < memory < MAX_BYTES:
        raise VendorError(f"{what}: {memory:g} is no size of a device's memory in bytes")
    peers = entry.get("connected_to") or []
    if not isinstance(peers, list):
        raise VendorError(f"{what}: connected_to is no list")
    numa = text.number(entry.get("numa_node", ""), f"{what}: numa_node")
    family = str(entry.get("instance_type", "")).partition(".")[0].lower()
    address = text.pci(entry.get("bdf", ""), f"{what}: bdf")
    device = Device(
        id=f"neuron-{address}",
        index=index,
        model=MODELS.get(family, "Neuron device"),
        memory_bytes=int(memory),
        numa_node=int(numa) if numa is not None and 0 <= numa < 4096 else None,
        pci_address=address,
        paths=(f"/dev/neuron{index}",),
    )
    return device, tuple(text.count(peer, f"{what}: connected_to") for peer in peers)


class Neuron(ToolReadings):
    """All Neuron devices of the node."""

    name = "neuron"
    resource = "aws.amazon.com/neuron"
    visible = "AWS_NEURON_VISIBLE_DEVICES"
    tool = Tool("neuron-ls", paths=("/opt/aws/neuron/bin/neuron-ls",))

    def __init__(self, run: Run | None = None, **options: Any) -> None:
        super().__init__(run, **options)
        self._peers: dict[int, tuple[int, ...]] = {}

    def read(self) -> Sequence[Reading]:
        """One call of neuron-ls, and each device's counters of memory errors."""
        entries = parse_list(self._run("--json-output"))
        self._peers = {device.index: peers for device, peers in entries}
        return [self._reading(device) for device, _ in entries]

    def _reading(self, device: Device) -> Reading:
        folder = self._sys / "devices" / "virtual" / "neuron_device" / f"neuron{device.index}"
        counts = [
            text.number(said, f"{folder.name}: {name}")
            for name in ("mem_ecc_uncorrected", "sram_ecc_uncorrected")
            if (said := read(folder / "stats" / "hardware" / name)) is not None
        ]
        errors = sum(count or 0.0 for count in counts) if counts else None
        faults: tuple[Fault, ...] = ()
        if errors:
            message = f"{errors:.0f} uncorrectable ECC errors since the driver was loaded"
            faults = (Fault(device.id, "ecc-uncorrectable", message, Severity.UNHEALTHY),)
        values = samples(device.id, {"memory_total_bytes": float(device.memory_bytes)})
        return Reading(device, faults, values + ecc(device.id, corrected=None, uncorrected=errors))

    def links(self) -> Sequence[Link]:
        """NeuronLinks as neuron-ls lists them; its bandwidth is not told."""
        ids = {device.index: device.id for device in self.devices()}
        pairs = {
            (min(index, peer), max(index, peer))
            for index, peers in self._peers.items()
            for peer in peers
            if index != peer and peer in ids and index in ids
        }
        return [Link(ids[a], ids[b], LinkKind.FABRIC) for a, b in sorted(pairs)]
