"""containerd's configuration, and the runtime handler that gives pods the host's Python.

A pod with `runtimeClassName: drakkar-local` sees the host's `/usr`, the Python installation, the
virtual environment and the checkout, all read-only and at the host's paths. The mounts are made
by the runtime, not asked for by the pod, so such a pod passes the `restricted` Pod Security
level; code that was just edited runs at once, and no image of gigabytes is copied to any node.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drakkar.local.errors import ClusterError
from drakkar.local.host import HostFacts
from drakkar.local.images import PAUSE_IMAGE
from drakkar.local.paths import checkout, data_folder

RUNTIME_CLASS = "drakkar-local"
CONTAINERD_SOCKET = Path("/run/containerd/containerd.sock")

_HOST_FILES = ("/usr", "/etc/ssl", "/etc/alternatives", "/etc/ld.so.cache", "/etc/ld.so.conf.d")
_IN_POD = Path("/opt/drakkar")
"""As in the images: a pod has the same paths wherever the checkout lies. Its own path may be hidden
in a pod, by the pod's /tmp for example."""
_SOURCE_FOLDERS = ("api", "operator", "workers", "gpu_plugins")


@dataclass(frozen=True, slots=True)
class HostMount:
    """A path of the host, seen read-only in pods."""

    source: Path
    destination: Path


def outermost(paths: Iterable[Path]) -> list[Path]:
    """The paths without those that lie in another one of them."""
    kept: list[Path] = []
    for path in sorted(set(paths)):
        if not any(path.is_relative_to(outer) for outer in kept):
            kept.append(path)
    return kept


def _everyone_reads(path: Path) -> bool:
    wanted = 0o005 if path.is_dir() else 0o004
    return path.stat().st_mode & wanted == wanted


def readable_parts(path: Path) -> list[Path]:
    """The path, or what is in it if the folder itself is private, as `mktemp` makes them.

    In a pod the folder is then one of the pod's own, with these parts mounted in it.
    """
    if _everyone_reads(path):
        return [path]
    parts = [part for part in path.iterdir() if not part.is_symlink()] if path.is_dir() else []
    readable = sorted(part for part in parts if _everyone_reads(part))
    if not readable:
        raise ClusterError(f"Pods could not read {path}: run 'chmod -R o+rX {path}'.")
    return readable


def host_mounts() -> list[HostMount]:
    """What pods of the runtime class see of this machine."""
    wanted = [Path(name) for name in _HOST_FILES]
    wanted += [Path(sys.base_prefix), Path(sys.prefix)]
    source_tree = checkout()
    if source_tree:
        wanted.append(source_tree)
    found = outermost(path for path in wanted if path.exists())
    mounts = [HostMount(part, part) for path in found for part in readable_parts(path)]
    data = data_folder()
    data.mkdir(parents=True, exist_ok=True)
    mounts.append(HostMount(data, _IN_POD / "data"))
    if sys.prefix != sys.base_prefix:
        mounts += _mounted_at(Path(sys.prefix), _IN_POD / "venv")
    if source_tree:
        for name in _SOURCE_FOLDERS:
            if (source_tree / name).is_dir():
                mounts += _mounted_at(source_tree / name, _IN_POD / "src" / name)
    return mounts


def _mounted_at(source: Path, destination: Path) -> list[HostMount]:
    parts = readable_parts(source)
    return [HostMount(part, destination / part.relative_to(source)) for part in parts]


def python_in_pods() -> str:
    """Path of this environment's Python in pods."""
    if sys.prefix == sys.base_prefix:
        return sys.executable
    return str(_IN_POD / "venv/bin/python")


def environment_in_pods() -> dict[str, str]:
    """Variables by which pods find programs and packages of this environment."""
    programs = [str(Path(python_in_pods()).parent), "/usr/local/bin", "/usr/bin", "/bin"]
    variables = {"PATH": ":".join(programs)}
    if checkout():
        folders = [str(_IN_POD / "src" / name) for name in _SOURCE_FOLDERS]
        variables["PYTHONPATH"] = ":".join(folders)
    return variables


def with_host_mounts(spec: dict[str, Any], mounts: Iterable[HostMount]) -> dict[str, Any]:
    """A runtime specification with read-only mounts of the host added."""
    changed = copy.deepcopy(spec)
    changed.setdefault("mounts", []).extend(
        {
            "destination": str(mount.destination),
            "source": str(mount.source),
            "type": "bind",
            "options": ["rbind", "ro", "nosuid", "nodev"],
        }
        for mount in mounts
    )
    # Limits are inherited: containerd's default of 1024 open files is too few for a data loader,
    # and where limits cannot be raised, naming any of them fails.
    changed["process"].pop("rlimits", None)
    return changed


def containerd_config(
    *, root: Path, shim: Path, base_spec: Path, cni_config: Path, facts: HostFacts
) -> str:
    """The text of a node's containerd.toml.

    containerd's state lies in the node's private /run, its root on the host's disk. CDI is on, so a
    container gets what the specifications in the node's /var/run/cdi say of its devices.
    """
    restrict_score = "false" if facts.may_raise_limits else "true"
    return f"""\
version = 3
root = "{root}"
state = "/run/containerd"

[grpc]
  address = "{CONTAINERD_SOCKET}"

[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"

  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "{PAUSE_IMAGE}"

[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = {restrict_score}
  disable_hugetlb_controller = true
  enable_cdi = true
  cdi_spec_dirs = ["/var/run/cdi"]

  [plugins."io.containerd.cri.v1.runtime".containerd]
    default_runtime_name = "runc"

    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      runtime_path = "{shim}"

    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.{RUNTIME_CLASS}]
      runtime_type = "io.containerd.runc.v2"
      runtime_path = "{shim}"
      base_runtime_spec = "{base_spec}"

  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["{_cni_programs()}"]
    conf_dir = "{cni_config}"
"""


def _cni_programs() -> str:
    """Debian's folder of network plugins, else the one of the upstream packages."""
    return "/usr/lib/cni" if Path("/usr/lib/cni/bridge").exists() else "/opt/cni/bin"


def cni_config(*, pods: str, data: Path) -> dict[str, Any]:
    """How a node connects its pods: a bridge of its own, addresses from its /24."""
    return {
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": True,
                "ipMasq": False,
                "hairpinMode": True,
                "ipam": {
                    "type": "host-local",
                    "dataDir": str(data),
                    "ranges": [[{"subnet": pods}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }
