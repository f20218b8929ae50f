"""Programs of the distribution that tests need and a fresh machine lacks."""

import os
import subprocess


def install(*packages: str) -> None:
    """Install packages by apt, as root; their services are not started."""
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for step in (
        ["apt-get", "update", "-q"],
        ["apt-get", "install", "-y", "-q", "--no-install-recommends", *packages],
    ):
        done = subprocess.run(step, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(step)}: {done.stderr[-2000:]}"
