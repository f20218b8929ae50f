"""NVML as it answers on documented machines, function by function, without a GPU.

Values and error codes follow NVIDIA's NVML API reference; structures have the fields that the
Python binding gives them.
"""

import queue
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

TIMEOUT, LOST, NOT_SUPPORTED, NOT_FOUND = 10, 15, 3, 6


class FakeNvmlError(Exception):
    """As pynvml.NVMLError: ``value`` is the return code."""

    def __init__(self, value: int) -> None:
        super().__init__({LOST: "GPU is lost", NOT_SUPPORTED: "Not Supported"}.get(value, "Error"))
        self.value = value


@dataclass
class Wire:
    """One NVLink."""

    remote: str = "switch"
    """"switch", or the PCI address of a GPU."""
    version: int = 6
    active: bool = True


@dataclass
class Gpu:
    """One GPU, or MIG instance; None in a field means: not supported."""

    uuid: str
    bus: str = "00000000:01:00.0"
    name: str = "NVIDIA H100 80GB HBM3"
    memory: int = 80 << 30
    used: int = 1 << 30
    minor: int = 0
    wires: list[Wire] = field(default_factory=list)
    mig: "list[Gpu] | None" = None
    instance: tuple[int, int] = (0, 0)
    rows: tuple[int, int, int, int] | None = (0, 0, 0, 0)
    ecc: tuple[int, int] | None = (0, 0)
    temperature: int | None = 35
    power: int | None = 100_000
    clocks: tuple[int, int] | None = (1980, 2619)
    reasons: int | None = 0x1
    recovery: int | None = 0
    clique: tuple[bytes, int, int] | None = None
    """Cluster, clique, state."""
    lost: bool = False
    numa: int = 0


class FakeNvml:
    """A machine with some GPUs. ``report`` makes its driver report an Xid."""

    NVMLError = FakeNvmlError

    def __init__(
        self, gpus: Sequence[Gpu], levels: dict[frozenset[str], int] | None = None
    ) -> None:
        self.gpus = list(gpus)
        self.levels = levels or {}
        self.events: queue.Queue[Any] = queue.Queue()
        self.registered: list[str] = []
        self.closed = False

    def report(self, gpu: Gpu, xid: int) -> None:
        self.events.put(SimpleNamespace(device=gpu.uuid, eventType=0x8, eventData=xid))

    def _gpu(self, handle: str) -> Gpu:
        for gpu in self.gpus:
            for one in (gpu, *(gpu.mig or ())):
                if one.uuid == handle:
                    if gpu.lost:
                        raise FakeNvmlError(LOST)
                    return one
        raise FakeNvmlError(2)

    def _supported(self, value: Any) -> Any:
        if value is None:
            raise FakeNvmlError(NOT_SUPPORTED)
        return value

    def nvmlInit(self) -> None:
        return None

    def nvmlDeviceGetCount(self) -> int:
        if self.closed:
            raise FakeNvmlError(1)
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        if self.gpus[index].lost:
            raise FakeNvmlError(LOST)
        return self.gpus[index].uuid

    def nvmlDeviceGetUUID(self, handle: str) -> str:
        return self._gpu(handle).uuid

    def nvmlDeviceGetName(self, handle: str) -> str:
        return self._gpu(handle).name

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> Any:
        gpu = self._gpu(handle)
        return SimpleNamespace(total=gpu.memory, used=gpu.used, free=gpu.memory - gpu.used)

    def nvmlDeviceGetPciInfo(self, handle: str) -> Any:
        return SimpleNamespace(busId=self._gpu(handle).bus.encode())

    def nvmlDeviceGetMinorNumber(self, handle: str) -> int:
        return self._gpu(handle).minor

    def nvmlDeviceGetMigMode(self, handle: str) -> list[int]:
        gpu = self._gpu(handle)
        return [int(gpu.mig is not None), int(gpu.mig is not None)]

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: str) -> int:
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: str, index: int) -> str:
        parts = self._gpu(handle).mig or []
        if index >= len(parts):
            raise FakeNvmlError(NOT_FOUND)
        return parts[index].uuid

    def nvmlDeviceGetGpuInstanceId(self, handle: str) -> int:
        return self._gpu(handle).instance[0]

    def nvmlDeviceGetComputeInstanceId(self, handle: str) -> int:
        return self._gpu(handle).instance[1]

    def _wire(self, handle: str, link: int) -> Wire:
        wires = self._gpu(handle).wires
        if link >= len(wires):
            raise FakeNvmlError(2 if wires else NOT_SUPPORTED)
        return wires[link]

    def nvmlDeviceGetNvLinkState(self, handle: str, link: int) -> int:
        return int(self._wire(handle, link).active)

    def nvmlDeviceGetNvLinkVersion(self, handle: str, link: int) -> int:
        return self._wire(handle, link).version

    def nvmlDeviceGetNvLinkRemoteDeviceType(self, handle: str, link: int) -> int:
        return 2 if self._wire(handle, link).remote == "switch" else 0

    def nvmlDeviceGetNvLinkRemotePciInfo(self, handle: str, link: int) -> Any:
        return SimpleNamespace(busId=self._wire(handle, link).remote.encode())

    def nvmlDeviceGetTopologyCommonAncestor(self, one: str, other: str) -> int:
        return self.levels.get(frozenset((one, other)), 50)

    def nvmlDeviceGetRemappedRows(self, handle: str) -> Sequence[int]:
        return self._supported(self._gpu(handle).rows)

    def nvmlDeviceGetRetiredPagesPendingStatus(self, handle: str) -> int:
        raise FakeNvmlError(NOT_SUPPORTED)

    def nvmlDeviceGetTotalEccErrors(self, handle: str, kind: int, counter: int) -> int:
        assert counter == 0
        return self._supported(self._gpu(handle).ecc)[kind]

    def nvmlDeviceGetTemperature(self, handle: str, sensor: int) -> int:
        return self._supported(self._gpu(handle).temperature)

    def nvmlDeviceGetPowerUsage(self, handle: str) -> int:
        return self._supported(self._gpu(handle).power)

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: str) -> int:
        return 700_000

    def nvmlDeviceGetUtilizationRates(self, handle: str) -> Any:
        if self._gpu(handle).mig is not None:
            raise FakeNvmlError(NOT_SUPPORTED)
        return SimpleNamespace(gpu=87, memory=40)

    def nvmlDeviceGetClockInfo(self, handle: str, clock: int) -> int:
        return self._supported(self._gpu(handle).clocks)[clock - 1]

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: str) -> int:
        return self._supported(self._gpu(handle).reasons)

    def nvmlDeviceGetGpuFabricInfoV(self, handle: str, info: Any) -> int:
        info.clusterUuid, info.cliqueId, info.state = self._supported(self._gpu(handle).clique)
        info.status = 0
        return 0

    def nvmlDeviceGetFieldValues(self, handle: str, fields: Sequence[int]) -> Any:
        gpu = self._gpu(handle)

        def value(number: int) -> Any:
            if number == 230:
                answer = SimpleNamespace(uiVal=gpu.recovery)
                return SimpleNamespace(nvmlReturn=3 if gpu.recovery is None else 0, value=answer)
            return SimpleNamespace(nvmlReturn=0, value=SimpleNamespace(ullVal=number))

        return [value(number) for number in fields]

    def nvmlEventSetCreate(self) -> Any:
        return "events"

    def nvmlDeviceRegisterEvents(self, handle: str, types: int, events: Any) -> None:
        self._gpu(handle)
        self.registered.append(handle)

    def nvmlEventSetWait_v2(self, events: Any, milliseconds: int) -> Any:
        try:
            return self.events.get(timeout=milliseconds / 1000)
        except queue.Empty:
            raise FakeNvmlError(TIMEOUT) from None
