"""CDI specifications: what a container runtime adds to a container that uses a device."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from drakkar.constants import DEVICES_VARIABLE
from drakkar_gpu.devices.base import Device, Vendor

VERSION = "0.6.0"
DEVICE_KIND = "drakkar.dev/device"
CLAIM_KIND = "drakkar.dev/claim"

Object = dict[str, Any]


def edits(vendor: Vendor, devices: Sequence[Device], mounts: Sequence[tuple[str, str]]) -> Object:
    """``containerEdits`` for a container that uses these devices and no others."""
    environment = {
        DEVICES_VARIABLE: ",".join(device.id for device in devices),
        **vendor.environment(devices),
    }
    paths = sorted({path for device in devices for path in device.paths})
    made: Object = {"env": [f"{name}={value}" for name, value in environment.items()]}
    if paths:
        made["deviceNodes"] = [{"path": path} for path in paths]
    if mounts:
        made["mounts"] = [
            {"hostPath": host, "containerPath": container, "options": ["ro", "rbind"]}
            for host, container in mounts
        ]
    return made


def specification(kind: str, devices: Mapping[str, Object]) -> Object:
    """A specification of devices: name -> containerEdits."""
    return {
        "cdiVersion": VERSION,
        "kind": kind,
        "devices": [{"name": name, "containerEdits": changed} for name, changed in devices.items()],
    }


def node_devices(devices: Sequence[Device]) -> Object:
    """Device files of each device, for containers of the device plugin.

    Their environment names all devices of a container, so it is not here: a runtime puts the edits of
    several devices together, and of one variable only one value would stay.
    """
    return specification(
        DEVICE_KIND,
        {
            device.id: {"deviceNodes": [{"path": path} for path in device.paths]}
            for device in devices
            if device.paths
        },
    )


def file_name(kind: str, name: str) -> str:
    """File of a specification; runtimes read every .json of the folder."""
    return f"{kind.replace('/', '-')}-{name}.json"


def write(folder: Path, name: str, spec: Object) -> None:
    """Write a specification so that no runtime ever sees half of it."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{name}.tmp"
    temporary.write_text(json.dumps(spec, indent=1))
    temporary.replace(folder / name)
