"""Rotary position embedding: cosines and sines of every position (Su et al., arXiv 2104.09864)."""

import math
from typing import Any

import torch
from torch import Tensor

from drakkar_workers.errors import ConfigError


def rotary_tables(rope: dict[str, Any], width: int, length: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine, each of shape (length, width / 2), float32. Raises ConfigError.

    Frequencies are computed in float32, as transformers does, so that both agree to the last bit.
    """
    frequencies = _frequencies(rope, width)
    angles = torch.outer(torch.arange(length, dtype=torch.float32), frequencies)
    scale = _attention_factor(rope)
    return (angles.cos() * scale).contiguous(), (angles.sin() * scale).contiguous()


def _frequencies(rope: dict[str, Any], width: int) -> Tensor:
    exponents = torch.arange(0, width, 2, dtype=torch.int64).float() / width
    base = 1.0 / (float(rope["rope_theta"]) ** exponents)
    kind = rope["rope_type"]
    if kind == "default":
        return base
    if kind == "linear":
        return base / float(rope["factor"])
    if kind == "llama3":
        return _llama3(base, rope)
    if kind == "yarn":
        return _yarn(base, rope, width)
    raise ConfigError(f"config.json: rope_type {kind} is not default, linear, llama3 or yarn")


def _llama3(base: Tensor, rope: dict[str, Any]) -> Tensor:
    """Low frequencies are slowed down by the factor, high ones kept, those between blended."""
    factor, low, high = (
        float(rope[name]) for name in ("factor", "low_freq_factor", "high_freq_factor")
    )
    length = float(rope["original_max_position_embeddings"])
    wavelength = 2 * math.pi / base
    blend = (length / wavelength - low) / (high - low)
    middle = (1 - blend) * base / factor + blend * base
    slowed = torch.where(wavelength > length / low, base / factor, middle)
    return torch.where(wavelength < length / high, base, slowed)


def _yarn(base: Tensor, rope: dict[str, Any], width: int) -> Tensor:
    """Peng et al., arXiv 2309.00071: interpolate slow dimensions, keep fast ones, ramp between."""
    length = float(rope["original_max_position_embeddings"])
    theta = float(rope["rope_theta"])

    def dimension(rotations: float) -> float:
        return width * math.log(length / (rotations * 2 * math.pi)) / (2 * math.log(theta))

    low = max(math.floor(dimension(float(rope.get("beta_fast", 32)))), 0)
    high = min(math.ceil(dimension(float(rope.get("beta_slow", 1)))), width - 1)
    ramp = (torch.arange(width // 2, dtype=torch.float32) - low) / max(high - low, 0.001)
    keep = 1 - ramp.clamp(0, 1)
    return base / float(rope["factor"]) * (1 - keep) + base * keep


def _attention_factor(rope: dict[str, Any]) -> float:
    if rope["rope_type"] != "yarn":
        return 1.0
    if rope.get("attention_factor"):
        return float(rope["attention_factor"])
    factor = float(rope["factor"])
    return 0.1 * math.log(factor) + 1.0 if factor > 1 else 1.0
