"""``sft`` and ``lora``: a model that exists learns conversations."""

from typing import Literal

from pydantic import Field

from drakkar.v1alpha1.recipes.settings import Settings
from drakkar.v1alpha1.recipes.training import TrainingConfig

PATH = r"^/.*"


class PretrainedConfig(Settings):
    """A model as Hugging Face lays it out."""

    path: str = Field(
        min_length=2,
        max_length=1024,
        pattern=PATH,
        description="Absolute path of a folder with config.json, safetensors and tokenizer.json, as "
        "the pod sees it.",
    )


class ConversationsConfig(Settings):
    """Conversations, a JSON object a line."""

    path: str = Field(
        min_length=2,
        max_length=1024,
        pattern=PATH,
        description='Absolute path of a file of lines such as {"messages": [{"role": "user", '
        '"content": "..."}, {"role": "assistant", "content": "..."}]} or {"prompt": "...", '
        '"completion": "..."}.',
    )
    held_out: float = Field(
        default=0.05, gt=0, lt=0.5, description="Share of the lines for evaluation: the last ones."
    )


class SftConfig(TrainingConfig):
    """Supervised fine-tuning: the loss of what the assistant says, by the model's chat template."""

    model: PretrainedConfig
    data: ConversationsConfig
    sequence_length: int = Field(
        default=512, ge=8, le=1_048_576, description="Tokens; longer conversations are cut."
    )
    learning_rate: float = Field(default=2e-5, gt=0, le=10)
    min_learning_rate: float = Field(default=0.0, ge=0, le=10)
    weight_decay: float = Field(default=0.0, ge=0, le=10)


Projection = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class AdapterConfig(Settings):
    """Low-rank adapters (Hu et al., arXiv 2106.09685)."""

    rank: int = Field(default=16, ge=1, le=1024)
    alpha: float = Field(default=32.0, gt=0, description="Adapters count alpha / rank times.")
    targets: tuple[Projection, ...] = Field(
        default=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        min_length=1,
        max_length=7,
        description="Matrices that get one.",
    )
    merge: bool = Field(
        default=True,
        description="Whether the last checkpoint also holds the whole model with the adapters in it.",
    )


class LoraConfig(SftConfig):
    """As sft, but of adapters alone; the model's own weights stay as they are."""

    adapter: AdapterConfig = AdapterConfig()
    learning_rate: float = Field(default=2e-4, gt=0, le=10)

    def check_world(self, world_size: int) -> None:
        """Raise ValueError for a mesh that adapters can't be split over."""
        if self.parallel.tensor > 1:
            raise ValueError(
                f"parallel.tensor ({self.parallel.tensor}): adapters are not split; use shard"
            )
        super().check_world(world_size)
