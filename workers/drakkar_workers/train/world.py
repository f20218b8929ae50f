"""The ranks as one: process groups, the device, and the few collectives that the trainer needs."""

import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from drakkar_workers.train.settings import Rank

T = TypeVar("T")
CGROUP_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")


@dataclass(frozen=True, slots=True)
class World:
    """One rank's view of the gang. With one rank there are no process groups at all."""

    rank: int
    size: int
    device: torch.device
    saver: dist.ProcessGroup | None
    """A gloo group for the thread that writes checkpoints: two threads must never share a group,
    or their messages are taken for each other's."""

    @property
    def is_first(self) -> bool:
        """Rank 0, which speaks and decides for all."""
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Sums over all ranks, one per value."""
        word = torch.tensor(values, dtype=torch.float64)
        if self.size > 1:
            dist.all_reduce(word)
        result: list[float] = word.tolist()
        return result

    def sum_tensor(self, tensor: Tensor) -> Tensor:
        """The sum of all ranks' tensors, in the same memory."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def from_first(self, value: T) -> T:
        """Rank 0's value, on every rank; what the others pass is ignored."""
        return self._broadcast(value, None)

    def gather(self, value: T) -> list[T]:
        """Every rank's value, in order of rank, on every rank."""
        return self._gather(value, None)

    def saver_gather(self, value: T) -> list[T]:
        """``gather`` among the threads that write checkpoints."""
        return self._gather(value, self.saver)

    def saver_from_first(self, value: T) -> T:
        """``from_first`` among the threads that write checkpoints."""
        return self._broadcast(value, self.saver)

    def _gather(self, value: T, group: dist.ProcessGroup | None) -> list[T]:
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=group)
        return values

    def _broadcast(self, value: T, group: dist.ProcessGroup | None) -> T:
        if self.size == 1:
            return value
        values: list[Any] = [value if self.is_first else None]
        dist.broadcast_object_list(values, src=0, group=group, device=torch.device("cpu"))
        result: T = values[0]
        return result


def meet(rank: Rank, timeout_seconds: float) -> World:
    """Join the gang at MASTER_ADDR:MASTER_PORT. Raises torch's errors if it does not assemble."""
    device = pick_device(rank.local_rank)
    if rank.world_size == 1:
        return World(0, 1, device, None)
    timeout = timedelta(seconds=timeout_seconds)
    # Small words go by gloo even between GPUs: no kernel launch, no wait for the stream.
    backend = "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, rank=rank.rank, world_size=rank.world_size, timeout=timeout)
    saver = dist.new_group(backend="gloo", timeout=timeout)
    assert isinstance(saver, dist.ProcessGroup), "every rank is in it"
    return World(rank.rank, rank.world_size, device, saver)


def quieten() -> None:
    """Silence torch where it warns of what is meant. Filters are global: call it before threads."""
    # One rank saves and loads without a process group.
    warnings.filterwarnings("ignore", message=".*assuming the intent is to (save|load)")
    # Deprecated since 2.15, but its successor is unknown to older releases.
    warnings.filterwarnings("ignore", message=".*broadcast_buffers")
    # A norm over two dimensions of a mesh takes two reductions: small ones.
    logging.getLogger("torch.distributed.tensor._redistribute").setLevel(logging.ERROR)


def part(world: World) -> None:
    """Leave the gang in good order; only when no peer can still be waiting."""
    if world.size > 1:
        dist.destroy_process_group()


def pick_device(local_rank: int) -> torch.device:
    """The GPU of this rank, else the CPU."""
    if torch.cuda.is_available():
        device = torch.device("cuda", local_rank % torch.cuda.device_count())
        torch.cuda.set_device(device)
        return device
    return torch.device("cpu")


def thread_count(
    environ: Mapping[str, str], local_world_size: int, cpu_max: Path = CGROUP_CPU_MAX
) -> int:
    """Threads for CPU kernels: OMP_NUM_THREADS, else this rank's share of the container's CPUs."""
    asked = environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    cpus = float(len(os.sched_getaffinity(0)))
    try:
        quota, period = cpu_max.read_text().split()
        cpus = min(cpus, int(quota) / int(period))
    except (OSError, ValueError):
        pass  # No cgroup limit ("max"), or no cgroup v2.
    return max(1, int(cpus / local_world_size))


def computes_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bf16 natively: else autocast would only make it slower."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
