"""Expert parallel: each rank has some experts, and gets the tokens of all ranks that chose them."""

from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor


class Grouped(Protocol):
    """Computes rows sorted by group: (rows, width), rows of each group -> (rows, width)."""

    def __call__(self, rows: Tensor, counts: Tensor, /) -> Tensor: ...


class _AllToAll(torch.autograd.Function):
    """Rows to the ranks of a group in order, as many to each as ``given`` says."""

    @staticmethod
    def forward(
        context: Any, x: Tensor, given: list[int], taken: list[int], group: dist.ProcessGroup
    ) -> Tensor:
        context.splits = (given, taken, group)
        return _exchanged(x, given, taken, group)

    @staticmethod
    def backward(context: Any, *gradients: Any) -> tuple[Tensor, None, None, None]:
        given, taken, group = context.splits
        return _exchanged(gradients[0], taken, given, group), None, None, None


def _exchanged(x: Tensor, given: list[int], taken: list[int], group: dist.ProcessGroup) -> Tensor:
    out = x.new_empty(sum(taken), *x.shape[1:])
    dist.all_to_all_single(out, x.contiguous(), taken, given, group=group)
    return out


class Dispatch:
    """One rank's part in a group that shares experts: rank r has the r-th of equal parts of them."""

    def __init__(self, group: dist.ProcessGroup, size: int) -> None:
        self._group, self._size = group, size

    def through(self, experts: Grouped, x_MD: Tensor, counts_G: Tensor) -> Tensor:
        """What the experts of all ranks say to rows of this rank, which are sorted by expert."""
        incoming_RE = counts_G.new_empty(self._size, len(counts_G) // self._size)
        dist.all_to_all_single(incoming_RE, counts_G.view_as(incoming_RE), group=self._group)
        # The host must know them: they are the sizes of messages.
        given = counts_G.view_as(incoming_RE).sum(1).tolist()
        taken = incoming_RE.sum(1).tolist()
        rows_MD: Tensor = _AllToAll.apply(x_MD, given, taken, self._group)
        # They come by rank, and by expert within a rank.
        each = incoming_RE.shape[1]
        expert_M = torch.arange(each, device=x_MD.device).repeat(self._size)
        expert_M = expert_M.repeat_interleave(incoming_RE.flatten(), output_size=sum(taken))
        order_M = expert_M.argsort(stable=True)
        said_MD = experts(rows_MD[order_M], incoming_RE.sum(0))
        back_MD: Tensor = _AllToAll.apply(said_MD[order_M.argsort()], taken, given, self._group)
        return back_MD
