"""Faults become health: at once when they come, later when they go."""

from drakkar_gpu import health
from drakkar_gpu.devices.base import Device, Fault, Severity
from drakkar_gpu.health import Health, blind, look

DEVICES = tuple(Device(f"d{i}", i, "M", 1 << 30) for i in range(3))
XID = Fault("d1", "xid-79", "fell off the bus", Severity.FATAL)


def codes(state: Health) -> dict[str, str]:
    return {name: fault.code for name, fault in state.faults.items()}


def seen(*faults: Fault, before: Health | None = None, now: float = 0.0) -> Health:
    return look(before or Health(), DEVICES, faults, now, settle=10.0)


def test_a_fault_counts_at_once_and_the_worst_is_kept() -> None:
    thermal = Fault("d1", "thermal", "95 C")
    for order in ((XID, thermal), (thermal, XID)):
        assert codes(seen(*order)) == {"d1": "xid-79"}


def test_a_warning_is_kept_apart() -> None:
    note = Fault("d1", "xid-13", "a program's own doing", Severity.WARNING)
    state = seen(note)
    assert codes(state) == {}
    assert state.warnings == (note,)


def test_a_device_recovers_when_its_fault_has_been_gone_for_long_enough() -> None:
    state = seen(XID)
    state = seen(before=state, now=5.0)
    assert codes(state) == {"d1": "xid-79"}
    state = seen(before=state, now=14.9)
    assert codes(state) == {"d1": "xid-79"}
    state = seen(before=state, now=15.0)
    assert codes(state) == {}


def test_a_fault_that_comes_back_starts_the_wait_anew() -> None:
    state = seen(before=seen(XID), now=5.0)
    state = seen(XID, before=state, now=10.0)
    state = seen(before=state, now=16.0)
    assert codes(state) == {"d1": "xid-79"}
    assert codes(seen(before=state, now=26.0)) == {}


def test_a_device_that_is_not_listed_any_more_is_lost_and_kept() -> None:
    state = look(seen(), DEVICES[:2], (), 1.0, settle=10.0)
    assert [device.id for device in state.devices] == ["d0", "d1", "d2"]
    assert state.faults["d2"].code == health.LOST
    assert state.faults["d2"].severity == Severity.FATAL
    state = look(state, DEVICES, (), 2.0, settle=0.0)
    assert codes(state) == {}


def test_a_partition_is_as_ill_as_its_device() -> None:
    part = Device("p", 1, "M", 1 << 29, parent="d1", profile="1g")
    state = look(Health(), [*DEVICES, part], [XID], 0.0, settle=0.0)
    assert not state.healthy(part)
    assert state.healthy(DEVICES[0])


def test_devices_that_cannot_be_looked_at_are_not_trusted() -> None:
    state = blind(seen(XID), "NVML: driver not loaded")
    assert codes(state) == {"d0": "unreadable", "d1": "xid-79", "d2": "unreadable"}
    assert codes(seen(before=state, now=1.0)) == codes(state), "waits as after any other fault"
    assert codes(seen(before=seen(before=state, now=1.0), now=11.0)) == {}
