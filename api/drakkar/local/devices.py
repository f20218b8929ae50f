"""Breaking a node's simulated accelerators on purpose: the file that the device daemon reads."""

from __future__ import annotations

import json
import re
from pathlib import Path

from drakkar.local.errors import ClusterError

FAULTS = Path("plugins/gpu.drakkar.dev/simulated-faults.json")
"""Below the kubelet's folder of the node."""
_CODE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")

Fault = dict[str, str]


def read(kubelet: Path) -> list[Fault]:
    """The faults of a node, whose kubelet's folder this is."""
    try:
        found: list[Fault] = json.loads((kubelet / FAULTS).read_text())
    except FileNotFoundError:
        return []
    return found


def inject(
    kubelet: Path, device: str, code: str, *, message: str = "", severity: str | None = None
) -> None:
    """Break a device, by its index or id, in addition to what is broken."""
    if not _CODE.fullmatch(code):
        raise ClusterError(
            f"The code {code!r} can't be used: write small letters, digits and dashes,"
            " such as xid-79 or thermal."
        )
    fault = {"device": device, "code": code, "message": message or "injected"}
    if severity is not None:
        fault["severity"] = severity
    others = [f for f in read(kubelet) if (f["device"], f["code"]) != (device, code)]
    _write(kubelet, [*others, fault])


def clear(kubelet: Path, device: str | None = None) -> int:
    """Repair a device, or all of them; how many faults are gone."""
    before = read(kubelet)
    left = [f for f in before if device is not None and f["device"] != device]
    if len(left) != len(before):
        _write(kubelet, left)
    return len(before) - len(left)


def _write(kubelet: Path, faults: list[Fault]) -> None:
    file = kubelet / FAULTS
    if not file.parent.is_dir():
        raise ClusterError(
            "The node has no device daemon: install Drakkar with 'drakkar install' first."
        )
    # The daemon never sees half a file.
    temporary = file.with_suffix(".tmp")
    temporary.write_text(json.dumps(faults, indent=1))
    temporary.replace(file)
