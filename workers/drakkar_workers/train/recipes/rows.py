"""Conversations of different lengths as one batch."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from drakkar_workers.data.conversations import Example
from drakkar_workers.train.models.decoder import IGNORE

MULTIPLE = 16
"""Rows are filled up to a multiple of this."""


def pad(
    examples: Sequence[Example], limit: int, shared: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Ids and targets, each of shape (rows, tokens): of the longest row, ``limit`` at most.

    ``shared``: ranks that share a row, whose length they divide.
    """
    multiple = MULTIPLE * shared
    longest = max(len(example.ids) for example in examples) - 1
    width = min(-(-longest // multiple) * multiple, limit)
    # What fills a row follows all that counts, so that no position sees it.
    ids = np.zeros((len(examples), width), np.int64)
    targets = np.full((len(examples), width), IGNORE, np.int64)
    for row, example in enumerate(examples):
        length = len(example.ids) - 1
        ids[row, :length] = example.ids[:-1]
        targets[row, :length] = np.where(example.learned[1:], example.ids[1:], IGNORE)
    return (
        torch.from_numpy(ids).to(device, non_blocking=True),
        torch.from_numpy(targets).to(device, non_blocking=True),
    )
