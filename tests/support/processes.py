"""Processes of pods, found from outside: real kubelets run them on this machine."""

from collections.abc import Iterator
from pathlib import Path


def in_pod(uid: str, *, name: str = "", command: str = "") -> list[int]:
    """Process ids in the pod of this UID with a name that starts so and a command line with that.

    A container's cgroup carries its pod's UID.
    """
    return [
        pid
        for pid, entry in _processes()
        if _is_in_pod(entry, uid)
        and _text(entry / "comm").startswith(name)
        and command in _text(entry / "cmdline")
    ]


def environment(uid: str, variable: str) -> str | None:
    """An environment variable as the first process of the pod that has it was given it."""
    for pid in in_pod(uid):
        for item in _text(Path(f"/proc/{pid}/environ")).split("\0"):
            name, _, value = item.partition("=")
            if name == variable:
                return value
    return None


def mapped(uid: str, name: str) -> set[tuple[str, str]]:
    """Device and inode of the files of this name that the pod's processes have in memory."""
    lines = [
        line.split()
        for pid in in_pod(uid)
        for line in _text(Path(f"/proc/{pid}/maps")).splitlines()
    ]
    return {(line[3], line[4]) for line in lines if line[-1].endswith(f"/{name}")}


def _processes() -> Iterator[tuple[int, Path]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            yield int(entry.name), entry


def _is_in_pod(entry: Path, uid: str) -> bool:
    groups = _text(entry / "cgroup")
    return uid in groups or uid.replace("-", "_") in groups


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
