"""The two measurements: a matrix product on each device, an all-reduce between two nodes."""

import time
from dataclasses import dataclass

import torch
import torch.distributed as dist


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured."""

    matrix: int
    """Rows and columns of the square matrices."""
    dtype: torch.dtype
    vector: int
    """Bytes of the vector that two nodes reduce."""


CPU = Size(384, torch.float32, 4 << 20)
ACCELERATOR = Size(8192, torch.bfloat16, 512 << 20)

WINDOW_SECONDS = 1.0
WINDOWS = 3
"""The best of them counts: one that something else disturbed is none of the node's."""
REDUCTIONS = 3


def devices() -> list[torch.device]:
    """The accelerators that this process sees, or the CPU."""
    if not torch.accelerator.is_available():
        return [torch.device("cpu")]
    kind = torch.accelerator.current_accelerator()
    assert kind is not None
    return [torch.device(kind.type, index) for index in range(torch.accelerator.device_count())]


def size_of(device: torch.device) -> Size:
    """What fits a device."""
    return CPU if device.type == "cpu" else ACCELERATOR


def matmul_teraflops(device: torch.device) -> float:
    """Throughput of a matrix product, 1e12 operations per second."""
    size = size_of(device)
    a, b = (torch.randn(size.matrix, size.matrix, device=device, dtype=size.dtype) for _ in "ab")
    out = torch.empty_like(a)
    torch.mm(a, b, out=out)
    _settle(device)
    best = 0.0
    for _ in range(WINDOWS):
        count, start = 0, time.perf_counter()
        # At least twice, however slow: the clock runs over whole products.
        while count < 2 or time.perf_counter() - start < WINDOW_SECONDS:
            torch.mm(a, b, out=out)
            count += 1
            if device.type != "cpu" and count % 16 == 0:
                _settle(device)
        _settle(device)
        best = max(best, count / (time.perf_counter() - start))
    return float(best * 2 * size.matrix**3 / 1e12)


def bus_gbps(size: int, seconds: float, ranks: int) -> float:
    """Bus bandwidth of an all-reduce of ``size`` bytes, Gbit/s, as nccl-tests defines it.

    ``size / seconds`` times 2 (ranks - 1) / ranks: what each rank must send and receive at least. So
    it can be compared with the link whatever the number of ranks; of two, it is the plain quotient.
    """
    return size * 8 / seconds / 1e9 * 2 * (ranks - 1) / ranks


def allreduce_gbps(device: torch.device, group: dist.ProcessGroup) -> float:
    """Bus bandwidth of an all-reduce within a group that this rank is in, Gbit/s."""
    size = size_of(device)
    vector = torch.zeros(size.vector // 4, device=device, dtype=torch.float32)
    # The first one sets up the connections.
    dist.all_reduce(vector[:1024], group=group)
    best = float("inf")
    for _ in range(REDUCTIONS):
        _settle(device)
        start = time.perf_counter()
        dist.all_reduce(vector, group=group)
        _settle(device)
        best = min(best, time.perf_counter() - start)
    return bus_gbps(size.vector, best, dist.get_world_size(group))


def _settle(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
