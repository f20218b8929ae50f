"""Gangs of real trainer processes on this machine."""

import contextlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from drakkar.protocol import GangConfig

SERVER = Path(__file__).with_name("rank_server.py")
WORDS = re.findall(
    r"\w+",
    "the ship went out upon the sea and the wind was in her sail when morning came to men who "
    "rowed home with silver fish under a grey sky while children sang of ice fire oak iron and rain",
)
TINY: dict[str, Any] = {
    "model": {"layers": 2, "hidden": 32, "heads": 4, "kvHeads": 2},
    "steps": 12,
    "sequenceLength": 32,
    "batchSize": 8,
    "warmupSteps": 2,
    "learningRate": 0.01,
    "evalEvery": 6,
    "evalBatches": 2,
    "sampleTokens": 16,
    "samplePrompt": "the ",
}


class RankServer:
    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(SERVER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def ask(self, **request: Any) -> Any:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(60)


@dataclass
class Running:
    """The processes of one gang."""

    server: RankServer
    pids: list[int]
    outputs: list[Path]
    codes: dict[int, int] = field(default_factory=dict)

    def wait(self, seconds: float = 120) -> list[int | None]:
        for pid in self.pids:
            if pid not in self.codes:
                code = self.server.ask(wait=pid, seconds=seconds)["code"]
                if code is not None:
                    self.codes[pid] = code
        return [self.codes.get(pid) for pid in self.pids]

    def kill(self, number: int = signal.SIGKILL, rank: int | None = None) -> None:
        for pid in self.pids if rank is None else [self.pids[rank]]:
            if pid not in self.codes:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)

    def text(self, rank: int = 0) -> str:
        return self.outputs[rank].read_text()

    def until(self, condition: Callable[[], bool], seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "\n".join(path.read_text() for path in self.outputs)
            time.sleep(0.01)


@dataclass
class Lab:
    """Where gangs run: a text, a data cache, a checkpoint volume."""

    server: RankServer
    folder: Path
    text: Path
    cache: Path
    started: list[Running] = field(default_factory=list)

    @property
    def volume(self) -> Path:
        return self.folder / "volume"

    @property
    def checkpoints(self) -> Path:
        return self.volume / "job"

    def start(
        self,
        world: int = 1,
        *,
        every: int = 3,
        keep: int = 3,
        into: Path | None = None,
        storage: str | None = None,
        job: str = "job",
        restore_from: str | None = None,
        environ: dict[str, str] | None = None,
        environ_of_rank: list[dict[str, str]] | None = None,
        file_limit: int | None = None,
        timeout: float = 60.0,
        **recipe: Any,
    ) -> Running:
        config = {**TINY, "data": {"source": str(self.text)}, **recipe}
        gang = GangConfig(
            job="job",
            namespace="default",
            uid="u",
            replicas=world,
            processes_per_replica=1,
            coordinator="127.0.0.1",
            recipe="pretrain",
            recipe_config=config,
            checkpoint_dir=f"{storage}/{job}" if storage else str(into or self.checkpoints),
            checkpoint_root=storage or str(self.volume),
            checkpoint_every=every,
            checkpoint_keep=keep,
            restore_from=restore_from,
            hang_timeout_seconds=timeout,
        )
        number = len(self.started)
        outputs = [self.folder / f"run{number}-rank{rank}.log" for rank in range(world)]
        common = {
            "DRAKKAR_GANG": gang.model_dump_json(),
            "DRAKKAR_EPOCH": str(number + 1),
            "DRAKKAR_CACHE": str(self.cache),
            "OMP_NUM_THREADS": "1",
            "WORLD_SIZE": str(world),
            "LOCAL_WORLD_SIZE": str(world),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(free_port()),
            **(environ or {}),
        }
        pids = [
            self.server.ask(
                environ={
                    **common,
                    "RANK": str(rank),
                    "LOCAL_RANK": str(rank),
                    **(environ_of_rank[rank] if environ_of_rank else {}),
                },
                output=str(outputs[rank]),
                file_limit=file_limit,
            )["pid"]
            for rank in range(world)
        ]
        running = Running(self.server, pids, outputs)
        self.started.append(running)
        return running

    def train(self, world: int = 1, *, expect: int = 0, **arguments: Any) -> Running:
        """Run a gang to its end; every rank must end with ``expect``."""
        running = self.start(world, **arguments)
        codes = running.wait()
        assert codes == [expect] * world, "\n".join(path.read_text() for path in running.outputs)
        return running

    def metrics(self, key: str = "loss", epoch: int | None = None) -> dict[int, float]:
        """A metric by step, of one epoch or the last word of all."""
        lines = (self.checkpoints / "metrics.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        return {
            row["step"]: row[key]
            for row in rows
            if key in row and (epoch is None or row["epoch"] == epoch)
        }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def rank_server() -> Iterator[RankServer]:
    server = RankServer()
    yield server
    server.close()


@pytest.fixture(scope="session")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text of 60 kB with something to learn in it: sentences of few words."""
    chooser = random.Random(7)
    lines = [" ".join(chooser.choices(WORDS, k=8)) for _ in range(1500)]
    path = tmp_path_factory.mktemp("text") / "words.txt"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def lab(
    rank_server: RankServer,
    words: Path,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Lab]:
    cache = tmp_path_factory.getbasetemp() / "cache"
    lab = Lab(rank_server, tmp_path, words, cache)
    yield lab
    for running in lab.started:
        running.kill()
        running.wait(10)
