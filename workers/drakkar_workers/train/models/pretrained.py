"""A decoder with the weights of a Hugging Face folder, and such a folder from a decoder's weights."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from drakkar_workers.errors import ConfigError
from drakkar_workers.hf.config import ModelConfig, read_config
from drakkar_workers.hf.rope import rotary_tables
from drakkar_workers.hf.weights import Weights
from drakkar_workers.train.checkpoint.layout import sync, write_synced
from drakkar_workers.train.models.decoder import Decoder, Shape

WEIGHTS = "model.safetensors"
BESIDE = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "generation_config.json",
    "special_tokens_map.json",
)
"""Files that a model of the same tokenizer shares."""


def read_shape(folder: Path, length: int) -> Shape:
    """Sizes of the model in a folder, for sequences up to ``length``. Raises ConfigError."""
    config = read_config(folder)
    if not all(config.rope_layers):
        raise ConfigError(f"{folder}: layers without positions can't be trained")
    if length > config.max_length:
        raise ConfigError(
            f"sequenceLength ({length}) exceeds the {config.max_length} positions of {folder}"
        )
    return Shape(
        vocab=config.vocab,
        layers=config.layers,
        hidden=config.hidden,
        heads=config.heads,
        kv_heads=config.kv_heads,
        mlp_hidden=config.mlp_hidden,
        max_length=length,
        rope_theta=float(config.rope["rope_theta"]),
        tie_embeddings=config.tie_embeddings,
        norm_epsilon=config.norm_epsilon,
        head_dim=config.head_width,
        qkv_bias=_has_bias(folder, config),
        qk_norm=config.qk_norm,
        rope=config.rope,
    )


def load_decoder(folder: Path, shape: Shape) -> Decoder:
    """The model in float32. Raises ConfigError if the weights are not those of config.json."""
    with torch.device("meta"):
        model = Decoder(shape)
    model = model.to_empty(device="cpu")
    if shape.tie_embeddings:
        model.lm_head.weight = model.model.embed_tokens.weight
    with Weights(folder) as weights, torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weights.take(name, tuple(parameter.shape)))
    assert shape.rope is not None
    cos_TE, sin_TE = rotary_tables(shape.rope, shape.head_width, shape.max_length)
    model.get_buffer("cos_TE").copy_(cos_TE.repeat(1, 2))
    model.get_buffer("sin_TE").copy_(sin_TE.repeat(1, 2))
    return model


def save_like(source: Path, folder: Path, weights: Mapping[str, Tensor]) -> None:
    """Write a model that differs from the one in ``source`` by its weights alone. Raises OSError."""
    save_file(
        {name: value.contiguous() for name, value in weights.items()},
        folder / WEIGHTS,
        metadata={"format": "pt"},
    )
    # safetensors makes it 0600, but whoever serves the model may be another user.
    (folder / WEIGHTS).chmod(0o644)
    sync(folder / WEIGHTS)
    raw = json.loads((source / "config.json").read_text())
    raw.pop("torch_dtype", None)
    raw["dtype"] = str(next(iter(weights.values())).dtype).removeprefix("torch.")
    write_synced(folder / "config.json", (json.dumps(raw, indent=2) + "\n").encode())
    for name in BESIDE:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
            sync(folder / name)


def _has_bias(folder: Path, config: ModelConfig) -> bool:
    with Weights(folder) as weights:
        found = "model.layers.0.self_attn.q_proj.bias" in weights
        if "model.layers.0.self_attn.o_proj.bias" in weights:
            raise ConfigError(f"{folder}: o_proj has a bias, which no model has that is known here")
        if config.tie_embeddings and "lm_head.weight" in weights:
            raise ConfigError(f"{folder}: config.json ties the embeddings, but lm_head has its own")
    return found
