"""``dpo``: a model that exists learns which of two answers is preferred."""

from pydantic import Field

from drakkar.v1alpha1.recipes.finetune import PATH, PretrainedConfig
from drakkar.v1alpha1.recipes.settings import Settings
from drakkar.v1alpha1.recipes.training import TrainingConfig


class PreferencesConfig(Settings):
    """Pairs of answers, a JSON object a line."""

    path: str = Field(
        min_length=2,
        max_length=1024,
        pattern=PATH,
        description='Absolute path of a file of lines such as {"prompt": "...", "chosen": "...", '
        '"rejected": "..."}; prompt may be a list of messages.',
    )
    held_out: float = Field(
        default=0.05, gt=0, lt=0.5, description="Share of the lines for evaluation: the last ones."
    )


class DpoConfig(TrainingConfig):
    """Direct preference optimization against the model as it was found, which each rank keeps too."""

    model: PretrainedConfig
    data: PreferencesConfig
    beta: float = Field(
        default=0.1, gt=0, le=10, description="How dear it is to leave the model as it was."
    )
    batch_size: int = Field(
        default=32, ge=1, le=1_000_000, description="Pairs per step, all ranks."
    )
    sequence_length: int = Field(
        default=512, ge=8, le=1_048_576, description="Tokens; longer conversations are cut."
    )
    learning_rate: float = Field(default=1e-6, gt=0, le=10)
    min_learning_rate: float = Field(default=0.0, ge=0, le=10)
    weight_decay: float = Field(default=0.0, ge=0, le=10)

    def check_world(self, world_size: int) -> None:
        """Raise ValueError for a mesh that splits what the loss needs whole."""
        for name in ("tensor", "context"):
            if getattr(self.parallel, name) > 1:
                raise ValueError(
                    f"parallel.{name} ({getattr(self.parallel, name)}): dpo compares whole answers; "
                    "use shard"
                )
        super().check_world(world_size)
