"""The CPU backend: every step of a decoder as one call of a compiled kernel.

Results do not depend on the batch: a token's logits are the same bits alone, among others, in a
chunk, as a draft, or after a preemption.
"""

from ctypes import POINTER, Structure, byref, c_float, c_int, c_void_p

import numpy as np
import torch
from torch import Tensor

from drakkar_workers.errors import ConfigError
from drakkar_workers.serve.model.backend import (
    BLOCK,
    GROUP,
    Batch,
    Heads,
    Linear,
    Quantization,
    quantise,
)
from drakkar_workers.serve.model.native import build

F32, BF16, INT8, INT4 = range(4)
PANEL = 32
QUERIES = 16
"""Tokens of a prompt that a work item of attention takes."""
WIDEST_HEAD = 256


def _fields(ints: str, floats: str, pointers: str) -> list[tuple[str, type]]:
    return [
        *((name, c_int) for name in ints.split()),
        *((name, c_float) for name in floats.split()),
        *((name, c_void_p) for name in pointers.split()),
    ]


class _Gemm(Structure):
    _fields_ = _fields("kind rows inner outputs accumulate", "", "x weights scales bias out")


class _Attention(Structure):
    _fields_ = _fields(
        "kind items heads kv_heads width table_stride", "scale", "q keys values table work out"
    )


class _Rope(Structure):
    _fields_ = _fields(
        "kind tokens heads kv_heads width",
        "epsilon",
        "qkv q_norm k_norm cos sin positions slots q keys values",
    )


class NativeBackend:
    """``dtype`` is float32 or bfloat16. Raises NoKernelsError where nothing can be compiled."""

    device = torch.device("cpu")

    def __init__(self, dtype: torch.dtype, threads: int) -> None:
        self.dtype = dtype
        self.threads = threads
        self._kind = F32 if dtype == torch.float32 else BF16
        self._lib = build.load()
        self._lib.drakkar_gemm.argtypes = [POINTER(_Gemm), c_int]
        self._lib.drakkar_attention.argtypes = [POINTER(_Attention), c_int]
        self._lib.drakkar_rope.argtypes = [POINTER(_Rope), c_int]
        self._lib.drakkar_norm.argtypes = [
            c_int, c_void_p, c_void_p, c_float, c_int, c_int, c_void_p, c_int,
        ]  # fmt: skip
        self._lib.drakkar_swiglu.argtypes = [c_int, c_void_p, c_int, c_int, c_void_p, c_int]
        for name in ("gemm", "attention", "rope", "norm", "swiglu"):
            getattr(self._lib, f"drakkar_{name}").restype = None

    @property
    def fast_bf16(self) -> bool:
        """Whether the processor multiplies bf16 itself."""
        return bool(self._lib.drakkar_has_bf16())

    def pack(self, weight: Tensor, bias: Tensor | None, quantization: Quantization) -> Linear:
        """Panels of 32 outputs; see gemm.h."""
        outputs, inputs = weight.shape
        if inputs % 2:
            raise ConfigError(f"a weight of shape {tuple(weight.shape)} has an odd inner size")
        bias = None if bias is None else bias.float().contiguous()
        if quantization == "none":
            step = 1 if self._kind == F32 else 2
            rows = _padded(weight.to(self.dtype))
            packed = rows.view(-1, PANEL, inputs // step, step).permute(0, 2, 1, 3).contiguous()
            return Linear(inputs, outputs, self._kind, packed, None, bias)
        if self._kind == F32:
            raise ConfigError(f"quantization {quantization} needs dtype bfloat16")
        q, scales = quantise(weight, quantization)
        q, scales = _padded(q), _padded(scales)
        # [panel, pair, half panel, low or high of the pair, 16]
        halves = q.view(-1, 2, 16, inputs // 2, 2).permute(0, 3, 1, 4, 2)
        if quantization == "int4":
            shifted = (halves + 8).to(torch.uint8)
            halves = shifted[:, :, :, 0] | (shifted[:, :, :, 1] << 4)
        scales = scales.view(-1, PANEL, -(-inputs // GROUP)).permute(0, 2, 1).contiguous()
        kind = INT8 if quantization == "int8" else INT4
        return Linear(inputs, outputs, kind, halves.contiguous(), scales, bias)

    def require_heads(self, width: int) -> None:
        """Raise build.NoKernelsError for heads that no kernel was written for."""
        if width % 16 or width > WIDEST_HEAD:
            raise build.NoKernelsError(
                f"head width {width} is no multiple of 16 up to {WIDEST_HEAD}"
            )

    def cache(self, layers: int, blocks: int, heads: Heads) -> Tensor:
        """[2, layers, blocks, kv heads, 16 x width]; see attention.h for the order inside."""
        self.require_heads(heads.width)
        size = (2, layers, blocks, heads.kv_count, BLOCK * heads.width)
        return torch.zeros(size, dtype=self.dtype)

    def start(self, batch: Batch) -> None:
        """Cut the batch's pieces into work items."""
        self._batch = batch
        self._work = _tiles(batch.pieces)

    def norm(self, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        """One pass per row."""
        rows, width = x.shape
        out = torch.empty(rows, width, dtype=self.dtype)
        self._lib.drakkar_norm(
            self._kind, x.data_ptr(), weight.data_ptr(), epsilon, rows, width, out.data_ptr(),
            self.threads,
        )  # fmt: skip
        return out

    def linear(self, x: Tensor, linear: Linear) -> Tensor:
        """Bias included."""
        out = torch.empty(x.shape[0], linear.outputs)
        self._gemm(x, linear, out, accumulate=False)
        return out

    def add_linear(self, residual: Tensor, x: Tensor, linear: Linear) -> None:
        """Sums start with the residual."""
        self._gemm(x, linear, residual, accumulate=True)

    def rope(
        self, qkv: Tensor, heads: Heads, tables: tuple[Tensor, Tensor], cache: Tensor
    ) -> Tensor:
        """Norms of queries and keys included, where the model has them."""
        tokens = qkv.shape[0]
        q = torch.empty(tokens, heads.count * heads.width, dtype=self.dtype)
        call = _Rope(
            self._kind, tokens, heads.count, heads.kv_count, heads.width, heads.epsilon,
            qkv.data_ptr(), _pointer(heads.q_norm), _pointer(heads.k_norm),
            tables[0].data_ptr(), tables[1].data_ptr(),
            self._batch.positions.ctypes.data, self._batch.slots.ctypes.data,
            q.data_ptr(), cache[0].data_ptr(), cache[1].data_ptr(),
        )  # fmt: skip
        self._lib.drakkar_rope(byref(call), self.threads)
        return q

    def attend(self, q: Tensor, heads: Heads, cache: Tensor) -> Tensor:
        """Straight from the blocks: nothing is gathered."""
        out = torch.empty_like(q)
        table = self._batch.table
        call = _Attention(
            self._kind, len(self._work), heads.count, heads.kv_count, heads.width, table.shape[1],
            heads.width**-0.5, q.data_ptr(), cache[0].data_ptr(), cache[1].data_ptr(),
            table.ctypes.data, self._work.ctypes.data, out.data_ptr(),
        )  # fmt: skip
        self._lib.drakkar_attention(byref(call), self.threads)
        return out

    def swiglu(self, gate_up: Tensor) -> Tensor:
        """One pass per row."""
        rows, double = gate_up.shape
        out = torch.empty(rows, double // 2, dtype=self.dtype)
        self._lib.drakkar_swiglu(
            self._kind, gate_up.data_ptr(), rows, double // 2, out.data_ptr(), self.threads
        )
        return out

    def _gemm(self, x: Tensor, linear: Linear, out: Tensor, *, accumulate: bool) -> None:
        call = _Gemm(
            linear.kind, x.shape[0], linear.inputs, linear.outputs, int(accumulate),
            x.data_ptr(), linear.weight.data_ptr(), _pointer(linear.scales), _pointer(linear.bias),
            out.data_ptr(),
        )  # fmt: skip
        self._lib.drakkar_gemm(byref(call), self.threads)


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _padded(rows: Tensor) -> Tensor:
    """Rows up to a whole panel."""
    missing = -rows.shape[0] % PANEL
    return torch.cat((rows, rows.new_zeros(missing, rows.shape[1]))) if missing else rows


def _tiles(
    pieces: np.ndarray[tuple[int, ...], np.dtype[np.int32]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.int32]]:
    """Pieces of at most 16 tokens, the longest contexts first so that no thread ends late."""
    counts = -(-pieces[:, 2] // QUERIES)
    owner = np.repeat(np.arange(len(pieces)), counts)
    offset = (np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)) * QUERIES
    tiles = pieces[owner]
    tiles[:, 1] += offset
    tiles[:, 3] += offset
    tiles[:, 2] = np.minimum(tiles[:, 2] - offset, QUERIES)
    return np.ascontiguousarray(tiles[np.argsort(-tiles[:, 3], kind="stable")], dtype=np.int32)
