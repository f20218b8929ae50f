"""AdamW (Loshchilov, Hutter, arXiv 1711.05101) and its learning rate."""

import math

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from drakkar.v1alpha1.recipes import TrainingConfig


def build(model: nn.Module, config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW over all parameters; matrices decay, gains of norms don't."""
    alike: dict[tuple[bool, object], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            # One kernel updates a group, which must lie on one mesh.
            mesh = parameter.device_mesh if isinstance(parameter, DTensor) else None
            alike.setdefault((parameter.dim() >= 2, mesh), []).append(parameter)
    groups = [
        {"params": parameters, "weight_decay": config.weight_decay if matrices else 0.0}
        for (matrices, _), parameters in alike.items()
    ]
    return torch.optim.AdamW(
        groups, lr=config.learning_rate, betas=(config.beta1, config.beta2), fused=True
    )


def learning_rate(step: int, config: TrainingConfig) -> float:
    """Of step ``step``, counted from 0: linear warm-up, then half a cosine down to the minimum."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    rest = max(1, config.steps - config.warmup_steps)
    done = min(1.0, (step - config.warmup_steps) / rest)
    span = config.learning_rate - config.min_learning_rate
    return config.min_learning_rate + span * 0.5 * (1 + math.cos(math.pi * done))


def set_learning_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    """Give all groups the same learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = value
