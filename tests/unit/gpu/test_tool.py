"""Vendors' programs are run with limits, and a vendor that hangs stops nobody."""

import os
import threading
import time
from pathlib import Path

import pytest

from drakkar_gpu.devices import tool
from drakkar_gpu.devices.base import VendorError
from drakkar_gpu.devices.bounded import Bounded
from drakkar_gpu.devices.detect import VENDORS, hardware, make
from drakkar_gpu.devices.simulated import Simulated, SimulatedSpec
from drakkar_gpu.devices.tool import Tool, read

from support.systree import pci  # isort: skip


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Writes a program by name and puts it on PATH."""
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    def write(name: str, script: str) -> Path:
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    return write


def test_arguments_reach_the_program_as_they_are(program):
    program("smi", 'printf "%s|" "$@"; echo "$LC_ALL"')
    assert Tool("smi")("-q", "a b", "$(id)", ";") == "-q|a b|$(id)|;|C\n"


def test_a_program_that_is_missing(tmp_path):
    with pytest.raises(VendorError, match="no-such-smi is not installed: not on PATH, nor at /x/y"):
        Tool("no-such-smi", paths=("/x/y",))("info")


def test_it_is_found_elsewhere(program):
    path = program("smi", "echo here")
    assert Tool("not-on-path", paths=("/absent", str(path)))() == "here\n"


@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        ("echo no driver >&2; exit 9", "smi info: exit status 9: no driver"),
        ("echo on standard output; exit 3", "exit status 3: on standard output"),
        ("exit 1", "exit status 1: no message"),
        ("kill -SEGV $$", "exit status -11: no message"),
    ],
)
def test_a_failure_says_what_the_program_said(program, script, complaint):
    program("smi", script)
    with pytest.raises(VendorError, match=complaint):
        Tool("smi")("info")


def test_not_executable_by_its_format(program, tmp_path):
    path = program("smi", "")
    path.write_bytes(b"\x7fELF garbage")
    with pytest.raises(VendorError, match=r"^smi: "):
        Tool("smi")()


def test_bytes_that_are_no_text(program):
    program("smi", r"printf '\377\376\0 ok'")
    assert Tool("smi")() == "��\0 ok"


def test_a_program_that_hangs_is_ended_with_its_children(program, tmp_path):
    program("smi", f"sleep 300 & echo $! > {tmp_path}/child; wait")
    started = time.monotonic()
    with pytest.raises(VendorError, match=r"smi: no answer within 0\.5 s"):
        Tool("smi", timeout=0.5)()
    assert time.monotonic() - started < 60
    child = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 30
    while Path(f"/proc/{child}/stat").exists() and time.monotonic() < deadline:
        if Path(f"/proc/{child}/stat").read_text().split()[2] == "Z":
            break
        time.sleep(0.01)
    else:
        assert not Path(f"/proc/{child}/stat").exists()


def test_one_that_can_not_be_ended_is_not_started_twice(program, monkeypatch):
    starts = program("smi", "echo x >> $0.starts; sleep 300").with_name("smi.starts")
    hangs = Tool("smi", timeout=0.5)
    kill, killed = os.killpg, []
    monkeypatch.setattr(tool.os, "killpg", lambda pid, _: killed.append(pid))
    try:
        with pytest.raises(VendorError, match="no answer"):
            hangs()
        with pytest.raises(VendorError, match=rf"an earlier call \(pid {killed[0]}\) still hangs"):
            hangs()
    finally:
        for pid in killed:
            kill(pid, 9)
        if hangs._hanging is not None:
            hangs._hanging.wait(60)
    assert starts.read_text() == "x\n"


def test_too_much_output(program, monkeypatch):
    monkeypatch.setattr(tool, "MAX_OUTPUT", 1 << 20)
    program("smi", "yes")
    with pytest.raises(VendorError, match="printed more than 1 MiB"):
        Tool("smi")()


def test_small_files(tmp_path):
    (tmp_path / "a").write_bytes(b" 7\xff\n")
    assert read(tmp_path / "a") == "7�"
    assert read(tmp_path / "absent") is None and read(tmp_path) is None
    (tmp_path / "big").write_text("x" * 100)
    assert read(tmp_path / "big", limit=10) == "x" * 10


class Slow(Simulated):
    """Answers when it is let."""

    def __init__(self) -> None:
        super().__init__(SimulatedSpec(count=1), node="n")
        self.let = threading.Event()
        self.calls = 0

    def faults(self):
        self.calls += 1
        self.let.wait(60)
        return super().faults()


def test_a_vendor_that_hangs_fails_in_time_and_comes_back():
    slow = Slow()
    bounded = Bounded(slow, seconds=0.2)
    assert len(bounded.devices()) == 1 and bounded.resource == "drakkar.dev/gpu"
    with pytest.raises(VendorError, match=r"simulated: no answer to faults within 0\.2 s"):
        bounded.faults()
    with pytest.raises(VendorError, match="an earlier call still hangs"):
        bounded.devices()
    assert slow.calls == 1
    slow.let.set()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            assert bounded.faults() == []
            break
        except VendorError:
            time.sleep(0.01)
    else:
        pytest.fail("it never came back")


def test_errors_pass_through_the_bound(tmp_path):
    (tmp_path / "faults").write_text("{")
    vendor = Bounded(Simulated(SimulatedSpec(), node="n", faults=tmp_path / "faults"))
    with pytest.raises(VendorError, match="is no list of faults"):
        vendor.faults()


def test_hardware_by_its_pci_ids(tmp_path):
    for at, (vendor, device, kind) in enumerate(
        [
            ("0x19e5", "0xd802", "0x120000"),
            ("0x10de", "0x2330", "0x030200"),
            ("0x10de", "0x22a3", "0x068000"),  # an NVSwitch
            ("0x8086", "0x0000", "0x030000"),
            ("0x1002", "0x74a1", "0x038000"),
            ("0x1002", "0x13c0", "0x030000"),  # a screen's
            ("0x1ae0", "0x0042", "0x020000"),  # a network card
            ("0x1ae0", "0x0063", "0x088000"),
            ("0x1d0f", "0x7364", "0x088000"),
            ("0x1d0f", "0x8061", "0x010802"),  # a disk
            ("what", "0x0000", "0x030000"),
        ]
    ):
        way = f"pci0000:00/0000:00:{at:02x}.0"
        pci(tmp_path, way, vendor=vendor, device=device, **{"class": kind})
    assert hardware(tmp_path) == {
        "nvidia": ["0000:00:01.0"],
        "amd": ["0000:00:04.0"],
        "ascend": ["0000:00:00.0"],
        "tpu": ["0000:00:07.0"],
        "neuron": ["0000:00:08.0"],
    }
    (tmp_path / "class/kfd/kfd/topology/nodes").mkdir(parents=True)
    assert hardware(tmp_path)["amd"] == ["0000:00:04.0", "0000:00:05.0"]
    assert hardware(tmp_path / "absent") == {}


def test_vendors_by_name():
    assert [vendor.name for vendor in make(["tpu", "amd"])] == ["tpu", "amd"]
    with pytest.raises(VendorError, match="no vendor 'ati'; there are nvidia, amd, ascend"):
        make(["ati"])
    assert next(iter(VENDORS)) == "nvidia"
