"""How much memory the container may still take, by its cgroup (v2 or v1)."""

from pathlib import Path

CGROUP_ROOT = Path("/sys/fs/cgroup")
MARGIN = 0.9
"""Of the limit: the rest is left to what grows while the training runs."""
_FILES = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    (
        "memory/memory.limit_in_bytes",
        "memory/memory.usage_in_bytes",
        "memory/memory.stat",
        "total_inactive_file",
    ),
)
_UNLIMITED = 1 << 60


def room(root: Path = CGROUP_ROOT) -> int | None:
    """Bytes below the limit, with a margin; page cache that the kernel can drop counts as free.

    None if there is no limit, or none that can be read.
    """
    for limit_file, usage_file, stat_file, cache in _FILES:
        limit, usage = _number(root / limit_file), _number(root / usage_file)
        if limit is None or usage is None or limit >= _UNLIMITED:
            continue
        reclaimable = 0
        for line in _read(root / stat_file).splitlines():
            name, _, value = line.partition(" ")
            if name == cache and value.isdigit():
                reclaimable = int(value)
        return int(limit * MARGIN) - usage + reclaimable
    return None


def _number(path: Path) -> int | None:
    text = _read(path).strip()
    return int(text) if text.isdigit() else None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
