"""NVIDIA GPUs, read through NVML: devices, MIG instances, NVLink, health, metrics."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, TypeVar

from drakkar_gpu.devices import nvml as api
from drakkar_gpu.devices import sysfs, text
from drakkar_gpu.devices.base import Device, Fault, Link, LinkKind, Sample, VendorError
from drakkar_gpu.devices.nvidiahealth import Events, device_faults
from drakkar_gpu.devices.nvml import Handle, Nvml
from drakkar_gpu.devices.reading import SYS, ratio, samples

T = TypeVar("T")


class Nvidia:
    """All GPUs of the node. NVML is loaded at the first use; calls are serialised."""

    name = "nvidia"
    resource = "nvidia.com/gpu"

    def __init__(
        self,
        load: Callable[[], Nvml] = api.load,
        *,
        fabric_info: Callable[[], Any] = api.fabric_info,
        sys: Path = SYS,
        mig_minors: Path = Path("/proc/driver/nvidia-caps/mig-minors"),
        clock: Callable[[], float] = time.time,
        watch: bool = True,
    ) -> None:
        """``mig_minors``: the driver's list of the device files that MIG instances need. ``clock``
        gives epoch seconds. ``watch``: collect Xids in a thread from now on."""
        self._load = load
        self._fabric_info = fabric_info
        self._sys = sys
        self._mig_minors = mig_minors
        self._clock = clock
        self._watch = watch
        self._lock = threading.Lock()
        self._nvml: Nvml | None = None
        self._events: Events | None = None
        self._known: dict[int, tuple[Handle, Device]] = {}
        self._most_links: dict[str, int] = {}

    def _started(self) -> Nvml:
        if self._nvml is None:
            self._nvml = self._load()
        return self._nvml

    def _guarded(self, work: Callable[[Nvml], T]) -> T:
        with self._lock:
            nvml = self._started()
            try:
                return work(nvml)
            except nvml.NVMLError as error:
                if code(error) in api.START_AGAIN:
                    self._forget()
                raise VendorError(f"nvidia: NVML: {error}") from error
            except (UnicodeDecodeError, ValueError, TypeError, AttributeError) as error:
                raise VendorError(
                    f"nvidia: NVML answers what is not understood: {error}"
                ) from error

    def _forget(self) -> None:
        self._nvml = None
        self._known.clear()
        if self._events is not None:
            self._events.stop()
            self._events = None

    def devices(self) -> Sequence[Device]:
        """Whole GPUs, each followed by its MIG instances. A GPU that NVML has lost stays listed as
        it was known."""
        return self._guarded(self._devices)

    def _devices(self, nvml: Nvml) -> list[Device]:
        found: list[Device] = []
        for index in range(nvml.nvmlDeviceGetCount()):
            try:
                handle = nvml.nvmlDeviceGetHandleByIndex(index)
                device = self._device(nvml, handle, index)
            except nvml.NVMLError as error:
                if code(error) not in api.GONE:
                    raise
                if index in self._known:
                    found.append(self._known[index][1])
                continue
            self._known[index] = handle, device
            found += [device, *self._instances(nvml, handle, device)]
        if self._watch and self._events is None and self._known:
            self._events = Events(nvml, [handle for handle, _ in self._known.values()], self._clock)
            self._events.start()
        return found

    def _device(self, nvml: Nvml, handle: Handle, index: int) -> Device:
        bus = nvml.nvmlDeviceGetPciInfo(handle).busId
        address = text.pci(_text(bus), f"nvidia: bus of GPU {index}")
        minor = maybe(nvml, nvml.nvmlDeviceGetMinorNumber, handle)
        return Device(
            id=nvml.nvmlDeviceGetUUID(handle),
            index=index,
            model=nvml.nvmlDeviceGetName(handle),
            memory_bytes=int(nvml.nvmlDeviceGetMemoryInfo(handle).total),
            numa_node=sysfs.numa_node(self._sys, address),
            pci_address=address,
            paths=(f"/dev/nvidia{index if minor is None else minor}", *CONTROL),
            domain=self._domain(nvml, handle),
        )

    def _domain(self, nvml: Nvml, handle: Handle) -> str:
        info = self._fabric_info()
        if maybe(nvml, nvml.nvmlDeviceGetGpuFabricInfoV, handle, info) is None:
            return ""
        cluster = bytes(info.clusterUuid)
        if info.state != api.FABRIC_COMPLETED or info.status != 0 or not any(cluster):
            return ""
        plain = cluster.hex()
        uuid = "-".join((plain[:8], plain[8:12], plain[12:16], plain[16:20], plain[20:32]))
        return f"{uuid}.{info.cliqueId}"

    def _instances(self, nvml: Nvml, handle: Handle, whole: Device) -> list[Device]:
        mode = maybe(nvml, nvml.nvmlDeviceGetMigMode, handle)
        if not mode or not mode[0]:
            return []
        found = []
        for slot in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
            part = maybe(nvml, nvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, slot)
            if part is None:
                continue
            model = nvml.nvmlDeviceGetName(part)
            _, _, profile = model.partition(" MIG ")
            gpu_instance = nvml.nvmlDeviceGetGpuInstanceId(part)
            compute_instance = nvml.nvmlDeviceGetComputeInstanceId(part)
            found.append(
                Device(
                    id=nvml.nvmlDeviceGetUUID(part),
                    index=whole.index,
                    model=model,
                    memory_bytes=int(nvml.nvmlDeviceGetMemoryInfo(part).total),
                    numa_node=whole.numa_node,
                    pci_address=whole.pci_address,
                    paths=(
                        *whole.paths,
                        *self._capabilities(whole, gpu_instance, compute_instance),
                    ),
                    parent=whole.id,
                    profile=profile.strip(),
                )
            )
        return found

    def _capabilities(self, whole: Device, gpu: int, compute: int) -> list[str]:
        """Device files that let a container use an instance; the driver says their minors."""
        minors = dict(
            line.rsplit(maxsplit=1) for line in _lines(self._mig_minors) if len(line.split()) == 2
        )
        minor = whole.paths[0].removeprefix("/dev/nvidia")
        wanted = f"gpu{minor}/gi{gpu}/access", f"gpu{minor}/gi{gpu}/ci{compute}/access"
        return [f"/dev/nvidia-caps/nvidia-cap{minors[name]}" for name in wanted if name in minors]

    def links(self) -> Sequence[Link]:
        """NVLink with its bandwidth, else the nearest common ancestor on PCIe."""
        return self._guarded(self._links)

    def _links(self, nvml: Nvml) -> list[Link]:
        if not self._known:
            self._devices(nvml)
        wires = {index: self._wires(nvml, handle) for index, (handle, _) in self._known.items()}
        found = []
        for a, b in combinations(sorted(self._known), 2):
            (one, device), (other, peer) = self._known[a], self._known[b]
            gbps = max(
                min(wires[a].get(SWITCHES, 0.0), wires[b].get(SWITCHES, 0.0)),
                wires[a].get(peer.pci_address, 0.0),
            )
            if gbps:
                found.append(Link(device.id, peer.id, LinkKind.FABRIC, gbps))
                continue
            level = answering(nvml, nvml.nvmlDeviceGetTopologyCommonAncestor, one, other)
            kind = _kind(level) if level is not None else sysfs.distance(self._sys, device, peer)
            if kind is not LinkKind.SYSTEM:
                found.append(Link(device.id, peer.id, kind))
        return found

    def _wires(self, nvml: Nvml, handle: Handle) -> dict[str, float]:
        """Gbit/s of a GPU's working NVLinks by the PCI address that they lead to."""
        found: dict[str, float] = {}
        for link in range(api.MAX_LINKS):
            state = answering(nvml, nvml.nvmlDeviceGetNvLinkState, handle, link)
            if state != 1:
                continue
            version = answering(nvml, nvml.nvmlDeviceGetNvLinkVersion, handle, link) or 0
            kind = answering(nvml, nvml.nvmlDeviceGetNvLinkRemoteDeviceType, handle, link)
            remote = SWITCHES
            if kind == api.REMOTE_GPU:
                bus = answering(nvml, nvml.nvmlDeviceGetNvLinkRemotePciInfo, handle, link)
                if bus is None:
                    continue
                remote = text.pci(_text(bus.busId), "nvidia: bus of an NVLink's peer")
            elif kind != api.REMOTE_SWITCH:
                continue
            found[remote] = found.get(remote, 0.0) + api.LINK_GBPS.get(version, 0.0)
        return found

    def faults(self) -> Sequence[Fault]:
        """Lost GPUs, memory that awaits or failed repair, broken links, heat, Xids."""
        return self._guarded(self._faults)

    def _faults(self, nvml: Nvml) -> list[Fault]:
        self._devices(nvml)
        active = {index: _active(nvml, handle) for index, (handle, _) in self._known.items()}
        for index, (_, device) in self._known.items():
            most = self._most_links.get(device.model, 0)
            self._most_links[device.model] = max(most, active[index])
        found: list[Fault] = []
        for index, (handle, device) in sorted(self._known.items()):
            most = self._most_links[device.model]
            links = active[index], most
            found += device_faults(nvml, handle, device, links=links, events=self._events)
        return found

    def metrics(self) -> Sequence[Sample]:
        """Current values of whole GPUs, and the memory of their instances."""
        return self._guarded(self._metrics)

    def _metrics(self, nvml: Nvml) -> list[Sample]:
        found: list[Sample] = []
        self._devices(nvml)
        for handle, device in self._known.values():
            try:
                found += _samples(nvml, handle, device)
            except nvml.NVMLError as error:
                if code(error) not in api.GONE:
                    raise
        return found

    def environment(self, devices: Sequence[Device]) -> Mapping[str, str]:
        """By UUID, which means the same inside of a container and outside."""
        ids = ",".join(device.id for device in devices)
        return {"NVIDIA_VISIBLE_DEVICES": ids, "CUDA_VISIBLE_DEVICES": ids}


CONTROL = ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools")
SWITCHES = "switches"


def code(error: Exception) -> int | None:
    """NVML's return code in an exception of its binding."""
    value = getattr(error, "value", None)
    return value if isinstance(value, int) else None


def maybe(nvml: Nvml, call: Callable[..., T], *arguments: Any) -> T | None:
    """What a call returns, or None if the device has no such thing. Raises NVMLError else."""
    try:
        return call(*arguments)
    except nvml.NVMLError as error:
        if code(error) in api.NOT_SUPPORTED:
            return None
        raise


def answering(nvml: Nvml, call: Callable[..., T], *arguments: Any) -> T | None:
    """As ``maybe``, and None also if the GPU is lost."""
    try:
        return maybe(nvml, call, *arguments)
    except nvml.NVMLError as error:
        if code(error) in api.GONE:
            return None
        raise


def _active(nvml: Nvml, handle: Handle) -> int:
    """How many NVLinks work; none on a GPU that is lost."""
    return sum(
        answering(nvml, nvml.nvmlDeviceGetNvLinkState, handle, link) == 1
        for link in range(api.MAX_LINKS)
    )


def _samples(nvml: Nvml, handle: Handle, device: Device) -> list[Sample]:
    memory = maybe(nvml, nvml.nvmlDeviceGetMemoryInfo, handle)
    rates = maybe(nvml, nvml.nvmlDeviceGetUtilizationRates, handle)
    power = maybe(nvml, nvml.nvmlDeviceGetPowerUsage, handle)
    limit = maybe(nvml, nvml.nvmlDeviceGetEnforcedPowerLimit, handle)
    reasons = maybe(nvml, nvml.nvmlDeviceGetCurrentClocksEventReasons, handle)
    found = [
        *samples(
            device.id,
            {
                "utilization_ratio": ratio(None if rates is None else float(rates.gpu)),
                "memory_bandwidth_ratio": ratio(None if rates is None else float(rates.memory)),
                "memory_total_bytes": None if memory is None else float(memory.total),
                "memory_used_bytes": None if memory is None else float(memory.used),
                "power_watts": None if power is None else power / 1000,
                "power_limit_watts": None if limit is None else limit / 1000,
                "temperature_celsius": _float(
                    maybe(nvml, nvml.nvmlDeviceGetTemperature, handle, api.SENSOR_GPU)
                ),
            },
        )
    ]
    for label, clock in (("sm", api.CLOCK_SM), ("memory", api.CLOCK_MEMORY)):
        megahertz = maybe(nvml, nvml.nvmlDeviceGetClockInfo, handle, clock)
        if megahertz is not None:
            found.append(Sample(device.id, "clock_hertz", megahertz * 1e6, {"clock": label}))
    for label, kind in (("corrected", api.ECC_CORRECTED), ("uncorrected", api.ECC_UNCORRECTED)):
        errors = maybe(nvml, nvml.nvmlDeviceGetTotalEccErrors, handle, kind, api.ECC_VOLATILE)
        if errors is not None:
            found.append(Sample(device.id, "ecc_errors_total", float(errors), {"kind": label}))
    if reasons is not None:
        found += [
            Sample(device.id, "throttled", float(bool(reasons & bit)), {"reason": reason})
            for bit, reason in api.THROTTLE_REASONS.items()
        ]
    labels = ("crc", "replay", "recovery")
    fields = (api.FIELD_LINK_CRC_ERRORS, api.FIELD_LINK_REPLAYS, api.FIELD_LINK_RECOVERIES)
    values = maybe(nvml, nvml.nvmlDeviceGetFieldValues, handle, fields)
    for label, value in zip(labels, values or (), strict=False):
        if value.nvmlReturn == 0:
            count = float(value.value.ullVal)
            found.append(Sample(device.id, "link_errors_total", count, {"kind": label}))
    return found


def _kind(level: int) -> LinkKind:
    if level <= api.TOPOLOGY_SWITCH:
        return LinkKind.SWITCH
    if level <= api.TOPOLOGY_BRIDGE:
        return LinkKind.BRIDGE
    return LinkKind.NUMA if level <= api.TOPOLOGY_NODE else LinkKind.SYSTEM


def _float(value: float | None) -> float | None:
    return None if value is None else float(value)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []
