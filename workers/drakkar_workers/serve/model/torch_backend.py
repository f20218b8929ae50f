"""The backend in plain torch: for accelerators, and for CPUs without a compiler.

Written for CUDA too, where torch's own fused attention runs; it has not run on a GPU yet.
"""

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 (the name all of torch's users give it)

from drakkar_workers.serve.model.backend import (
    BLOCK,
    GROUP,
    Batch,
    Heads,
    Linear,
    Quantization,
    quantise,
)

PLAIN, QUANTISED = range(2)


class TorchBackend:
    """Any device and dtype of torch. Keys and values lie as [2, layers, blocks x 16, heads, width]."""

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        self.dtype = dtype
        self.device = device

    def pack(self, weight: Tensor, bias: Tensor | None, quantization: Quantization) -> Linear:
        """As it is, or whole numbers with scales that are multiplied out when used."""
        outputs, inputs = weight.shape
        bias = None if bias is None else bias.to(self.device, torch.float32)
        if quantization == "none":
            plain = weight.to(self.device, self.dtype).contiguous()
            return Linear(inputs, outputs, PLAIN, plain, None, bias)
        q, scales = quantise(weight, quantization)
        return Linear(inputs, outputs, QUANTISED, q.to(self.device), scales.to(self.device), bias)

    def cache(self, layers: int, blocks: int, heads: Heads) -> Tensor:
        """Slots, so that a block is 16 rows."""
        size = (2, layers, blocks * BLOCK, heads.kv_count, heads.width)
        return torch.zeros(size, dtype=self.dtype, device=self.device)

    def start(self, batch: Batch) -> None:
        """Move the batch's numbers to the device, and find every sequence's slots."""
        self._batch = batch
        self._positions = torch.from_numpy(batch.positions).long().to(self.device)
        self._slots = torch.from_numpy(batch.slots).long().to(self.device)
        within = torch.arange(BLOCK)
        self._rows = []
        for row, _first, tokens, position in batch.pieces.tolist():
            blocks = torch.from_numpy(batch.table[row, : -(-(position + tokens) // BLOCK)]).long()
            slots = (blocks[:, None] * BLOCK + within).flatten()[: position + tokens]
            self._rows.append(slots.to(self.device))

    def norm(self, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        """In float32."""
        return F.rms_norm(x, (x.shape[-1],), weight, epsilon).to(self.dtype)

    def linear(self, x: Tensor, linear: Linear) -> Tensor:
        """Bias included."""
        weight = linear.weight
        if linear.scales is not None:
            scales = linear.scales.repeat_interleave(GROUP, dim=1)[:, : linear.inputs]
            weight = (weight * scales).to(self.dtype)
        out = F.linear(x, weight).float()
        return out if linear.bias is None else out + linear.bias

    def add_linear(self, residual: Tensor, x: Tensor, linear: Linear) -> None:
        """In float32."""
        residual += self.linear(x, linear)

    def rope(
        self, qkv: Tensor, heads: Heads, tables: tuple[Tensor, Tensor], cache: Tensor
    ) -> Tensor:
        """Norms of queries and keys included, where the model has them."""
        tokens = qkv.shape[0]
        q, k, v = (
            part.view(tokens, -1, heads.width)
            for part in torch.split(
                qkv, [n * heads.width for n in (heads.count, heads.kv_count, heads.kv_count)], dim=1
            )
        )
        if heads.q_norm is not None and heads.k_norm is not None:
            q = F.rms_norm(q, (heads.width,), heads.q_norm, heads.epsilon)
            k = F.rms_norm(k, (heads.width,), heads.k_norm, heads.epsilon)
        cos, sin = (table[self._positions][:, None] for table in tables)
        cache[0][self._slots] = _turn(k, cos, sin).to(self.dtype)
        cache[1][self._slots] = v.to(self.dtype)
        return _turn(q, cos, sin).to(self.dtype).flatten(1)

    def attend(self, q: Tensor, heads: Heads, cache: Tensor) -> Tensor:
        """Sequence by sequence; those that decode at equal lengths could share a call."""
        out = torch.empty_like(q)
        grouped = heads.count != heads.kv_count
        for slots, (_row, first, tokens, position) in zip(
            self._rows, self._batch.pieces.tolist(), strict=True
        ):
            rows = slice(first, first + tokens)
            queries = q[rows].view(tokens, heads.count, heads.width).transpose(0, 1)[None]
            keys, values = (cache[i][slots].transpose(0, 1)[None] for i in range(2))
            mask = None
            if tokens > 1:
                mask = torch.ones(tokens, len(slots), dtype=torch.bool, device=self.device)
                mask = mask.tril(diagonal=position)
            mixed = F.scaled_dot_product_attention(
                queries, keys, values, attn_mask=mask, enable_gqa=grouped
            )
            out[rows] = mixed[0].transpose(0, 1).reshape(tokens, -1)
        return out

    def swiglu(self, gate_up: Tensor) -> Tensor:
        """In float32."""
        gate, up = gate_up.chunk(2, dim=-1)
        return (F.silu(gate) * up).to(self.dtype)


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Halves as Hugging Face lays them; x is (T, heads, width), the tables (T, 1, width / 2)."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
