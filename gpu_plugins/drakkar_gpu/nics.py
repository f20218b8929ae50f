"""Network cards of the fabric between nodes, from sysfs."""

import re
from pathlib import Path

from drakkar.devices import Nic

INFINIBAND = Path("/sys/class/infiniband")


def network_cards(folder: Path = INFINIBAND) -> tuple[Nic, ...]:
    """RDMA devices in order of their PCI address; that order is their rail.

    Cards of one place on each node are wired to one switch where the fabric is rail-optimised.
    """
    found = []
    for card in folder.iterdir() if folder.is_dir() else ():
        try:
            address = (card / "device").resolve().name
        except OSError:
            address = ""
        found.append((address, card.name, _numa(card / "device/numa_node")))
    return tuple(
        Nic(name=name, numa=numa, rail=rail)
        for rail, (_, name, numa) in enumerate(sorted(found, key=lambda f: (f[0], _natural(f[1]))))
    )


def _numa(file: Path) -> int | None:
    """The kernel writes -1 where it does not know."""
    try:
        number = int(file.read_text())
    except (OSError, ValueError):
        return None
    return number if number >= 0 else None


def _natural(name: str) -> tuple[str, int]:
    match = re.fullmatch(r"(.*?)(\d*)", name)
    assert match is not None
    return match[1], int(match[2] or 0)
