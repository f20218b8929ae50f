"""What a cluster changes on the machine itself, and putting that back.

Kernel settings are shared by all clusters of the machine: the first one records the values it
found, the last one restores them.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path

# Routing between nodes is ours; the others are set by every kubelet as it starts.
_SETTINGS = (
    "net/ipv4/ip_forward",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)

_KERNEL = Path("/proc/sys")

# Where a kubelet expects its files; each node mounts its own folder there.
KUBELET_FOLDER = Path("/var/lib/kubelet")

_CAP_SYS_RESOURCE = 24


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What programs have to be told about the machine."""

    cgroup_v2: bool
    may_raise_limits: bool
    """Whether root holds CAP_SYS_RESOURCE, which some sandboxes take away."""
    cpus: int
    memory_bytes: int


def parse_capabilities(status: str) -> int:
    """The effective capabilities in the text of /proc/self/status."""
    for line in status.splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


def parse_memory(meminfo: str) -> int:
    """The machine's memory in bytes, from the text of /proc/meminfo."""
    for line in meminfo.splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return 0


def host_facts() -> HostFacts:
    """Look at the machine."""
    capabilities = parse_capabilities(Path("/proc/self/status").read_text())
    cpus = Path("/proc/cpuinfo").read_text().count("processor\t")
    return HostFacts(
        cgroup_v2=Path("/sys/fs/cgroup/cgroup.controllers").exists(),
        may_raise_limits=bool(capabilities >> _CAP_SYS_RESOURCE & 1),
        cpus=max(cpus, 1),
        memory_bytes=parse_memory(Path("/proc/meminfo").read_text()),
    )


def prepare(record: Path) -> None:
    """Record the settings unless another cluster did, then let the machine route packets."""
    if not record.exists():
        found = {name: _read(name) for name in _SETTINGS}
        found["kubelet folder"] = None if KUBELET_FOLDER.exists() else "made"
        record.parent.mkdir(parents=True, exist_ok=True)
        temporary = record.with_suffix(".tmp")
        temporary.write_text(json.dumps(found))
        temporary.replace(record)
    KUBELET_FOLDER.mkdir(parents=True, exist_ok=True)
    _write("net/ipv4/ip_forward", "1")


def restore(record: Path) -> None:
    """Put the settings back as the record has them; without a record there is nothing to do."""
    try:
        found: dict[str, str | None] = json.loads(record.read_text())
    except (OSError, ValueError):
        return
    if found.pop("kubelet folder", None):
        # Only an empty folder goes: whatever is in it is not ours.
        with contextlib.suppress(OSError):
            KUBELET_FOLDER.rmdir()
    for name, value in found.items():
        if value is not None and _read(name) != value:
            _write(name, value)
    record.unlink()


def _read(name: str) -> str | None:
    try:
        return (_KERNEL / name).read_text().strip()
    except OSError:
        return None


def _write(name: str, value: str) -> None:
    with contextlib.suppress(OSError):
        (_KERNEL / name).write_text(value)
