"""What the pod may use: CPU quota, devices, and whether the memory limit was hit."""

import os
from collections.abc import Sequence
from pathlib import Path

CGROUP_ROOT = Path("/sys/fs/cgroup")


def cpu_limit(root: Path = CGROUP_ROOT) -> float:
    """CPUs that this container may use: the smaller of its quota (cgroup v2 or v1) and affinity."""
    limit = float(len(os.sched_getaffinity(0)))
    quota = _quota_v2(root) or _quota_v1(root)
    return min(limit, quota) if quota else limit


def omp_threads(cpus: float, processes: int) -> int:
    """Threads per trainer process, so that all of them together have the CPUs once."""
    return max(1, int(cpus / processes))


def out_of_memory_kills(root: Path = CGROUP_ROOT) -> int:
    """Processes of this container that the kernel killed for memory so far."""
    for name in ("memory.events", "memory/memory.oom_control"):
        for line in _read(root / name).splitlines():
            key, _, value = line.partition(" ")
            if key == "oom_kill" and value.strip().isdigit():
                return int(value)
    return 0


def device_slice(devices: str, local_rank: int, processes: int) -> str:
    """The part of a comma-separated device list that one of several processes has.

    Devices are dealt out in runs, as they are ordered along the fabric. With fewer devices than
    processes these share them in turn.
    """
    listed = [item for item in devices.split(",") if item]
    if not listed:
        return ""
    if len(listed) < processes:
        return listed[local_rank % len(listed)]
    return ",".join(_part(listed, local_rank, processes))


def _part(items: Sequence[str], index: int, parts: int) -> Sequence[str]:
    return items[len(items) * index // parts : len(items) * (index + 1) // parts]


def _quota_v2(root: Path) -> float | None:
    quota, _, period = _read(root / "cpu.max").strip().partition(" ")
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else None


def _quota_v1(root: Path) -> float | None:
    quota = _read(root / "cpu" / "cpu.cfs_quota_us").strip()
    period = _read(root / "cpu" / "cpu.cfs_period_us").strip()
    if not (quota.isdigit() and period.isdigit() and int(period)):
        return None  # -1 is no quota
    return int(quota) / int(period)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
