"""What all recipes that train have in common: steps, batches, optimizer, evaluation."""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from drakkar.v1alpha1.recipes.guard import GuardConfig
from drakkar.v1alpha1.recipes.parallel import ParallelConfig
from drakkar.v1alpha1.recipes.settings import Settings


class TrainingConfig(Settings):
    """Settings of the loop."""

    has_experts: ClassVar[bool] = False
    """Whether the recipe's model can have them."""

    steps: int = Field(default=200, ge=1, le=100_000_000)
    sequence_length: int = Field(default=128, ge=8, le=1_048_576, description="Tokens.")
    batch_size: int = Field(
        default=32, ge=1, le=1_000_000, description="Sequences per step, all ranks."
    )
    gradient_accumulation: int = Field(
        default=1, ge=1, le=4096, description="Micro-batches per step."
    )
    learning_rate: float = Field(default=1e-3, gt=0, le=10)
    min_learning_rate: float = Field(default=1e-4, ge=0, le=10)
    warmup_steps: int = Field(default=20, ge=0)
    weight_decay: float = Field(default=0.1, ge=0, le=10)
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.95, ge=0, lt=1)
    clip_norm: float = Field(default=1.0, gt=0)
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto", description="auto: bf16 autocast where the device computes it natively."
    )
    eval_every: int = Field(
        default=50, ge=1, description="Steps between evaluations on held-out data."
    )
    eval_batches: int = Field(default=8, ge=1, le=10_000)
    seed: int = Field(default=0, ge=0, le=2**31 - 1)
    guard: GuardConfig = GuardConfig()
    parallel: ParallelConfig = ParallelConfig()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.warmup_steps > self.steps:
            raise ValueError(f"warmupSteps ({self.warmup_steps}) exceeds steps ({self.steps})")
        if self.min_learning_rate > self.learning_rate:
            raise ValueError(
                f"minLearningRate ({self.min_learning_rate}) exceeds learningRate ({self.learning_rate})"
            )
        shared = self.parallel.tensor * self.parallel.context
        if self.sequence_length % shared:
            raise ValueError(
                f"sequenceLength ({self.sequence_length}) must be a multiple of parallel.tensor x "
                f"parallel.context ({self.parallel.tensor} x {self.parallel.context} = {shared})"
            )
        spread = self.parallel
        degrees = (spread.shard, spread.tensor, spread.context, spread.expert)
        if self.guard.replay_every and set(degrees) != {1}:
            raise ValueError(
                "guard.replayEvery compares what one rank computes alone: remove it, or parallel"
            )
        if spread.expert > 1 and not self.has_experts:
            raise ValueError(
                f"parallel.expert ({spread.expert}): this recipe's models have no experts; use shard"
            )
        return self

    def suits_world(self, world_size: int) -> bool:
        """Whether ``check_world`` has nothing against this many ranks."""
        try:
            self.check_world(world_size)
        except ValueError:
            return False
        return True

    def check_world(self, world_size: int) -> None:
        """Raise ValueError unless mesh and batch divide evenly over ranks and micro-batches."""
        data = self.parallel.data_ranks(world_size)
        parts = data * self.gradient_accumulation
        if self.batch_size % parts:
            ranks = "ranks" if data == world_size else "data-parallel ranks"
            raise ValueError(
                f"batchSize ({self.batch_size}) must be a multiple of {ranks} x "
                f"gradientAccumulation ({data} x {self.gradient_accumulation} = {parts})"
            )
