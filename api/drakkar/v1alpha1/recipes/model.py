"""Which model a recipe trains."""

from typing import Self

from pydantic import Field, model_validator

from drakkar.v1alpha1.recipes.experts import ALIGNMENT, ExpertsConfig
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
    experts: ExpertsConfig | None = Field(
        default=None, description="Many MLPs per layer instead of one. Default: one."
    )

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
        if self.experts and self.hidden % ALIGNMENT:
            raise ValueError(
                f"hidden ({self.hidden}) must be a multiple of {ALIGNMENT} where there are experts"
            )
        if self.experts and self.experts.dense_layers >= self.layers:
            raise ValueError(
                f"experts.denseLayers ({self.experts.dense_layers}) leaves none of the "
                f"{self.layers} layers to experts"
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
        if self.experts is None and parallel.expert > 1:
            raise ValueError(
                f"parallel.expert ({parallel.expert}): the model has none; set model.experts"
            )
        spread = parallel.expert * parallel.tensor
        if self.experts and self.experts.count % spread:
            raise ValueError(
                f"model.experts.count ({self.experts.count}) must be a multiple of parallel.expert x "
                f"parallel.tensor ({parallel.expert} x {parallel.tensor} = {spread})"
            )
        shared = self.experts.shared * self.experts.hidden if self.experts else 0
        if shared % parallel.tensor:
            raise ValueError(
                f"model.experts.shared x hidden ({shared}) must be a multiple of parallel.tensor "
                f"({parallel.tensor})"
            )
        if self.mlp_hidden and self.mlp_hidden % parallel.tensor:
            raise ValueError(
                f"model.mlpHidden ({self.mlp_hidden}) must be a multiple of parallel.tensor "
                f"({parallel.tensor})"
            )
