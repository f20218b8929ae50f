"""Activation checkpointing (Chen et al., arXiv 1604.06174): compute again instead of keeping."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

_ATEN = torch.ops.aten
_KEPT = {
    _ATEN.mm.default,
    _ATEN.addmm.default,
    _ATEN._grouped_mm.default,
    _ATEN._scaled_dot_product_flash_attention.default,
    _ATEN._scaled_dot_product_flash_attention_for_cpu.default,
    _ATEN._scaled_dot_product_efficient_attention.default,
    _ATEN._scaled_dot_product_cudnn_attention.default,
}
"""Costly to compute; what lies between them is cheap and takes most of the memory."""


def recomputed(
    how: Literal["selective", "full"], forward: Callable[..., Tensor], *inputs: Tensor
) -> Tensor:
    """``forward(*inputs)``, of which the backward pass finds little in memory."""
    keep: dict[str, Any] = (
        {"context_fn": partial(create_selective_checkpoint_contexts, _policy)}
        if how == "selective"
        else {}
    )
    out: Tensor = checkpoint(forward, *inputs, use_reentrant=False, **keep)
    return out


def _policy(_context: Any, operation: Any, *_args: Any, **_kwargs: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operation in _KEPT else CheckpointPolicy.PREFER_RECOMPUTE
