"""Settings of Drakkar's own trainers: checked by the CLI and the operator, used by the trainer.

One file per recipe; ``registry`` knows them by name.
"""

from drakkar.v1alpha1.recipes.data import DataConfig
from drakkar.v1alpha1.recipes.dpo import DpoConfig
from drakkar.v1alpha1.recipes.experts import ExpertsConfig
from drakkar.v1alpha1.recipes.finetune import (
    AdapterConfig,
    ConversationsConfig,
    LoraConfig,
    PretrainedConfig,
    SftConfig,
)
from drakkar.v1alpha1.recipes.model import ModelConfig
from drakkar.v1alpha1.recipes.parallel import ParallelConfig
from drakkar.v1alpha1.recipes.pretrain import PretrainConfig
from drakkar.v1alpha1.recipes.registry import RECIPES, parse_recipe, usable_sizes
from drakkar.v1alpha1.recipes.settings import Settings
from drakkar.v1alpha1.recipes.training import TrainingConfig

__all__ = [
    "RECIPES",
    "AdapterConfig",
    "ConversationsConfig",
    "DataConfig",
    "DpoConfig",
    "ExpertsConfig",
    "LoraConfig",
    "ModelConfig",
    "ParallelConfig",
    "PretrainConfig",
    "PretrainedConfig",
    "Settings",
    "SftConfig",
    "TrainingConfig",
    "parse_recipe",
    "usable_sizes",
]
