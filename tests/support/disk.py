"""A small file system of its own under a checkpoint volume, that can be full, and can be slow."""

import contextlib
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from drakkar.local import ClusterError
from support.lab import Lab

SIZE_BYTES = 128 << 20
FROZEN_SECONDS, OPEN_SECONDS = 0.6, 0.2
"""A slow disk answers nobody for the first, and everybody for the second, in turns."""


class Disk:
    """ext4 on a loop device: mounted on this machine and on every node, which have mounts of their own."""

    def __init__(self, lab: Lab, nodes: list[str], work: Path) -> None:
        """``lab``: its volume is the one; ``work``: where the image of the disk lies."""
        self._lab = lab
        self._nodes = nodes
        self._image = work / "disk.img"
        self._device = ""
        self.folder = Path()

    @property
    def mounted(self) -> bool:
        """Whether there is one: not every machine lets a container make loop devices."""
        return bool(self._device)

    def mount(self) -> None:
        """Before any pod uses the volume."""
        try:
            self._mount()
        except (AssertionError, ClusterError, OSError) as error:
            print(f"no disk of its own, so no faults of disks: {error}")
            self.unmount()
            self._device = ""

    def _mount(self) -> None:
        self.folder = self._lab.folder("x").parent
        with self._image.open("wb") as file:
            file.truncate(SIZE_BYTES)
        _run("mkfs.ext4", "-q", "-m", "0", str(self._image))
        self._device = _run("losetup", "--find", "--show", str(self._image)).strip()
        _run("mount", self._device, str(self.folder))
        for name in self._nodes:
            self.mount_on(name)
        self.folder.chmod(0o777)

    def mount_on(self, name: str) -> None:
        """On a node that has just started; does nothing where it is mounted."""
        if not self.mounted:
            return
        node = self._lab.cluster.node(name)
        mounts = node.run("cat", "/proc/self/mounts").splitlines()
        if not any(line.split()[1] == str(self.folder) for line in mounts):
            node.run("mount", self._device, str(self.folder))

    def unmount(self) -> None:
        """Once no pod uses it any more."""
        for name in self._nodes:
            with contextlib.suppress(Exception):
                self._lab.cluster.node(name).run("umount", "-l", str(self.folder))
        if self._device:
            subprocess.run(["umount", "-l", str(self.folder)], check=False)
            subprocess.run(["losetup", "-d", self._device], check=False)

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        """Not a byte is left inside the block."""
        ballast = self.folder / "ballast"
        with ballast.open("wb") as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(1 << 20))
        try:
            yield
        finally:
            ballast.unlink()

    @contextlib.contextmanager
    def slow(self) -> Iterator[None]:
        """Whoever writes inside the block waits most of the time."""
        over = threading.Event()

        def act() -> None:
            while not over.is_set():
                _run("fsfreeze", "--freeze", str(self.folder))
                try:
                    time.sleep(FROZEN_SECONDS)
                finally:
                    _run("fsfreeze", "--unfreeze", str(self.folder))
                time.sleep(OPEN_SECONDS)

        thread = threading.Thread(target=act)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def _run(*argv: str) -> str:
    """Run a command on this machine. Raises AssertionError with what it says."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr}"
    return done.stdout
