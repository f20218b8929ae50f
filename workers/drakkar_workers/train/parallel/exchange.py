"""All-to-all with a backward pass, and what Ulysses attention makes of it (arXiv 2309.14509)."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class _AllToAll(torch.autograd.Function):
    """Slice i of the first dimension goes to rank i; equal slices."""

    @staticmethod
    def forward(context: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        context.group = group
        return _exchanged(x, group)

    @staticmethod
    def backward(context: Any, *gradients: Any) -> tuple[Tensor, None]:
        return _exchanged(gradients[0], context.group), None


def _exchanged(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    dist.all_to_all_single(out, x.contiguous(), group=group)
    return out


class Exchange:
    """One rank's part in a group that shares each sequence. Shapes as in the decoder."""

    def __init__(self, group: dist.ProcessGroup, rank: int, size: int) -> None:
        self._group, self._rank, self._size = group, rank, size

    def part(self, length: int) -> slice:
        """The positions of a sequence of this length that are this rank's."""
        each = length // self._size
        return slice(self._rank * each, (self._rank + 1) * each)

    def heads_for_positions(self, x_BHTE: Tensor) -> Tensor:
        """(B, H, T / ranks, E) to (B, H / ranks, T, E)."""
        parts = torch.stack(x_BHTE.chunk(self._size, dim=1))
        return torch.cat(self._all_to_all(parts).unbind(), dim=2)

    def positions_for_heads(self, x_BHTE: Tensor) -> Tensor:
        """(B, H / ranks, T, E) to (B, H, T / ranks, E)."""
        parts = torch.stack(x_BHTE.chunk(self._size, dim=2))
        return torch.cat(self._all_to_all(parts).unbind(), dim=1)

    def _all_to_all(self, parts: Tensor) -> Tensor:
        out: Tensor = _AllToAll.apply(parts, self._group)
        return out
