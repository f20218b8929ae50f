"""Which model a recipe trains."""

from typing import Self

from pydantic import Field, model_validator

from drakkar.v1alpha1.recipes.parallel import ParallelConfig
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

    def check_parallel(self, parallel: ParallelConfig) -> None:
        """Raise ValueError unless heads and widths divide over the ranks that share them."""
        shares = {
            "heads": self.heads,
            "kvHeads": self.kv_heads or self.heads,
        }
        parts = parallel.tensor * parallel.context
        for name, value in shares.items():
            if value % parts:
                raise ValueError(
                    f"model.{name} ({value}) must be a multiple of parallel.tensor x "
                    f"parallel.context ({parallel.tensor} x {parallel.context} = {parts})"
                )
        if self.mlp_hidden and self.mlp_hidden % parallel.tensor:
            raise ValueError(
                f"model.mlpHidden ({self.mlp_hidden}) must be a multiple of parallel.tensor "
                f"({parallel.tensor})"
            )
