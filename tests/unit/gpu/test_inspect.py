"""What ``python -m drakkar_gpu list|links|faults|metrics`` shows."""

import json

import pytest
from rich.console import Console

from drakkar_gpu import inspect
from drakkar_gpu.devices import detect
from drakkar_gpu.devices.base import VendorError
from drakkar_gpu.devices.simulated import Simulated, SimulatedSpec


@pytest.fixture
def show(capsys):
    def run(*argv: str) -> tuple[int, str, str]:
        status = inspect.main(argv, Console(width=200, color_system=None))
        out, err = capsys.readouterr()
        return status, out, err

    return run


def test_devices_with_what_the_catalogue_knows(show, monkeypatch):
    spec = SimulatedSpec(model="NVIDIA H100 80GB HBM3", count=2)
    monkeypatch.setattr(detect, "present", lambda **_: [Simulated(spec, node="n")])
    status, out, err = show("list")
    assert status == 0 and not err
    lines = out.splitlines()
    assert lines[0].split()[:5] == ["VENDOR", "INDEX", "MODEL", "MEMORY", "BF16"]
    assert "NVIDIA H100 80GB HBM3" in lines[1] and "80Gi" in lines[1] and " 989 " in lines[1]
    assert "ok" in lines[1] and lines[2].rstrip().endswith("SIM-n-1") and len(lines) == 3


def test_a_peak_that_nobody_confirmed_has_a_question_mark(show, monkeypatch):
    spec = SimulatedSpec(model="NVIDIA L40", count=1)
    monkeypatch.setattr(detect, "present", lambda **_: [Simulated(spec, node="n")])
    _, out, _ = show("list")
    assert " 181? " in out


def test_json_is_for_programs(show):
    status, out, _ = show("list", "--vendor", "simulated", "-o", "json")
    rows = json.loads(out)
    assert status == 0 and len(rows) == 8
    assert rows[3]["index"] == 3 and rows[3]["fault"] is None and rows[3]["vendor"] == "simulated"


def test_links_faults_and_metrics(show, monkeypatch, tmp_path):
    (tmp_path / "f").write_text('[{"device": "1", "code": "xid-79", "message": "gone"}]')
    vendor = Simulated(SimulatedSpec(count=2), node="n", faults=tmp_path / "f")
    monkeypatch.setattr(detect, "present", lambda **_: [vendor])
    assert "fabric" in show("links")[1] and "3600" in show("links")[1]
    _, out, _ = show("faults")
    assert "xid-79" in out and "fatal" in out and "gone" in out
    assert "xid-79" in show("list")[1]
    assert "memory_total_bytes" in show("metrics")[1]


def test_nothing_here(show, monkeypatch):
    monkeypatch.setattr(detect, "present", lambda **_: [])
    status, out, err = show("list")
    assert status == inspect.NOTHING and not out
    assert err.startswith("error: no accelerator is seen here") and "--vendor NAME" in err


def test_one_vendor_that_fails_does_not_hide_the_others(show, monkeypatch):
    class Broken(Simulated):
        def devices(self):
            raise VendorError("npu-smi info: exit status 9: no driver")

    vendors = [Broken(SimulatedSpec(), node="a"), Simulated(SimulatedSpec(count=1), node="b")]
    monkeypatch.setattr(detect, "present", lambda **_: vendors)
    status, out, err = show("list")
    assert status == 1 and "SIM-b-0" in out
    assert err == "error: npu-smi info: exit status 9: no driver\n"


def test_a_forced_vendor_says_what_is_missing(show):
    status, _, err = show("list", "--vendor", "cambricon")
    assert status == 1 and "cnmon is not installed: not on PATH" in err


def test_no_faults_and_unknown_vendors(show, capsys):
    assert show("faults", "--vendor", "simulated")[1].strip() == "No faults."
    with pytest.raises(SystemExit):
        show("list", "--vendor", "ati")
    assert "invalid choice: 'ati'" in capsys.readouterr().err
