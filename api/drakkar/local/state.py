"""What is remembered about a cluster between two commands."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ValidationError

from drakkar.local.paths import ClusterPaths, state_root
from drakkar.local.process import started_at
from drakkar.local.topology import Topology

ProviderName = Literal["upstream", "kind", "existing"]

# Raised when older records can no longer be acted upon; their clusters are then made anew.
FORMAT = 1

DEFAULT_GRACE_SECONDS = 12


class Fault(BaseModel):
    """What was done to a node on purpose, and by which process."""

    kind: Literal["stopped", "cut"]
    pid: int
    started: int
    """When that process started, in clock ticks since boot."""

    @classmethod
    def by_this_process(cls, kind: Literal["stopped", "cut"]) -> Fault:
        return cls(kind=kind, pid=os.getpid(), started=started_at(os.getpid()) or 0)

    def still_wanted(self) -> bool:
        """Whether who caused it still runs: a test under way, not one that has ended."""
        return started_at(self.pid) == self.started


class ClusterState(BaseModel):
    """The record of one cluster."""

    format: int = FORMAT
    name: str
    provider: ProviderName
    index: int = 0
    """The number its addresses follow from."""
    owner: dict[str, str]
    """The installation whose files its pods mount."""
    boot: str
    """The boot of the machine in which it was made: processes and mounts end with it."""
    topology: Topology
    programs: Path | None = None
    """The folder of built programs."""
    numbers: dict[str, int] = {}
    """Node name -> the number its addresses follow from."""
    faults: dict[str, Fault] = {}
    """Node name -> what was done to it."""
    fake_nodes: int = 0
    grace_seconds: int = DEFAULT_GRACE_SECONDS
    """How long the controller manager waits for a silent node."""

    def save(self, paths: ClusterPaths) -> None:
        """Write the record in one move."""
        paths.root.mkdir(parents=True, exist_ok=True)
        temporary = paths.state.with_suffix(".tmp")
        temporary.write_text(self.model_dump_json(indent=1))
        temporary.replace(paths.state)

    def number(self, node: str) -> int:
        """The number of a node, given to it for good when it is first asked for."""
        if node not in self.numbers:
            taken = set(self.numbers.values())
            self.numbers[node] = next(n for n in range(1, 245) if n not in taken)
        return self.numbers[node]


def load(paths: ClusterPaths) -> ClusterState | None:
    """The record of a cluster; None when there is none or it cannot be understood."""
    try:
        state = ClusterState.model_validate_json(paths.state.read_text())
    except (OSError, ValidationError):
        return None
    return state if state.format == FORMAT else None


def all_states() -> list[ClusterState]:
    """The records of every cluster of this user."""
    folders = sorted(state_root().glob("*/state.json"))
    found = (load(ClusterPaths(path.parent.name, path.parent)) for path in folders)
    return [state for state in found if state]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock while changing a cluster, so that two commands do not cross."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with path.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            # While this one waited, another may have deleted the file: its lock is worth nothing.
            if path.exists() and path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                yield
                return
