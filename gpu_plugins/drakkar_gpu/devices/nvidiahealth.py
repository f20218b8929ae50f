"""What is wrong with an NVIDIA GPU, from its state in NVML and from the Xids of its driver."""

import ctypes
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from drakkar_gpu.devices import nvml as api
from drakkar_gpu.devices.base import Device, Fault, Severity
from drakkar_gpu.devices.nvml import Handle, Nvml
from drakkar_gpu.devices.xid import classify

WARNING_SECONDS = 600.0
"""For so long an Xid that asks for nothing is worth a look."""
SETTLE_SECONDS = 60.0
"""For so long after an Xid a driver that asks for no recovery may still be finding out."""
MAX_EVENTS = 64


@dataclass(frozen=True, slots=True)
class Event:
    """An Xid that the driver reported."""

    xid: int
    at: float
    """Epoch seconds."""


class Events:
    """Collects Xids in a thread of its own: NVML tells them once, to who waits for them."""

    def __init__(self, nvml: Nvml, handles: Sequence[Handle], clock: Callable[[], float]) -> None:
        self._nvml = nvml
        self._clock = clock
        self._lock = threading.Lock()
        self._found: dict[Any, list[Event]] = {}
        self._set = nvml.nvmlEventSetCreate()
        self._stop = threading.Event()
        for handle in handles:
            try:
                nvml.nvmlDeviceRegisterEvents(handle, api.EVENT_XID, self._set)
            except nvml.NVMLError as error:
                # GPUs of before Kepler, and some virtual ones, have no events.
                if _code(error) not in api.NOT_SUPPORTED:
                    raise

    def start(self) -> None:
        """Collect until the process ends."""
        threading.Thread(target=self._run, name="nvidia-xids", daemon=True).start()

    def _run(self) -> None:
        while not self._stop.is_set():
            if not self.collect(1000):
                self._stop.wait(5.0)

    def stop(self) -> None:
        """Collect no more."""
        self._stop.set()

    def collect(self, milliseconds: int) -> bool:
        """Wait for one event. False if NVML can't tell: a GPU is lost, or the driver unloaded."""
        try:
            data = self._nvml.nvmlEventSetWait_v2(self._set, milliseconds)
        except self._nvml.NVMLError as error:
            return _code(error) == api.ERROR_TIMEOUT
        if data.eventType == api.EVENT_XID:
            with self._lock:
                found = self._found.setdefault(_key(data.device), [])
                found.append(Event(int(data.eventData), self._clock()))
                del found[:-MAX_EVENTS]
        return True

    def of(self, handle: Handle, *, recovery: int | None = None) -> list[Event]:
        """The Xids of a GPU that still count, the newest of each number.

        ``recovery`` is what the driver asks for (0: nothing), None if it does not say: then an Xid
        that asks for a repair counts until this process starts anew.
        """
        now = self._clock()
        with self._lock:
            found = self._found.get(_key(handle), [])
            found[:] = [event for event in found if _counts(event, now, recovery)]
            return list({event.xid: event for event in found}.values())


def _counts(event: Event, now: float, recovery: int | None) -> bool:
    age = now - event.at
    if classify(event.xid).severity is Severity.WARNING:
        return age < WARNING_SECONDS
    return recovery != 0 or age < SETTLE_SECONDS


def recovery_action(nvml: Nvml, handle: Handle) -> int | None:
    """What the driver asks for to repair the GPU: 0 is nothing; None if it does not say."""
    try:
        (value,) = nvml.nvmlDeviceGetFieldValues(handle, (api.FIELD_RECOVERY_ACTION,))
    except nvml.NVMLError as error:
        if _code(error) in api.NOT_SUPPORTED:
            return None
        raise
    return int(value.value.uiVal) if value.nvmlReturn == 0 else None


def device_faults(
    nvml: Nvml,
    handle: Handle,
    device: Device,
    *,
    links: tuple[int, int],
    events: Events | None = None,
) -> list[Fault]:
    """All that is wrong with a GPU.

    ``links``: how many of its NVLinks work, and the most that worked on a GPU of its model here.
    """
    try:
        recovery = recovery_action(nvml, handle)
        found = list(_state(nvml, handle, device.id, links))
    except nvml.NVMLError as error:
        if _code(error) not in api.GONE:
            raise
        recovery = None
        lost = "lost" if _code(error) == api.ERROR_LOST else "reset-required"
        found = [Fault(device.id, lost, f"NVML: {error}", Severity.FATAL)]
    if recovery:
        action = api.RECOVERY_ACTIONS.get(recovery, f"action {recovery}")
        found.append(Fault(device.id, "recovery", f"the driver asks to {action}", Severity.FATAL))
    for event in events.of(handle, recovery=recovery) if events else ():
        kind = classify(event.xid)
        message = f"Xid {event.xid}: {kind.meaning}; NVIDIA's answer: {kind.answer}"
        found.append(Fault(device.id, f"xid-{event.xid}", message, kind.severity, event.at))
    return found


def _state(nvml: Nvml, handle: Handle, device: str, links: tuple[int, int]) -> Iterable[Fault]:
    def ask(call: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return call(handle, *arguments)
        except nvml.NVMLError as error:
            if _code(error) in api.NOT_SUPPORTED:
                return None
            raise

    rows = ask(nvml.nvmlDeviceGetRemappedRows)
    if rows is not None:
        corrected, uncorrected, pending, failure = rows
        so_far = f"{uncorrected} rows remapped for uncorrectable errors, {corrected} for others"
        if failure:
            message = f"row remapping failed; {so_far}"
            yield Fault(device, "row-remap-failure", message, Severity.FATAL)
        if pending:
            message = f"rows await remapping at the next reset; {so_far}"
            yield Fault(device, "row-remap-pending", message)
    elif ask(nvml.nvmlDeviceGetRetiredPagesPendingStatus):
        yield Fault(device, "page-retirement-pending", "pages await retirement at the next reset")
    errors = ask(nvml.nvmlDeviceGetTotalEccErrors, api.ECC_UNCORRECTED, api.ECC_VOLATILE)
    if errors:
        message = f"{errors} uncorrectable ECC errors since the driver was loaded"
        yield Fault(device, "ecc-uncorrectable", message)
    active, most = links
    if active < most:
        message = f"{active} of {most} NVLinks work"
        yield Fault(device, "link-down", message)
    reasons = ask(nvml.nvmlDeviceGetCurrentClocksEventReasons) or 0
    temperature = ask(nvml.nvmlDeviceGetTemperature, api.SENSOR_GPU)
    for bit, code, severity in (
        (0x40, "thermal", Severity.UNHEALTHY),
        (0x80, "power-brake", Severity.UNHEALTHY),
        (0x20, "thermal-limit", Severity.WARNING),
    ):
        if reasons & bit:
            message = f"clocks are lowered ({api.THROTTLE_REASONS[bit]}) at {temperature} °C"
            yield Fault(device, code, message, severity)


def _key(handle: Handle) -> Any:
    """The same for all pointers to one GPU: where they point."""
    if not isinstance(handle, ctypes._Pointer):
        return handle
    return ctypes.cast(handle, ctypes.c_void_p).value


def _code(error: Exception) -> int | None:
    value = getattr(error, "value", None)
    return value if isinstance(value, int) else None
