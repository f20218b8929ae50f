"""The control groups of a cluster's nodes: `/drakkar/<cluster>/<node>`, in version 1 and 2.

Each kubelet puts its pods below its node's group.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

MOUNT = Path("/sys/fs/cgroup")
ROOT = "drakkar"

TRIES = 100
_CPUSET_FILES = ("cpuset.cpus", "cpuset.mems")


def cgroup_path(cluster: str, node: str | None = None) -> str:
    """The name of a cluster's or node's group, as kubelet's `cgroupRoot` wants it."""
    return "/".join(["", ROOT, cluster, *([node] if node else [])])


def _hierarchies() -> list[Path]:
    """The roots of all hierarchies: one in version 2, one for each controller in version 1."""
    if (MOUNT / "cgroup.controllers").exists():
        return [MOUNT]
    return sorted({path.resolve() for path in MOUNT.iterdir() if path.is_dir()})


def create(path: str) -> None:
    """Make a group and those above it, ready for a kubelet's use.

    Hierarchies that this process may not write are passed over: a kubelet that needs one says so.
    """
    for root in _hierarchies():
        for _ in range(TRIES):
            with contextlib.suppress(FileNotFoundError):
                _create_below(root, path)
                break
            # A group above was empty for a moment, and somebody who cleans up has removed it.
            time.sleep(0.001)


def _create_below(root: Path, path: str) -> None:
    """Raises FileNotFoundError if a group above is removed meanwhile."""
    folder = root
    for part in path.strip("/").split("/"):
        above, folder = folder, folder / part
        _delegate(above)
        try:
            folder.mkdir(exist_ok=True)
        except FileNotFoundError:
            raise
        except OSError:
            return
        _inherit_cpuset(above, folder)


def _delegate(group: Path) -> None:
    """Version 2: let the groups below use every controller there is."""
    try:
        controllers = (group / "cgroup.controllers").read_text().split()
    except OSError:
        return
    for controller in controllers:
        # Refused one by one for controllers which cannot be had here.
        with contextlib.suppress(OSError):
            (group / "cgroup.subtree_control").write_text(f"+{controller}")


def _inherit_cpuset(above: Path, group: Path) -> None:
    """Version 1: a new group has no CPUs and no memory, so that no process may enter it."""
    for name in _CPUSET_FILES:
        file = group / name
        with contextlib.suppress(OSError):
            if file.exists() and not file.read_text().strip():
                file.write_text((above / name).read_text())


def _groups(path: str) -> Iterator[Path]:
    """The groups at and below a path in all hierarchies, deepest first."""
    for root in _hierarchies():
        for folder, _, _ in os.walk(root / path.strip("/"), topdown=False):
            yield Path(folder)


def kill(path: str) -> int:
    """Kill every process in the group and below; return how many there were."""
    killed: set[int] = set()
    for group in _groups(path):
        with contextlib.suppress(OSError):
            for pid in map(int, (group / "cgroup.procs").read_text().split()):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                killed.add(pid)
    return len(killed)


def remove(path: str, *, seconds: float = 5.0) -> None:
    """Remove a group and those below, waiting for their last processes to leave.

    The root group of all clusters goes with its last member.
    """
    deadline = time.monotonic() + seconds
    while True:
        for group in _groups(path):
            with contextlib.suppress(OSError):
                group.rmdir()
        if not list(_groups(path)) or time.monotonic() > deadline:
            break
        kill(path)
        time.sleep(0.05)
    for root in _hierarchies():
        with contextlib.suppress(OSError):
            (root / ROOT).rmdir()
