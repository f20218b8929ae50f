"""The part of NVML that is used, by the names of its Python binding (nvidia-ml-py)."""

from collections.abc import Sequence
from typing import Any, Protocol, cast

from drakkar_gpu.devices.base import VendorError

Handle = Any
"""An opaque pointer of NVML."""


class Nvml(Protocol):
    """What ``nvidia`` needs of the module pynvml; tests have a recorded one.

    Each function raises a subclass of ``NVMLError`` whose ``value`` is NVML's return code.
    """

    NVMLError: type[Exception]

    def nvmlInit(self) -> None: ...
    def nvmlDeviceGetCount(self) -> int: ...
    def nvmlDeviceGetHandleByIndex(self, index: int) -> Handle: ...
    def nvmlDeviceGetUUID(self, handle: Handle) -> str: ...
    def nvmlDeviceGetName(self, handle: Handle) -> str: ...
    def nvmlDeviceGetMemoryInfo(self, handle: Handle) -> Any: ...
    def nvmlDeviceGetPciInfo(self, handle: Handle) -> Any: ...
    def nvmlDeviceGetMinorNumber(self, handle: Handle) -> int: ...
    def nvmlDeviceGetMigMode(self, handle: Handle) -> Sequence[int]: ...
    def nvmlDeviceGetMaxMigDeviceCount(self, handle: Handle) -> int: ...
    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: Handle, index: int) -> Handle: ...
    def nvmlDeviceGetGpuInstanceId(self, handle: Handle) -> int: ...
    def nvmlDeviceGetComputeInstanceId(self, handle: Handle) -> int: ...
    def nvmlDeviceGetNvLinkState(self, handle: Handle, link: int) -> int: ...
    def nvmlDeviceGetNvLinkVersion(self, handle: Handle, link: int) -> int: ...
    def nvmlDeviceGetNvLinkRemoteDeviceType(self, handle: Handle, link: int) -> int: ...
    def nvmlDeviceGetNvLinkRemotePciInfo(self, handle: Handle, link: int) -> Any: ...
    def nvmlDeviceGetTopologyCommonAncestor(self, one: Handle, other: Handle) -> int: ...
    def nvmlDeviceGetRemappedRows(self, handle: Handle) -> Sequence[int]: ...
    def nvmlDeviceGetRetiredPagesPendingStatus(self, handle: Handle) -> int: ...
    def nvmlDeviceGetTotalEccErrors(self, handle: Handle, kind: int, counter: int) -> int: ...
    def nvmlDeviceGetTemperature(self, handle: Handle, sensor: int) -> int: ...
    def nvmlDeviceGetPowerUsage(self, handle: Handle) -> int: ...
    def nvmlDeviceGetEnforcedPowerLimit(self, handle: Handle) -> int: ...
    def nvmlDeviceGetUtilizationRates(self, handle: Handle) -> Any: ...
    def nvmlDeviceGetClockInfo(self, handle: Handle, clock: int) -> int: ...
    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: Handle) -> int: ...
    def nvmlDeviceGetGpuFabricInfoV(self, handle: Handle, info: Any) -> Any: ...
    def nvmlDeviceGetFieldValues(self, handle: Handle, fields: Sequence[int]) -> Any: ...
    def nvmlEventSetCreate(self) -> Any: ...
    def nvmlDeviceRegisterEvents(self, handle: Handle, types: int, events: Any) -> None: ...
    def nvmlEventSetWait_v2(self, events: Any, milliseconds: int) -> Any: ...


# Values of nvml.h that the decisions here rest on.
NOT_SUPPORTED = frozenset({2, 3, 4, 6, 13, 21, 25, 26, 27})
"""Invalid argument, not supported, no permission, not found, function not found, no data, argument
version mismatch, deprecated, not ready: the device has no such value, or does not tell us."""
ERROR_TIMEOUT = 10
ERROR_LOST = 15
GONE = frozenset({ERROR_LOST, 16})
"""The GPU is lost, or needs a reset before it answers again."""
START_AGAIN = frozenset({1, 9, 18, 999})
"""Uninitialized, driver not loaded, library and driver of different versions, unknown: the driver was
unloaded or updated, and NVML must be initialised anew."""
MAX_LINKS = 36
ECC_CORRECTED, ECC_UNCORRECTED = 0, 1
ECC_VOLATILE = 0
SENSOR_GPU = 0
CLOCK_SM, CLOCK_MEMORY = 1, 2
EVENT_XID = 0x8
FIELD_LINK_CRC_ERRORS, FIELD_LINK_REPLAYS, FIELD_LINK_RECOVERIES = 38, 52, 59
FIELD_RECOVERY_ACTION = 230
RECOVERY_ACTIONS = {
    1: "reset the GPU",
    2: "reboot the node",
    3: "drain its peers",
    4: "drain and reset it",
    5: "recover the IMEX domain",
}
THROTTLE_REASONS = {
    0x4: "power_cap",
    0x8: "hardware_slowdown",
    0x20: "thermal_software",
    0x40: "thermal_hardware",
    0x80: "power_brake",
}
"""Those that tell of trouble; idleness and settings of the clocks are none."""
FABRIC_COMPLETED = 3
REMOTE_GPU, REMOTE_SWITCH = 0, 2
LINK_GBPS = {1: 160.0, 2: 200.0, 3: 200.0, 4: 200.0, 5: 200.0, 6: 200.0, 7: 400.0, 8: 800.0}
"""By NVML's number of the NVLink version: one link in one direction (NVLink 1: 20 GB/s, 2 to 4:
25 GB/s, 5: 50 GB/s, 6: 100 GB/s; NVIDIA's NVLink product page)."""
TOPOLOGY_SWITCH, TOPOLOGY_BRIDGE, TOPOLOGY_NODE = 20, 30, 40
"""Common ancestors up to: several PCIe switches, one host bridge, one NUMA node."""


def load() -> Nvml:
    """The real one, initialised. Raises VendorError if there is no library or no driver."""
    try:
        import pynvml
    except ImportError as error:
        raise VendorError(
            "nvidia: the package nvidia-ml-py is missing: install drakkar[gpu]"
        ) from error
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise VendorError(f"nvidia: NVML does not start: {error}") from error
    return cast(Nvml, pynvml)


def fabric_info() -> Any:
    """An empty structure for nvmlDeviceGetGpuFabricInfoV to fill."""
    import pynvml

    info = pynvml.c_nvmlGpuFabricInfo_v2_t()
    info.version = pynvml.nvmlGpuFabricInfo_v2
    return info
