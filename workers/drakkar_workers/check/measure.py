"""The two measurements: a matrix product on each device, an exchange between two nodes."""

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
    """Bytes of the vector that two nodes exchange."""


CPU = Size(384, torch.float32, 4 << 20)
ACCELERATOR = Size(8192, torch.bfloat16, 512 << 20)

WINDOW_SECONDS = 1.0
WINDOWS = 3
"""The best of them counts: one that something else disturbed is none of the node's."""
EXCHANGES = 3


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


def exchange_gbps(device: torch.device, peer: int) -> float:
    """Bandwidth between this rank and another one, Gbit/s in one direction.

    Both send a vector to the other at once: what an all-reduce of two ranks puts on their link.
    """
    size = size_of(device)
    mine = torch.ones(size.vector // 4, device=device, dtype=torch.float32)
    theirs = torch.empty_like(mine)
    # The first one sets up the connection.
    _exchange(mine[:1024], theirs[:1024], peer)
    best = float("inf")
    for _ in range(EXCHANGES):
        _settle(device)
        start = time.perf_counter()
        _exchange(mine, theirs, peer)
        _settle(device)
        best = min(best, time.perf_counter() - start)
    return size.vector * 8 / best / 1e9


def _exchange(mine: torch.Tensor, theirs: torch.Tensor, peer: int) -> None:
    operations = [dist.P2POp(dist.isend, mine, peer), dist.P2POp(dist.irecv, theirs, peer)]
    for work in dist.batch_isend_irecv(operations):
        work.wait()


def _settle(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
