"""Processes are found again, and nobody else's is ever touched."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from drakkar.local.errors import ClusterError
from drakkar.local.process import ProcessTable, children, run, started_at, wait_until


@pytest.fixture
def table(tmp_path: Path) -> ProcessTable:
    return ProcessTable(tmp_path / "run", tmp_path / "logs")


def test_a_process_is_started_once_found_again_and_stopped(
    table: ProcessTable, tmp_path: Path
) -> None:
    pid = table.start("sleeper", ["sleep", "60"])
    again = ProcessTable(tmp_path / "run", tmp_path / "logs")
    assert again.start("sleeper", ["sleep", "60"]) == pid
    assert [record.name for record in again.records()] == ["sleeper"]
    again.stop("sleeper")
    assert started_at(pid) is None
    assert again.records() == []
    again.stop("sleeper")


def test_what_ignores_the_request_to_end_is_killed(table: ProcessTable) -> None:
    script = "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=1)"
    pid = table.start("deaf", ["python3", "-c", script + "; time.sleep(60)"])
    wait_until(lambda: table.log("deaf").read_text() != "", seconds=10, what="The start")
    table.stop("deaf", grace_seconds=0.1)
    assert started_at(pid) is None


def test_a_process_that_took_over_an_id_is_left_alone(table: ProcessTable, tmp_path: Path) -> None:
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        table.start("ours", ["sleep", "60"])
        path = tmp_path / "run/ours.json"
        record = json.loads(path.read_text())
        table.stop("ours", grace_seconds=0)
        path.write_text(json.dumps(record | {"pid": stranger.pid, "started": 1}))
        assert table.pid("ours") is None
        table.stop("ours", grace_seconds=0)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_records_of_an_earlier_boot_are_dead(table: ProcessTable, tmp_path: Path) -> None:
    table.start("sleeper", ["sleep", "60"])
    path = tmp_path / "run/sleeper.json"
    kept = path.read_text()
    path.write_text(json.dumps(json.loads(kept) | {"boot": "another"}))
    assert table.pid("sleeper") is None
    path.write_text(kept)
    table.stop("sleeper")


def test_the_program_in_a_wrapper_is_what_is_recorded(table: ProcessTable) -> None:
    pid = table.start("inner", ["sh", "-c", "sleep 60; true"], wrapped=True)
    program = Path(f"/proc/{pid}/comm")
    wait_until(lambda: program.read_text() == "sleep\n", seconds=10, what="The program")
    assert pid not in children(os.getpid())
    table.stop("inner", grace_seconds=0)


def test_a_start_that_fails_says_why(table: ProcessTable) -> None:
    with pytest.raises(ClusterError, match="'no-such-program' is missing"):
        table.start("absent", ["no-such-program"])
    with pytest.raises(ClusterError, match="broken did not start: its reason"):
        table.start("broken", ["sh", "-c", "echo its reason >&2; exit 3"], wrapped=True)


def test_a_zombie_has_ended() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert started_at(child) is None


def test_commands_that_fail_are_quoted() -> None:
    with pytest.raises(ClusterError, match="'sh -c echo no >&2; exit 1' failed: no"):
        run(["sh", "-c", "echo no >&2; exit 1"])
    assert run(["sh", "-c", "echo yes; exit 1"], check=False) == "yes\n"


def test_waiting_ends(table: ProcessTable) -> None:
    with pytest.raises(ClusterError, match=r"The thing did not happen within 0 s\."):
        wait_until(lambda: False, seconds=0, what="The thing")
