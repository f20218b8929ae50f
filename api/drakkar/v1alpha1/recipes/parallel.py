"""How the ranks of a job share a model."""

from typing import Literal, Self

from pydantic import Field, model_validator

from drakkar.v1alpha1.recipes.settings import Settings


class ParallelConfig(Settings):
    """Ranks are replicas x shard x context x tensor; the replicas follow from the number of ranks."""

    shard: int = Field(
        default=1,
        ge=0,
        le=65_536,
        description="Ranks that share one copy of weights, gradients and moments (FSDP2; with "
        "several such groups HSDP). 0: all that are left. 1: each rank has its own (DDP).",
    )
    tensor: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Ranks that share each matrix product, with sequence parallel norms and a "
        "vocabulary-parallel loss; a power of two.",
    )
    context: int = Field(
        default=1,
        ge=1,
        le=1024,
        description="Ranks that share each sequence (Ulysses: they exchange heads for positions).",
    )
    expert: int = Field(
        default=1,
        ge=1,
        le=4096,
        description="Ranks of a shard that share the experts of each layer and send each other tokens; "
        "the ranks of a tensor group always do.",
    )
    recompute: Literal["none", "selective", "full"] = Field(
        default="none",
        description="What a layer computes again in the backward pass instead of keeping it: "
        "selective keeps matrix products and attention, full keeps its input alone.",
    )
    compile: bool = Field(default=False, description="Compile the layers with torch.compile.")

    @model_validator(mode="after")
    def _power_of_two(self) -> Self:
        if self.tensor & (self.tensor - 1):
            raise ValueError(
                f"tensor ({self.tensor}) must be a power of two: the vocabulary is padded to a "
                "multiple of 64"
            )
        if self.shard and self.shard % self.expert:
            raise ValueError(
                f"expert ({self.expert}) must divide shard ({self.shard}), whose ranks it takes; use "
                f"shard: {-(-self.shard // self.expert) * self.expert}, or 0 for all"
            )
        return self

    def data_ranks(self, world_size: int) -> int:
        """Ranks with data of their own. Raises ValueError if the degrees don't make up the world."""
        shared = self.tensor * self.context
        if world_size % shared:
            raise ValueError(
                f"parallel: tensor x context ({self.tensor} x {self.context} = {shared}) does not "
                f"divide the {_ranks(world_size)}; use replicas x processesPerReplica that is a "
                f"multiple of {shared}"
            )
        data = world_size // shared
        if self.shard and data % self.shard:
            raise ValueError(
                f"parallel: shard ({self.shard}) does not divide the {_ranks(data)} that are left of "
                f"{world_size} after tensor x context ({shared}); use a divisor of {data}, or 0 for all"
            )
        if data % self.expert:
            raise ValueError(
                f"parallel: expert ({self.expert}) does not divide the {_ranks(data)} with data of "
                f"their own; use a divisor of {data}"
            )
        return data


def _ranks(count: int) -> str:
    return f"{count} rank" if count == 1 else f"{count} ranks"
