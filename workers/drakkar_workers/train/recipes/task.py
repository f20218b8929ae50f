"""What the loop asks of a recipe.

Batches are a function of the step alone, so that any number of ranks continues where others stopped:
a rank asks for its part of the parts that a step has.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from drakkar_workers.train.models.decoder import Shape

Batch = tuple[Tensor, ...]
"""What a recipe's own loss takes, on the device."""


@dataclass(frozen=True, slots=True)
class Share:
    """The part of every step's data that a rank computes."""

    index: int
    of: int
    """Ranks that have data of their own; those of one tensor-parallel group share theirs."""
    device: torch.device


class Task(ABC):
    """A recipe at work. The model's attributes are the same on all ranks."""

    shape: Shape
    """Sizes of the model that is trained."""
    digest: str
    """sha256 of the data: equal on all ranks, or they learn different things."""
    tokens_per_step: int
    baseline: float | None = None
    """Held-out loss of a model that only counts tokens, where that says something."""
    balance_rate: float = 0.0
    """Of experts, where the model has any."""

    @abstractmethod
    def build(self) -> nn.Module:
        """The model in host memory, with the same weights on all ranks."""

    @abstractmethod
    def weight(self, step: int) -> float:
        """What the losses of a step are divided by, over all ranks: targets, or pairs."""

    @abstractmethod
    def batch(self, step: int, share: Share, micro: int, micros: int) -> Batch:
        """A rank's part of one of a step's micro-batches; ``step`` counts from 0."""

    @abstractmethod
    def held_out(self, share: Share, micros: int) -> Iterator[tuple[Batch, float]]:
        """Batches for evaluation, with their weight; every rank gets the same number of them."""

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Sum over the batch, a float32 scalar."""
        loss: Tensor = model(*batch)
        return loss

    @abstractmethod
    def export(self, folder: Path, tensors: dict[str, Tensor]) -> None:
        """Write what others read into the last checkpoint's folder; ``tensors`` are whole."""

    @abstractmethod
    def about(self) -> str:
        """The data in a line."""

    def sample(self, model: nn.Module, precision: torch.autocast, multiple: int) -> str | None:
        """Text that the model writes at the end, from windows whose length is a multiple."""
        return None

    def manifest_model(self) -> dict[str, Any]:
        """What a checkpoint must agree on to be of the same model."""
        return self.shape.as_dict()
