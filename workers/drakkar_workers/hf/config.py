"""The sizes of a model, from the config.json beside its weights."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from drakkar_workers.errors import ConfigError

ARCHITECTURES = {
    "LlamaForCausalLM",
    "MistralForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
    "SmolLM3ForCausalLM",
}


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A decoder of the Llama family, nothing left to a default."""

    architecture: str
    vocab: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_width: int
    mlp_hidden: int
    norm_epsilon: float
    tie_embeddings: bool
    qk_norm: bool
    max_length: int
    rope: dict[str, Any]
    """``rope_type``, ``rope_theta`` and the type's own parameters, as transformers names them."""
    rope_layers: tuple[bool, ...]
    """Which layers turn queries and keys by position."""
    eos_ids: tuple[int, ...]


def read_config(folder: Path) -> ModelConfig:
    """Raises ConfigError if the folder holds no model that can be served."""
    path = folder / "config.json"
    try:
        raw = json.loads(path.read_text())
    except FileNotFoundError:
        raise ConfigError(
            f"{folder} holds no config.json: give the folder of an exported model"
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from None
    config = parse_config(raw)
    generation = folder / "generation_config.json"
    if generation.is_file():
        # Chat models end their turns with a token that only this file names.
        extra = _ids(json.loads(generation.read_text()).get("eos_token_id"))
        merged = tuple(dict.fromkeys(config.eos_ids + extra))
        return replace(config, eos_ids=merged)
    return config


def parse_config(raw: dict[str, Any]) -> ModelConfig:
    """The sizes that transformers would read from the same dictionary. Raises ConfigError."""
    architecture = (raw.get("architectures") or ["none"])[0]
    if architecture not in ARCHITECTURES:
        known = ", ".join(sorted(ARCHITECTURES))
        raise ConfigError(f"config.json: architecture {architecture} is not among {known}")
    if raw.get("use_sliding_window") or (
        architecture == "MistralForCausalLM" and raw.get("sliding_window")
    ):
        raise ConfigError("config.json: sliding-window attention is not supported")
    if raw.get("hidden_act", "silu") != "silu":
        raise ConfigError(f"config.json: hidden_act {raw['hidden_act']} is not silu")
    try:
        heads, layers = int(raw["num_attention_heads"]), int(raw["num_hidden_layers"])
        with_rope = raw.get("no_rope_layers") or [1] * layers
        return ModelConfig(
            architecture=architecture,
            vocab=int(raw["vocab_size"]),
            hidden=int(raw["hidden_size"]),
            layers=layers,
            heads=heads,
            kv_heads=int(raw.get("num_key_value_heads") or heads),
            head_width=int(raw.get("head_dim") or raw["hidden_size"] // heads),
            mlp_hidden=int(raw["intermediate_size"]),
            norm_epsilon=float(raw.get("rms_norm_eps", 1e-6)),
            tie_embeddings=bool(raw.get("tie_word_embeddings", False)),
            qk_norm=architecture == "Qwen3ForCausalLM",
            max_length=int(raw.get("max_position_embeddings", 2048)),
            rope=_rope(raw),
            rope_layers=tuple(bool(flag) for flag in with_rope),
            eos_ids=_ids(raw.get("eos_token_id")),
        )
    except KeyError as error:
        raise ConfigError(f"config.json lacks {error.args[0]}") from None


def _rope(raw: dict[str, Any]) -> dict[str, Any]:
    """transformers 5 writes ``rope_parameters``; before, ``rope_theta`` and ``rope_scaling``."""
    found = dict(raw.get("rope_parameters") or raw.get("rope_scaling") or {})
    found.setdefault("rope_type", found.pop("type", "default"))
    found.setdefault("rope_theta", raw.get("rope_theta", 10000.0))
    return found


def _ids(value: Any) -> tuple[int, ...]:
    if value is None:
        return ()
    return tuple(value) if isinstance(value, list) else (int(value),)
