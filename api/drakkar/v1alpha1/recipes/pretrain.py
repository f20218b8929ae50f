"""``pretrain``: next-token training from random weights."""

from typing import ClassVar, Self

from pydantic import Field, model_validator

from drakkar.v1alpha1.recipes.data import DataConfig
from drakkar.v1alpha1.recipes.model import ModelConfig
from drakkar.v1alpha1.recipes.training import TrainingConfig


class PretrainConfig(TrainingConfig):
    """Next-token training of a decoder on text."""

    has_experts: ClassVar[bool] = True

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    sample_prompt: str = Field(default="And ", max_length=1024)
    sample_tokens: int = Field(default=160, ge=0, le=4096)

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        self.model.check_parallel(self.parallel)
        return self
