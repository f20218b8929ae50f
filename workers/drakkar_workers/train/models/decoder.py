"""A Llama-style decoder (Touvron et al., arXiv 2302.13971) in plain torch.

Parameters carry the names of Hugging Face's ``LlamaForCausalLM``, so a state dict needs no
translation. Shape suffixes: B batch, T time, D hidden, H heads, K key and value heads, E head
width, V vocabulary.
"""

import math
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn import functional as F  # noqa: N812 (the name all of torch's users give it)

from drakkar.v1alpha1.recipes import ModelConfig
from drakkar_workers.train.models.experts import Experts, MixtureOfExperts, Router
from drakkar_workers.train.models.recompute import recomputed
from drakkar_workers.train.parallel.exchange import Exchange

INIT_STD = 0.02
IGNORE = -100
"""A target that counts nothing, as transformers marks it."""
VOCAB_MULTIPLE = 64
"""The embedding is padded to a multiple of this: matrix units dislike odd widths."""


@dataclass(frozen=True, slots=True)
class Shape:
    """All sizes of a model, nothing left to a default."""

    vocab: int
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    mlp_hidden: int
    max_length: int
    rope_theta: float
    tie_embeddings: bool
    norm_epsilon: float = 1e-5
    head_dim: int | None = None
    qkv_bias: bool = False
    qk_norm: bool = False
    rope: dict[str, Any] | None = None
    """Scaled positions, in transformers' words; None: ``rope_theta`` says all."""
    experts: int = 0
    """Per layer; 0: each layer has one MLP."""
    active_experts: int = 0
    expert_hidden: int = 0
    shared_hidden: int = 0
    """Width of the MLP that every token uses beside its experts; 0: none."""
    dense_layers: int = 0
    """First layers that have one MLP all the same."""

    @property
    def head_width(self) -> int:
        """Width of one attention head."""
        return self.head_dim or self.hidden // self.heads

    def as_dict(self) -> dict[str, Any]:
        """All fields, as JSON holds them."""
        return asdict(self)

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Fields that have a value where nobody gives one."""
        return {f.name: f.default for f in fields(cls) if f.default is not MISSING}

    @classmethod
    def of(cls, config: ModelConfig, *, vocab_size: int, max_length: int) -> "Shape":
        """The sizes that a recipe's model settings and a tokenizer's vocabulary give."""
        many = config.experts
        return cls(
            vocab=_up(vocab_size, VOCAB_MULTIPLE),
            layers=config.layers,
            hidden=config.hidden,
            heads=config.heads,
            kv_heads=config.kv_heads or config.heads,
            mlp_hidden=config.mlp_hidden or _up(config.hidden * 8 // 3, 32),
            max_length=max_length,
            rope_theta=config.rope_theta,
            tie_embeddings=config.tie_embeddings,
            experts=many.count if many else 0,
            active_experts=many.active if many else 0,
            expert_hidden=many.hidden if many else 0,
            shared_hidden=many.shared * many.hidden if many else 0,
            dense_layers=many.dense_layers if many else 0,
        )


class Attention(nn.Module):
    """Causal grouped-query attention with rotary positions."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        width, kv_width = shape.heads * shape.head_width, shape.kv_heads * shape.head_width
        self.q_proj = nn.Linear(shape.hidden, width, bias=shape.qkv_bias)
        self.k_proj = nn.Linear(shape.hidden, kv_width, bias=shape.qkv_bias)
        self.v_proj = nn.Linear(shape.hidden, kv_width, bias=shape.qkv_bias)
        self.o_proj = nn.Linear(width, shape.hidden, bias=False)
        if shape.qk_norm:
            self.q_norm = nn.RMSNorm(shape.head_width, eps=shape.norm_epsilon)
            self.k_norm = nn.RMSNorm(shape.head_width, eps=shape.norm_epsilon)
        self.exchange: Exchange | None = None
        """Set where several ranks share a sequence."""

    def forward(self, x_BTD: Tensor, cos_TE: Tensor, sin_TE: Tensor) -> Tensor:
        """Mix the positions of x: shape (B, T, D)."""
        B, T, _ = x_BTD.shape
        width = self.shape.head_width
        q_BTHE = self.q_proj(x_BTD).view(B, T, -1, width)
        k_BTKE = self.k_proj(x_BTD).view(B, T, -1, width)
        if self.shape.qk_norm:
            q_BTHE, k_BTKE = self.q_norm(q_BTHE), self.k_norm(k_BTKE)
        q_BHTE = rotate(q_BTHE.transpose(1, 2), cos_TE, sin_TE)
        k_BKTE = rotate(k_BTKE.transpose(1, 2), cos_TE, sin_TE)
        v_BKTE = self.v_proj(x_BTD).view(B, T, -1, width).transpose(1, 2)
        if self.exchange is None:
            y_BHTE = attend(q_BHTE, k_BKTE, v_BKTE)
        else:
            # Each rank has some positions of all heads, and needs all positions of some heads.
            whole = [self.exchange.heads_for_positions(x) for x in (q_BHTE, k_BKTE, v_BKTE)]
            y_BHTE = self.exchange.positions_for_heads(attend(*whole))
        y_BHTE = y_BHTE.to(x_BTD.dtype)
        out_BTD: Tensor = self.o_proj(y_BHTE.transpose(1, 2).reshape(B, T, -1))
        return out_BTD


class MLP(nn.Module):
    """SwiGLU (Shazeer, arXiv 2002.05202)."""

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden, width, bias=False)
        self.up_proj = nn.Linear(hidden, width, bias=False)
        self.down_proj = nn.Linear(width, hidden, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Shape (B, T, D)."""
        out_BTD: Tensor = self.down_proj(F.silu(self.gate_proj(x_BTD)) * self.up_proj(x_BTD))
        return out_BTD


class Layer(nn.Module):
    """Attention and MLP or experts, each on a normalised copy of the residual stream."""

    def __init__(self, shape: Shape, index: int) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(shape.hidden, eps=shape.norm_epsilon)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = nn.RMSNorm(shape.hidden, eps=shape.norm_epsilon)
        mixed = shape.experts and index >= shape.dense_layers
        self.mlp = _mixture(shape) if mixed else MLP(shape.hidden, shape.mlp_hidden)
        self.recompute: Literal["none", "selective", "full"] = "none"

    def forward(self, x_BTD: Tensor, cos_TE: Tensor, sin_TE: Tensor) -> Tensor:
        """Shape (B, T, D)."""
        if self.recompute == "none" or not torch.is_grad_enabled():
            return self._forward(x_BTD, cos_TE, sin_TE)
        return recomputed(self.recompute, self._forward, x_BTD, cos_TE, sin_TE)

    def _forward(self, x_BTD: Tensor, cos_TE: Tensor, sin_TE: Tensor) -> Tensor:
        x_BTD = x_BTD + self.self_attn(self.input_layernorm(x_BTD), cos_TE, sin_TE)
        out_BTD: Tensor = x_BTD + self.mlp(self.post_attention_layernorm(x_BTD))
        return out_BTD


class Backbone(nn.Module):
    """Embedding, layers, final norm."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocab, shape.hidden)
        self.layers = nn.ModuleList(Layer(shape, index) for index in range(shape.layers))
        self.norm = nn.RMSNorm(shape.hidden, eps=shape.norm_epsilon)


class Decoder(nn.Module):
    """Token ids to logits, or straight to the loss."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.model = Backbone(shape)
        self.lm_head = nn.Linear(shape.hidden, shape.vocab, bias=False)
        self.apply(_initialise)
        for name, parameter in self.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight", "experts.down_proj")):
                # GPT-2: the residual stream sums 2 x layers of these.
                nn.init.normal_(parameter, std=INIT_STD / math.sqrt(2 * shape.layers))
        if shape.tie_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight
        self.exchange: Exchange | None = None
        cos_TE, sin_TE = rotary(shape.max_length, shape.head_width, shape.rope_theta)
        # Not in the state dict: they follow from the shape.
        self.register_buffer("cos_TE", cos_TE, persistent=False)
        self.register_buffer("sin_TE", sin_TE, persistent=False)

    @property
    def blocks(self) -> list[Layer]:
        """The layers, with their type."""
        return [layer for layer in self.model.layers if isinstance(layer, Layer)]

    def forward(self, ids_BT: Tensor, targets_BT: Tensor | None = None) -> Tensor:
        """Logits, shape (B, T, V); with targets the sum of the losses in nats, a float32 scalar."""
        T = ids_BT.shape[1]
        cos_TE, sin_TE = self.get_buffer("cos_TE")[:T], self.get_buffer("sin_TE")[:T]
        if self.exchange is not None:
            mine = self.exchange.part(T)
            ids_BT, cos_TE, sin_TE = ids_BT[:, mine], cos_TE[mine], sin_TE[mine]
            targets_BT = targets_BT[:, mine] if targets_BT is not None else None
        x_BTD = self.model.embed_tokens(ids_BT)
        for layer in self.model.layers:
            x_BTD = layer(x_BTD, cos_TE, sin_TE)
        logits_BTV: Tensor = self.lm_head(self.model.norm(x_BTD))
        if targets_BT is None:
            return logits_BTV
        loss: Tensor = F.cross_entropy(
            logits_BTV.float().flatten(0, 1),
            targets_BT.flatten(),
            reduction="sum",
            ignore_index=IGNORE,
        )
        # A copy, since FSDP hangs its hooks on what is returned, and a view could lose them.
        return loss.to_local().clone() if isinstance(loss, DTensor) else loss


def attend(q_BHTE: Tensor, k_BKTE: Tensor, v_BKTE: Tensor) -> Tensor:
    """Causal attention, shape (B, H, T, E)."""
    grouped = q_BHTE.shape[1] != k_BKTE.shape[1]
    if q_BHTE.device.type != "cpu":
        return F.scaled_dot_product_attention(
            q_BHTE, k_BKTE, v_BKTE, is_causal=True, enable_gqa=grouped
        )
    # The CPU kernel's backward pass takes 5 times as long in bf16 as in fp32 (torch 2.15, AMX).
    with torch.autocast("cpu", enabled=False):
        return F.scaled_dot_product_attention(
            q_BHTE.float(), k_BKTE.float(), v_BKTE.float(), is_causal=True, enable_gqa=grouped
        )


def rotary(length: int, width: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosine and sine of every position's angles, each of shape (length, width)."""
    frequency = theta ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angle = torch.outer(torch.arange(length, dtype=torch.float64), frequency).repeat(1, 2)
    return angle.cos().float(), angle.sin().float()


def rotate(x_BHTE: Tensor, cos_TE: Tensor, sin_TE: Tensor) -> Tensor:
    """Rotary position embedding (Su et al., arXiv 2104.09864), halves as Hugging Face lays them."""
    first, second = x_BHTE.chunk(2, dim=-1)
    turned = torch.cat((-second, first), dim=-1)
    return (x_BHTE * cos_TE + turned * sin_TE).to(x_BHTE.dtype)


def _mixture(shape: Shape) -> MixtureOfExperts:
    layer = MixtureOfExperts(shape.hidden, shape.experts, shape.active_experts, shape.expert_hidden)
    if shape.shared_hidden:
        layer.shared_experts = MLP(shape.hidden, shape.shared_hidden)
    return layer


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding | Router | Experts):
        for parameter in module.parameters(recurse=False):
            nn.init.normal_(parameter, std=INIT_STD)


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
