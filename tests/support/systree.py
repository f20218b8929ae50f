"""Trees of files as Linux has them below /sys."""

from collections.abc import Mapping
from pathlib import Path


def write(root: Path, files: Mapping[str, str]) -> None:
    """Write files by their path below the root."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def pci(root: Path, way: str, **attributes: str) -> Path:
    """A PCI device at a way such as "pci0000:00/0000:00:01.0/0000:01:00.0" from the host bridge."""
    folder = root / "devices" / way
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in attributes.items():
        (folder / name).write_text(f"{value}\n")
    link = root / "bus" / "pci" / "devices" / folder.name
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        link.symlink_to(folder)
    return folder
