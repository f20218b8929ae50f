"""What a checkpoint costs the training, and how long a restore takes, by kind.

One rank with a state of 256 MB. Each save is timed twice: the *stall*, until the training may go on,
and until the checkpoint is *safe* (on disk with fsync, or whole in memory). Two stores: the folder for
temporary files, and a file system in memory whose block device is throttled to 100 MB/s (a loop device
and the kernel's blkio throttle, cgroup v1; needs root, left out where that is not there)::

    python tests/bench/checkpoint.py [--megabytes 256] [--rounds 5]
"""

import argparse
import asyncio
import contextlib
import shutil
import statistics
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.filesystem import FileSystemWriter

from drakkar_workers.agent.courier import Courier
from drakkar_workers.agent.metrics import registry
from drakkar_workers.agent.server import Server
from drakkar_workers.agent.vault import Vault
from drakkar_workers.agent.wire import Fetch
from drakkar_workers.memory.arena import Arena, Key
from drakkar_workers.train.checkpoint import layout, restore
from drakkar_workers.train.checkpoint.layout import Manifest
from drakkar_workers.train.checkpoint.memory import Memory
from drakkar_workers.train.checkpoint.saver import Saver
from drakkar_workers.train.world import World

BYTES_PER_SECOND = 100_000_000
BLKIO = Path("/sys/fs/cgroup/blkio/blkio.throttle.write_bps_device")
WORLD = World(0, 1, torch.device("cpu"), None)
Timed = tuple[float, float]
"""Seconds: stall, and until it is safe."""


def state(megabytes: int) -> dict[str, Tensor]:
    """64 tensors of random numbers."""
    each = megabytes * 1_000_000 // 4 // 64
    return {f"layer.{i}.weight": torch.randn(each) for i in range(64)}


def manifest(step: int) -> Manifest:
    """Of a made-up run."""
    return Manifest(
        step=step,
        world_size=1,
        time=0,
        started=0,
        productive_seconds=0,
        recipe={},
        recipe_sha256="",
        model={},
        data_sha256="",
        files={},
    )


def torch_save(tensors: dict[str, Tensor], folder: Path) -> Callable[[int], Timed]:
    """torch.save, and fsync as a checkpoint needs it."""

    def save(step: int) -> Timed:
        begin = time.perf_counter()
        with (folder / f"{step}.pt").open("wb") as file:
            torch.save(tensors, file)
            file.flush()
            layout.sync(Path(file.name))
        took = time.perf_counter() - begin
        return took, took

    return save


def dcp_save(tensors: dict[str, Tensor], folder: Path) -> Callable[[int], Timed]:
    """torch.distributed.checkpoint, waiting."""

    def save(step: int) -> Timed:
        begin = time.perf_counter()
        dcp.save(dict(tensors), storage_writer=FileSystemWriter(folder / str(step)), no_dist=True)
        took = time.perf_counter() - begin
        return took, took

    return save


def dcp_async(tensors: dict[str, Tensor], folder: Path) -> Callable[[int], Timed]:
    """torch.distributed.checkpoint by its thread."""

    def save(step: int) -> Timed:
        begin = time.perf_counter()
        writer = FileSystemWriter(folder / str(step))
        future = dcp.async_save(dict(tensors), storage_writer=writer, no_dist=True)
        stall = time.perf_counter() - begin
        getattr(future, "upload_completion", future).result()
        return stall, time.perf_counter() - begin

    return save


def drakkar_storage(tensors: dict[str, Tensor], folder: Path) -> Callable[[int], Timed]:
    """The trainer's checkpoints: staged, written and checked in the background, published."""
    layout.claim(folder, "bench")
    saver = Saver(folder, keep=1, attempt="bench", world=WORLD)

    def save(step: int) -> Timed:
        begin = time.perf_counter()
        saver.save(tensors, manifest=manifest(step), own=b"{}")
        stall = time.perf_counter() - begin
        outcome = saver.wait()
        assert outcome is not None and outcome.folder is not None, outcome
        return stall, time.perf_counter() - begin

    return save


def drakkar_memory(tensors: dict[str, Tensor], _folder: Path) -> Callable[[int], Timed]:
    """Checkpoints in memory, checksums included."""
    memory = Memory(Arena.create("bench"), WORLD, epoch=1, shared=False)
    memory.reserve(tensors)

    def save(step: int) -> Timed:
        begin = time.perf_counter()
        memory.save(step, tensors, meta={}, own=b"{}")
        took = time.perf_counter() - begin
        return took, took

    return save


def plain_copy(tensors: dict[str, Tensor], _folder: Path) -> Callable[[int], Timed]:
    """A copy into buffers that are there: the least that it can cost."""
    buffers = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}

    def save(_step: int) -> Timed:
        begin = time.perf_counter()
        for name, tensor in tensors.items():
            buffers[name].copy_(tensor)
        took = time.perf_counter() - begin
        return took, took

    return save


METHODS = {
    "torch.save, fsync": torch_save,
    "DCP": dcp_save,
    "DCP async": dcp_async,
    "drakkar, storage": drakkar_storage,
    "drakkar, memory": drakkar_memory,
    "(plain copy)": plain_copy,
}


@contextlib.contextmanager
def throttled() -> Iterator[Path | None]:
    """A folder on a block device of 100 MB/s; None where that can't be had."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as work:
        image, mount = Path(work) / "image", Path(work) / "mount"
        mount.mkdir()
        with image.open("wb") as file:
            file.truncate(4 << 30)
        try:
            _run("mkfs.ext4", "-q", "-m", "0", str(image))
            device = _run("losetup", "--find", "--show", str(image)).strip()
        except (OSError, subprocess.CalledProcessError):
            yield None
            return
        number = (Path("/sys/block") / Path(device).name / "dev").read_text().strip()
        mounted = False
        try:
            _run("mount", device, str(mount))
            mounted = True
            BLKIO.write_text(f"{number} {BYTES_PER_SECOND}")
            yield mount
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"no throttled store here: {error}")
            yield None
        finally:
            with contextlib.suppress(OSError):
                BLKIO.write_text(f"{number} 0")
            if mounted:
                _run("umount", str(mount))
            _run("losetup", "-d", device)


def _run(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def written(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def measure_saves(tensors: dict[str, Tensor], where: Path, rounds: int) -> None:
    """Print a line for each method."""
    print(f"{'':<22}{'stall s':>10}{'worst':>10}{'safe after s':>14}{'written MB':>12}")
    for name, method in METHODS.items():
        folder = where / "saves"
        folder.mkdir()
        save = method(tensors, folder)
        save(0)  # Buffers are made at the first.
        if not name.startswith("drakkar"):
            shutil.rmtree(folder)
            folder.mkdir()
        times, size = [], 0
        for step in range(1, rounds + 1):
            times.append(save(step))
            size = written(folder)
            if not name.startswith("drakkar"):
                shutil.rmtree(folder)
                folder.mkdir()
        stalls, safe = zip(*times, strict=True)
        print(
            f"{name:<22}{statistics.median(stalls):>10.3f}{max(stalls):>10.3f}"
            f"{statistics.median(safe):>14.3f}{size / 1e6:>12.0f}",
            flush=True,
        )
        shutil.rmtree(folder)


def measure_restores(tensors: dict[str, Tensor], where: Path, rounds: int) -> None:
    """Print how long it takes to have the state back from each source."""
    found: dict[str, list[float]] = {"own memory": [], "peer's memory": [], "storage": []}
    layout.claim(where, "bench")
    saver = Saver(where, keep=1, attempt="bench", world=WORLD)
    saver.save(tensors, manifest=manifest(1), own=b"{}")
    saver.wait()
    for _ in range(rounds):
        vault = Vault([0])
        memory = Memory(vault.own[0], WORLD, epoch=1, shared=False)
        memory.save(1, tensors, meta={}, own=b"{}")
        found["own memory"].append(_recall(memory, tensors))
        found["peer's memory"].append(asyncio.run(_from_peer(vault, tensors)))
        begin = time.perf_counter()
        newest = restore.newest(where, WORLD, print)
        assert newest is not None
        restore.load_tensors(newest.folder, tensors)
        found["storage"].append(time.perf_counter() - begin)
        vault.close()
    for name, seconds in found.items():
        print(f"{name:<22}{statistics.median(seconds):>10.3f}{max(seconds):>10.3f}")


def _recall(memory: Memory, tensors: dict[str, Tensor]) -> float:
    begin = time.perf_counter()
    recalled = memory.recall(0)
    assert recalled is not None
    memory.load(recalled, tensors)
    return time.perf_counter() - begin


async def _from_peer(keeper: Vault, tensors: dict[str, Tensor]) -> float:
    """Over HTTP on this machine, not throttled."""
    port = 18_600
    keeper.copies = keeper.own
    server = Server(registry(lambda: None), None, 1, "bench", keeper)  # type: ignore[arg-type]
    await server.open("127.0.0.1", port)
    courier = Courier("bench", port, 1e12)
    lost = Vault([0])
    try:
        begin = time.perf_counter()
        await courier.fetch(Fetch(rank=0, epoch=1, step=1, host="127.0.0.1"), lost)
        record = lost.own[0].find(Key(1, 1))
        assert record is not None
        seconds = time.perf_counter() - begin
        return seconds + _recall(Memory(lost.own[0], WORLD, epoch=2, shared=False), tensors)
    finally:
        await courier.close()
        await server.close()
        keeper.copies = {}
        lost.close()


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    tensors = state(arguments.megabytes)
    with tempfile.TemporaryDirectory(prefix="drakkar-bench-") as local:
        print("local disk")
        measure_saves(tensors, Path(local), arguments.rounds)
    with throttled() as slow:
        if slow is not None:
            print(f"store of {BYTES_PER_SECOND // 1_000_000} MB/s")
            measure_saves(tensors, slow, arguments.rounds)
    with tempfile.TemporaryDirectory(prefix="drakkar-bench-") as local:
        print("restore, s            median     worst")
        measure_restores(tensors, Path(local), arguments.rounds)


if __name__ == "__main__":
    main()
