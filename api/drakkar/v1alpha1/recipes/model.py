"""Which model a recipe trains."""

from typing import Self

from pydantic import Field, model_validator

from drakkar.v1alpha1.recipes.settings import Settings


class ModelConfig(Settings):
    """A Llama-style decoder."""

    layers: int = Field(default=4, ge=1, le=256)
    hidden: int = Field(default=256, ge=16, le=65_536, description="Width of the residual stream.")
    heads: int = Field(default=4, ge=1, le=512)
    kv_heads: int | None = Field(
        default=None, ge=1, le=512, description="Default: as many as heads."
    )
    mlp_hidden: int | None = Field(default=None, ge=16, description="Default: 8/3 of hidden.")
    rope_theta: float = Field(default=10_000.0, gt=0)
    tie_embeddings: bool = True

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.hidden % self.heads:
            raise ValueError(f"hidden ({self.hidden}) must be a multiple of heads ({self.heads})")
        if (self.hidden // self.heads) % 2:
            raise ValueError(
                f"hidden / heads is {self.hidden // self.heads}; rotary embeddings need an even number"
            )
        if self.kv_heads and self.heads % self.kv_heads:
            raise ValueError(
                f"heads ({self.heads}) must be a multiple of kvHeads ({self.kv_heads})"
            )
        return self
