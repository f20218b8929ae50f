"""Low-rank adapters (Hu et al., arXiv 2106.09685) as PEFT saves them, added per request."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from drakkar_workers.errors import ConfigError
from drakkar_workers.hf.config import ModelConfig

MAX_RANK = 512
_PLACES = {
    "self_attn.q_proj": "qkv",
    "self_attn.k_proj": "qkv",
    "self_attn.v_proj": "qkv",
    "self_attn.o_proj": "o",
    "mlp.gate_proj": "gate_up",
    "mlp.up_proj": "gate_up",
    "mlp.down_proj": "down",
}


@dataclass(frozen=True, slots=True)
class Delta:
    """What is added to some outputs of one product: ``x @ down @ up``."""

    down: Tensor
    """(inputs, rank), float32."""
    up: Tensor
    """(rank, outputs), float32, the scale included."""
    columns: slice


@dataclass(frozen=True, slots=True)
class Adapter:
    """Deltas by layer and product."""

    deltas: dict[tuple[int, str], list[Delta]]


def add_delta(adapter: Adapter, layer: int, place: str, x: Tensor, out: Tensor) -> None:
    """Add an adapter's share to (rows, outputs) in place."""
    for delta in adapter.deltas.get((layer, place), ()):
        out[:, delta.columns] += (x.float() @ delta.down) @ delta.up


def load_adapter(folder: Path, config: ModelConfig, device: torch.device) -> Adapter:
    """Read adapter_config.json and adapter_model.safetensors. Raises ConfigError."""
    try:
        settings = json.loads((folder / "adapter_config.json").read_text())
        tensors = load_file(folder / "adapter_model.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise ConfigError(f"adapter {folder}: {error}") from None
    for name, unsupported in (("use_dora", True), ("bias", "all"), ("bias", "lora_only")):
        if settings.get(name) == unsupported:
            raise ConfigError(f"adapter {folder}: {name}={unsupported} is not supported")
    if settings.get("modules_to_save") or settings.get("rank_pattern"):
        raise ConfigError(f"adapter {folder}: modules_to_save and rank_pattern are not supported")
    rank, alpha = int(settings.get("r", 0)), float(settings.get("lora_alpha", 1))
    if not 1 <= rank <= MAX_RANK:
        raise ConfigError(f"adapter {folder}: rank {rank} is not from 1 to {MAX_RANK}")
    scale = alpha / (rank**0.5 if settings.get("use_rslora") else rank)
    deltas: dict[tuple[int, str], list[Delta]] = {}
    for name in sorted(tensors):
        if name.endswith(".lora_A.weight"):
            layer, module = _parse(folder, name)
            columns, inputs = _shape(config, module)
            down = tensors.pop(name)
            up = tensors.pop(name.replace(".lora_A.", ".lora_B."), None)
            outputs = columns.stop - columns.start
            if up is None or down.shape != (rank, inputs) or up.shape != (outputs, rank):
                raise ConfigError(f"adapter {folder}: {name} does not fit the model")
            delta = Delta(
                down.float().T.contiguous().to(device),
                (up.float().T * scale).contiguous().to(device),
                columns,
            )
            if layer >= config.layers:
                raise ConfigError(f"adapter {folder}: {name}: the model has {config.layers} layers")
            deltas.setdefault((layer, _PLACES[module]), []).append(delta)
    if tensors or not deltas:
        other = next(iter(tensors), "nothing")
        raise ConfigError(f"adapter {folder}: holds {other}, expected lora_A and lora_B weights")
    return Adapter(deltas)


def _parse(folder: Path, name: str) -> tuple[int, str]:
    """``base_model.model.model.layers.3.self_attn.q_proj.lora_A.weight`` to 3 and its module."""
    parts = name.removesuffix(".lora_A.weight").split(".layers.")[-1].split(".", 1)
    if len(parts) != 2 or not parts[0].isdigit() or parts[1] not in _PLACES:
        raise ConfigError(f"adapter {folder}: {name} belongs to no layer's attention or MLP")
    return int(parts[0]), parts[1]


def _shape(config: ModelConfig, module: str) -> tuple[slice, int]:
    """Columns of the packed product and the inputs of a module."""
    q, kv = config.heads * config.head_width, config.kv_heads * config.head_width
    inner, hidden = config.mlp_hidden, config.hidden
    return {
        "self_attn.q_proj": (slice(0, q), hidden),
        "self_attn.k_proj": (slice(q, q + kv), hidden),
        "self_attn.v_proj": (slice(q + kv, q + 2 * kv), hidden),
        "self_attn.o_proj": (slice(0, hidden), q),
        "mlp.gate_proj": (slice(0, inner), hidden),
        "mlp.up_proj": (slice(inner, 2 * inner), hidden),
        "mlp.down_proj": (slice(0, hidden), inner),
    }[module]
