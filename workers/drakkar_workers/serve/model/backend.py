"""What a device must be able to do for a decoder to run on it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Quantization = Literal["none", "int8", "int4"]
BLOCK = 16
"""Tokens of a cache block."""
GROUP = 64
"""Inputs that share a scale when quantised."""

Ints = NDArray[np.int32]


@dataclass(slots=True)
class Batch:
    """The tokens of one step: T tokens of S sequences, a sequence's tokens side by side."""

    ids: NDArray[np.int64]
    """Shape (T,)."""
    positions: Ints
    """Shape (T,)."""
    slots: Ints
    """Shape (T,): block x 16 + offset, where a token's keys and values go."""
    table: Ints
    """Shape (sequences, blocks): the blocks of each sequence; longer than needed."""
    pieces: Ints
    """Shape (S, 4): row of the table, first token's row, tokens, first token's position."""
    adapters: Sequence[tuple[str, slice]] = field(default=())
    """Which rows run with which LoRA adapter."""


@dataclass(slots=True)
class Linear:
    """A weight as a backend wants it."""

    inputs: int
    outputs: int
    kind: int
    weight: Tensor
    scales: Tensor | None = None
    bias: Tensor | None = None


@dataclass(slots=True)
class Heads:
    """What attention needs to know of the model."""

    count: int
    kv_count: int
    width: int
    epsilon: float
    q_norm: Tensor | None = None
    """Shape (width,), float32."""
    k_norm: Tensor | None = None


class Backend(Protocol):
    """Residuals are float32; what enters a matrix product has the backend's ``dtype``."""

    dtype: torch.dtype
    device: torch.device

    def pack(self, weight: Tensor, bias: Tensor | None, quantization: Quantization) -> Linear:
        """Prepare a weight of shape (outputs, inputs)."""
        ...

    def cache(self, layers: int, blocks: int, heads: Heads) -> Tensor:
        """Keys and values: [2, layers, blocks, ...]."""
        ...

    def start(self, batch: Batch) -> None:
        """A step's batch is about to run."""
        ...

    def norm(self, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        """RMS norm: (T, D) float32 to ``dtype``."""
        ...

    def linear(self, x: Tensor, linear: Linear) -> Tensor:
        """(T, inputs) to (T, outputs), float32."""
        ...

    def add_linear(self, residual: Tensor, x: Tensor, linear: Linear) -> None:
        """Add a product to the residual in place."""
        ...

    def rope(
        self, qkv: Tensor, heads: Heads, tables: tuple[Tensor, Tensor], cache: Tensor
    ) -> Tensor:
        """Turn queries and keys, put keys and values into a layer's cache [2, blocks, ...].

        (T, (heads + 2 kv_heads) x width) float32 to the queries (T, heads x width).
        """
        ...

    def attend(self, q: Tensor, heads: Heads, cache: Tensor) -> Tensor:
        """Causal attention over everything that a token's sequence has in the cache."""
        ...

    def swiglu(self, gate_up: Tensor) -> Tensor:
        """(T, 2 x width) float32 to (T, width)."""
        ...


def quantise(weight: Tensor, quantization: Quantization) -> tuple[Tensor, Tensor]:
    """Symmetric whole numbers and their scales: int8 per output, int4 per group of 64 inputs.

    Shapes (outputs, inputs) int8 and (outputs, groups) float32.
    """
    outputs, inputs = weight.shape
    groups = -(-inputs // GROUP)
    w = torch.nn.functional.pad(weight.float(), (0, groups * GROUP - inputs))
    w = w.view(outputs, groups, GROUP)
    top, limit = (7, -8) if quantization == "int4" else (127, -127)
    largest = w.abs().amax(dim=2, keepdim=True)
    if quantization == "int8":
        largest = largest.amax(dim=1, keepdim=True).expand(-1, groups, -1)
    scales = (largest / top).clamp(min=1e-12)
    q = (w / scales).round().clamp(limit, top).to(torch.int8)
    return q.view(outputs, -1)[:, :inputs].contiguous(), scales.squeeze(2).contiguous()
