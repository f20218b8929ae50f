"""Token windows as tensors."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Tokens = NDArray[np.generic]
Starts = NDArray[np.int64]


def gather(
    tokens: Tokens, starts: Starts, sequence: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Inputs and targets (the next tokens) of windows, int64 of shape (windows, sequence) each."""
    windows = tokens[starts[:, None] + np.arange(sequence + 1)]
    ids = torch.from_numpy(windows.astype(np.int64)).to(device, non_blocking=True)
    return ids[:, :-1], ids[:, 1:]


def held_out_starts(tokens: int, sequence: int, limit: int) -> Starts:
    """Where windows of the held-out text begin: at most ``limit``, spread evenly, never overlapping.

    The same at every evaluation, so that losses can be compared.
    """
    count = (tokens - 1) // sequence
    chosen = np.arange(count) if count <= limit else np.arange(limit) * count // limit
    starts: Starts = chosen.astype(np.int64) * sequence
    return starts
