"""Simulated devices are linked as their specification says and break on command."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drakkar import catalogue, quantity
from drakkar_gpu.devices.base import LinkKind, Severity, VendorError
from drakkar_gpu.devices.simulated import Simulated, SimulatedSpec
from drakkar_gpu.links import groups, link_matrix


def vendor(faults: Path | None = None, **spec: object) -> Simulated:
    return Simulated(SimulatedSpec.model_validate(spec), node="n1", faults=faults)


def sizes(made: Simulated, kind: LinkKind) -> list[int]:
    return [len(g) for g in groups(link_matrix(made.devices(), made.links()), kind)]


@pytest.mark.parametrize(
    ("fabric", "expected"),
    [("switch", [8]), ("groups", [4, 4]), ("pairs", [2] * 4), ("none", [1] * 8)],
)
def test_fabric(fabric: str, expected: list[int]) -> None:
    assert sizes(vendor(fabric=fabric), LinkKind.FABRIC) == expected


def test_without_fabric_there_are_switches_bridges_and_numa_nodes() -> None:
    made = vendor(fabric="none", count=16)
    assert sizes(made, LinkKind.SWITCH) == [2] * 8
    assert sizes(made, LinkKind.BRIDGE) == [4] * 4
    assert sizes(made, LinkKind.NUMA) == [8, 8]
    assert sizes(made, LinkKind.SYSTEM) == [16]


def test_a_device_whose_link_is_down_is_on_no_fabric(tmp_path: Path) -> None:
    file = tmp_path / "faults.json"
    file.write_text('[{"device": "2", "code": "link-down"}]')
    assert sorted(sizes(vendor(file), LinkKind.FABRIC)) == [1, 7]


def test_faults_name_devices_by_index_or_id(tmp_path: Path) -> None:
    file = tmp_path / "faults.json"
    file.write_text(
        '[{"device": "2", "code": "xid-79"},'
        ' {"device": "SIM-n1-3", "code": "thermal", "message": "95 C"}]'
    )
    assert [(f.device, f.code, f.message, f.severity) for f in vendor(file).faults()] == [
        ("SIM-n1-2", "xid-79", "injected", Severity.FATAL),
        ("SIM-n1-3", "thermal", "95 C", Severity.UNHEALTHY),
    ]


def test_no_file_means_no_faults(tmp_path: Path) -> None:
    assert vendor(tmp_path / "none").faults() == []


@pytest.mark.parametrize(
    "text", ["", "{", "{}", "3", '[{"device": "2"}]', '[{"device": "9", "code": "x"}]', '["x"]']
)
def test_a_wrong_file_is_an_error_that_names_it(tmp_path: Path, text: str) -> None:
    file = tmp_path / "faults.json"
    file.write_text(text)
    made = vendor(file)
    if text == "{}":
        assert made.faults() == []
    else:
        with pytest.raises(VendorError, match=r"faults\.json"):
            made.faults()


@given(st.binary(max_size=60))
def test_any_file_gives_faults_or_a_vendor_error(tmp_path_factory: object, text: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "any.json"  # type: ignore[attr-defined]
    file.write_bytes(text)
    with contextlib.suppress(VendorError):
        vendor(file).faults()


def test_a_chip_of_the_catalogue_brings_its_memory_and_links() -> None:
    for fabric, part in (("switch", 1), ("groups", 3), ("pairs", 1)):
        made = vendor(model="NVIDIA H100 80GB HBM3", fabric=fabric)
        chip = catalogue.find("NVIDIA H100 80GB HBM3")
        assert chip is not None
        assert chip.memory is not None
        assert chip.fabric_gbps is not None
        assert made.devices()[0].memory_bytes == quantity.amount("memory", chip.memory)
        gbps = next(link.gbps for link in made.links() if link.kind == LinkKind.FABRIC)
        assert gbps == pytest.approx(chip.fabric_gbps / part)
    assert vendor(model="NVIDIA H100 80GB HBM3", memoryGib=7).devices()[0].memory_bytes == 7 << 30
