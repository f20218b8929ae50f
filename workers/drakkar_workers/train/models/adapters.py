"""LoRA (Hu et al., arXiv 2106.09685): frozen matrices with a trained product of two thin ones."""

import json
import math
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from drakkar.v1alpha1.recipes import AdapterConfig
from drakkar_workers.train.checkpoint.layout import sync, write_synced
from drakkar_workers.train.models.decoder import Decoder

PEFT_PREFIX = "base_model.model."


class AdaptedLinear(nn.Linear):
    """A linear map W + (alpha / rank) B A, of which A and B are trained; A (rank, in), B (out, rank)."""

    def __init__(self, base: nn.Linear, rank: int, scale: float) -> None:
        super().__init__(base.in_features, base.out_features, bias=False, device="meta")
        self.weight, self.bias = base.weight, base.bias
        self.scale = scale
        self.lora_A = nn.Linear(base.in_features, rank, bias=False)
        self.lora_B = nn.Linear(rank, base.out_features, bias=False)
        nn.init.kaiming_uniform_(self.lora_A.weight, a=math.sqrt(5))
        nn.init.zeros_(self.lora_B.weight)

    def forward(self, input: Tensor) -> Tensor:
        """Shape (..., in) to (..., out)."""
        adapted: Tensor = self.lora_B(self.lora_A(input))
        return F.linear(input, self.weight, self.bias) + adapted * self.scale


def add_adapters(model: Decoder, config: AdapterConfig) -> None:
    """Freeze a decoder and give its matrices adapters that change nothing yet."""
    model.requires_grad_(False)
    for layer in model.blocks:
        for module in (layer.self_attn, layer.mlp):
            for name in config.targets:
                base = getattr(module, name, None)
                if isinstance(base, nn.Linear):
                    setattr(
                        module, name, AdaptedLinear(base, config.rank, config.alpha / config.rank)
                    )


def delta(tensors: dict[str, Tensor], name: str, config: AdapterConfig) -> Tensor | None:
    """What the adapters add to a weight, None if it has none; ``tensors`` by the model's names."""
    place = name.removesuffix(".weight")
    a = tensors.get(f"{place}.lora_A.weight")
    if a is None:
        return None
    return torch.mm(tensors[f"{place}.lora_B.weight"], a) * (config.alpha / config.rank)


def save_adapters(
    folder: Path, tensors: dict[str, Tensor], config: AdapterConfig, base: str
) -> None:
    """Write adapters as PEFT does. Raises OSError."""
    path = folder / "adapter_model.safetensors"
    save_file(
        {PEFT_PREFIX + name: value.contiguous() for name, value in tensors.items()},
        path,
        metadata={"format": "pt"},
    )
    path.chmod(0o644)
    sync(path)
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "target_modules": list(config.targets),
        "bias": "none",
    }
    text = json.dumps(settings, indent=2) + "\n"
    write_synced(folder / "adapter_config.json", text.encode())
