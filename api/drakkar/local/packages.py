"""The Debian programs a local cluster runs: runc and the network's tools."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from drakkar.local.errors import ClusterError
from drakkar.local.process import admin_path
from drakkar.local.progress import Progress

# Program or file -> the Debian package that brings it.
NEEDED = {
    "runc": "runc",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "ip": "iproute2",
    "iptables": "iptables",
    "nft": "nftables",
    "conntrack": "conntrack",
    "socat": "socat",
    "nsenter": "util-linux",
    "mount": "mount",
}


def missing_packages(needed: dict[str, str]) -> list[str]:
    """Those packages of which a program is not there."""
    absent = [
        package
        for program, package in needed.items()
        if not (
            Path(program).exists()
            if program.startswith("/")
            else shutil.which(program, path=admin_path())
        )
    ]
    return sorted(set(absent))


def ensure_packages(progress: Progress, needed: dict[str, str] = NEEDED) -> None:
    """Install what is missing, or say which command does."""
    missing = missing_packages(needed)
    if not missing:
        return
    command = ["apt-get", "install", "-y", "--no-install-recommends", *missing]
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise ClusterError(f"Programs are missing. As root, run: {' '.join(command)}")
    with progress.step(f"Installing {', '.join(missing)}"):
        # The packages' own services are of no use here: each node runs its own containerd.
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        for step in (["apt-get", "update", "-q"], command):
            done = subprocess.run(
                step, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
            )
            if done.returncode != 0:
                last = (done.stderr or done.stdout).strip().splitlines()[-1:]
                raise ClusterError(f"'{' '.join(step)}' failed: {' '.join(last)}")
