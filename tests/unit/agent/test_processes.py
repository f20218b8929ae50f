"""Real processes below an agent's Processes, without an agent."""

import subprocess
import sys

import pytest

SCRIPT = """
import asyncio, os, signal, sys, time
from pathlib import Path
from drakkar_workers.agent.processes import Processes, _children

folder = Path(sys.argv[1])

def gone(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"

async def until(condition):
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)

async def main():
    command = ["/bin/sh", "-c", sys.argv[2]]
    processes = Processes(command, dict(os.environ), lambda: None, lambda: None)
    processes.open()
    try:
        await until(lambda: processes.ready)
        processes.spawn(1, {0: {"FOLDER": str(folder)}})
        await until(lambda: (folder / "pid").exists() and (folder / "pid").read_text().strip())
        pid = int((folder / "pid").read_text())
        assert not gone(pid)
        first = processes._server.pid
        os.kill(first, signal.SIGKILL)
        await until(lambda: not processes.alive)
        assert not processes.ready
        await until(lambda: processes.ready)
        assert gone(pid), "it runs beside the next epoch"
        assert processes._server.pid != first
        assert _children() == {processes._server.pid}
    finally:
        await processes.close()

asyncio.run(main())
"""
INSIDE = "sleep 300 & echo $! > $FOLDER/pid; wait"
OUTSIDE = "setsid sh -c 'setsid sleep 300 & echo $! > $FOLDER/pid; wait' & wait"


@pytest.mark.parametrize("command", [INSIDE, OUTSIDE], ids=["its group", "a session of its own"])
def test_nothing_of_lost_trainers_is_left_for_the_next_epoch(command, tmp_path) -> None:
    # In a process of its own: it adopts orphans and kills all its children.
    subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path), command], check=True, timeout=60)
