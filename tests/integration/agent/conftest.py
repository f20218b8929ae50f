"""A gang of real agents on loopback addresses, one per replica."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from drakkar.protocol import GangConfig, Report

FAKE_TRAINER = Path(__file__).with_name("fake_trainer.py")


def process_table() -> dict[int, tuple[int, str, str]]:
    """pid -> (parent, state, command line), of all processes."""
    table = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            fields = (path / "stat").read_text().rpartition(")")[2].split()
            command = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        table[int(path.name)] = (int(fields[1]), fields[0], command)
    return table


class GangHarness:
    """Starts, hurts and watches the agents of one gang."""

    def __init__(self, folder: Path, replicas: int, *, recipe: str | None = None, **gang) -> None:
        self.folder = folder
        # Hypothesis seeds the module's generator: its ports would be those of any other run.
        base = random.SystemRandom().randrange(20000, 30000)
        self.config = GangConfig(
            job="test",
            namespace="default",
            uid=uuid.uuid4().hex,
            replicas=replicas,
            coordinator="127.0.0.1",
            agent_port=base,
            rendezvous_port=base + 1,
            recipe=recipe,
            **({"processes_per_replica": 1, "backoff_seconds": 0.2} | gang),
        )
        self.env = {
            "DRAKKAR_PEER_TIMEOUT_SECONDS": "1.5",
            "DRAKKAR_HEARTBEAT_SECONDS": "0.3",
            "DRAKKAR_GRACE_SECONDS": "8",
            "DRAKKAR_FAREWELL_SECONDS": "2",
            "OMP_NUM_THREADS": "1",
            "FAKE_DIR": str(folder),
            "FAKE_STEPS": "60",
            "FAKE_EVERY": "10",
            "FAKE_STEP_SECONDS": "0.02",
        }
        self.command: list[str] | None = [sys.executable, str(FAKE_TRAINER)]
        if recipe is not None:
            self.command = None
        self.agents: dict[int, subprocess.Popen] = {}
        self.started: list[subprocess.Popen] = []
        self.pod_uids: dict[int, str] = {}

    def start(self, *replicas: int) -> None:
        for replica in replicas:
            uid = uuid.uuid4().hex
            self.pod_uids[replica] = uid
            # A later pod of a peer has another address, as in a cluster.
            host = replica + 1 + (50 * len(self.started) if replica in self.agents else 0)
            host = 1 if replica == 0 else 2 + host % 250
            env = {
                **{k: v for k, v in os.environ.items() if not k.startswith("DRAKKAR_")},
                **self.env,
                "DRAKKAR_GANG": self.config.model_dump_json(by_alias=True),
                "DRAKKAR_REPLICA_INDEX": str(replica),
                "DRAKKAR_POD_NAME": f"test-{replica}",
                "DRAKKAR_POD_UID": uid,
                "DRAKKAR_NODE_NAME": f"node-{replica}",
                "DRAKKAR_AGENT_BIND": f"127.0.0.{host}",
                "DRAKKAR_TERMINATION_LOG": str(self.folder / f"termination-{replica}"),
            }
            words = ["--", *self.command] if self.command else []
            with (self.folder / "log").open("ab") as log:
                agent = subprocess.Popen(
                    [sys.executable, "-m", "drakkar_workers.agent", *words],
                    env=env,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=self.folder,
                )
            self.agents[replica] = agent
            self.started.append(agent)

    def start_all(self) -> None:
        self.start(*range(self.config.replicas))

    def kill_pod(self, replica: int) -> None:
        """As a lost pod: every process of it at once."""
        for pid in [*self.descendants(self.agents[replica].pid), self.agents[replica].pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.agents[replica].wait()

    def descendants(self, pid: int) -> list[int]:
        table = process_table()
        found, queue = [], [pid]
        while queue:
            parent = queue.pop()
            children = [p for p, (its_parent, _, _) in table.items() if its_parent == parent]
            found += children
            queue += children
        return found

    def trainers(self, replica: int) -> list[int]:
        """The pids of the trainers of a replica: children of its fork server."""
        table = process_table()
        servers = [p for p, entry in table.items() if entry[0] == self.agents[replica].pid]
        return sorted(p for p, entry in table.items() if entry[0] in servers)

    def report(self, after: int = -1, wait: float = 0) -> Report | None:
        url = f"http://127.0.0.1:{self.config.agent_port}/v1/report"
        try:
            answer = httpx.get(url, params={"after": after, "wait": wait}, timeout=wait + 5)
            answer.raise_for_status()
        except httpx.HTTPError:
            return None
        return Report.model_validate_json(answer.content)

    def until(self, wanted: Callable[[Report], object], seconds: float = 30) -> Report:
        """The first report that is as wanted."""
        deadline = time.monotonic() + seconds
        report, version = None, -1
        while time.monotonic() < deadline:
            report = self.report(version, 1.0) or report
            if report is None:
                time.sleep(0.05)
                continue
            if wanted(report):
                return report
            version = report.version
        raise AssertionError(f"not seen within {seconds} s; last: {report}\n{self.log()}")

    def at_step(self, step: int, seconds: float = 30) -> Report:
        return self.until(
            lambda r: r.state == "running" and r.progress and r.progress.step >= step, seconds
        )

    def exit_codes(self, seconds: float = 30) -> dict[int, int]:
        """Exit codes of the newest agent of each replica."""
        deadline = time.monotonic() + seconds
        codes = {}
        for replica, agent in self.agents.items():
            try:
                codes[replica] = agent.wait(max(0.01, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                raise AssertionError(f"agent {replica} runs on\n{self.log()}") from None
        return codes

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def termination(self, replica: int) -> dict:
        text = (self.folder / f"termination-{replica}").read_text()
        assert len(text.encode()) < 4096
        return json.loads(text)

    def history(self) -> list[dict]:
        path = self.folder / "history.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines]

    def fault(self, **wanted) -> None:
        temporary = self.folder / "fault.tmp"
        temporary.write_text(json.dumps(wanted))
        temporary.rename(self.folder / "fault")

    def leftovers(self) -> list[str]:
        """Processes of this gang that should not be there any more."""
        mark = str(self.folder).encode()
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                environ = (path / "environ").read_bytes()
                state = (path / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if mark in environ and state != "Z" and int(path.name) != os.getpid():
                found.append(f"{path.name} {(path / 'cmdline').read_bytes()!r}")
        return found

    def close(self) -> None:
        for agent in self.started:
            if agent.poll() is None:
                for pid in [*self.descendants(agent.pid), agent.pid]:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                agent.wait()


@pytest.fixture
def make_gang(tmp_path: Path) -> Iterator[Callable[..., GangHarness]]:
    """Makes gangs; all their processes are ended after the test."""
    gangs: list[GangHarness] = []

    def make(replicas: int, **options) -> GangHarness:
        folder = tmp_path / f"gang-{len(gangs)}"
        folder.mkdir()
        gangs.append(GangHarness(folder, replicas, **options))
        return gangs[-1]

    yield make
    for gang in gangs:
        gang.close()
