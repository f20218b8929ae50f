"""Where a local cluster keeps its files.

Everything lives under the user's home, so that a cluster of one user or checkout is never
mistaken for another's: state under `~/.local/state/drakkar/<cluster>` and what is expensive to
make again under `~/.cache/drakkar`. The two can be moved with `DRAKKAR_STATE` and
`DRAKKAR_CACHE`.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from drakkar.local.errors import ClusterError

DEFAULT_NAME = "drakkar"

# The name is part of socket paths (108 bytes at most) and of cgroup and context names.
_NAME = re.compile(r"[a-z]([a-z0-9-]{0,18}[a-z0-9])?")


def default_name() -> str:
    """The cluster meant when none is named: `DRAKKAR_CLUSTER`, else `drakkar`."""
    return os.environ.get("DRAKKAR_CLUSTER") or DEFAULT_NAME


def state_root() -> Path:
    """The folder that holds a folder for each cluster."""
    return Path(os.environ.get("DRAKKAR_STATE") or Path.home() / ".local/state/drakkar")


def cache_root() -> Path:
    """The folder of what outlives clusters: built programs, a Go toolchain, data sets."""
    return Path(os.environ.get("DRAKKAR_CACHE") or Path.home() / ".cache/drakkar")


def data_folder() -> Path:
    """Data sets and models; pods see it at `/opt/drakkar/data`."""
    return cache_root() / "data"


def checkout() -> Path | None:
    """The source tree this package runs from, or None when it was installed as a wheel."""
    root = Path(__file__).resolve().parents[3]
    return root if (root / "pyproject.toml").is_file() else None


def owner() -> dict[str, str]:
    """Which installation a cluster belongs to: its pods mount that installation's files."""
    return {"environment": sys.prefix, "checkout": str(checkout() or "")}


@dataclass(frozen=True, slots=True)
class ClusterPaths:
    """The files of one cluster."""

    name: str
    root: Path

    @classmethod
    def of(cls, name: str) -> ClusterPaths:
        """Check the name and return its paths; nothing is created."""
        if not _NAME.fullmatch(name):
            raise ClusterError(
                f"'{name}' is no cluster name: use 1 to 20 lower-case letters, digits and dashes,"
                " beginning with a letter."
            )
        return cls(name=name, root=state_root() / name)

    @property
    def state(self) -> Path:
        return self.root / "state.json"

    @property
    def kubeconfig(self) -> Path:
        return self.root / "kubeconfig"

    @property
    def lock(self) -> Path:
        """Outside the cluster's folder, which `down` removes while the lock is held."""
        return self.root.with_name(f".{self.name}.lock")

    @property
    def pki(self) -> Path:
        return self.root / "pki"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def images(self) -> Path:
        return self.root / "images"

    @property
    def volumes(self) -> Path:
        return self.root / "volumes"

    def node(self, name: str) -> Path:
        return self.root / "nodes" / name
