"""What is remembered about a cluster between two commands."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ValidationError

from drakkar.local.paths import ClusterPaths, state_root
from drakkar.local.topology import Topology

ProviderName = Literal["upstream", "kind", "existing"]

# Raised when older records can no longer be acted upon; their clusters are then made anew.
FORMAT = 1

DEFAULT_GRACE_SECONDS = 12


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
    stopped: list[str] = []
    cut: list[str] = []
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
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
