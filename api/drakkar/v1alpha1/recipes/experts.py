"""A decoder whose layers have many MLPs, of which each token uses few."""

from typing import Self

from pydantic import Field, model_validator

from drakkar.v1alpha1.recipes.settings import Settings

ALIGNMENT = 8
"""Grouped products read 16 bytes at once: 8 numbers of bf16."""


class ExpertsConfig(Settings):
    """Mixture of experts as in DeepSeek-V3 (arXiv 2412.19437), balanced without an extra loss."""

    count: int = Field(ge=2, le=4096, description="Experts that tokens are routed to, per layer.")
    active: int = Field(default=2, ge=1, le=256, description="Of them, how many a token uses.")
    hidden: int = Field(
        ge=ALIGNMENT, le=65_536, description="Width of each expert's MLP; a multiple of 8."
    )
    shared: int = Field(
        default=1, ge=0, le=64, description="Experts of the same width that every token uses."
    )
    dense_layers: int = Field(
        default=0, ge=0, le=255, description="First layers that keep one MLP of mlpHidden."
    )
    balance_rate: float = Field(
        default=1e-3,
        ge=0,
        le=1,
        description="Per step, by how much an expert with few tokens becomes more likely.",
    )

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.active > self.count:
            raise ValueError(f"active ({self.active}) exceeds count ({self.count})")
        if self.hidden % ALIGNMENT:
            raise ValueError(f"hidden ({self.hidden}) must be a multiple of {ALIGNMENT}")
        return self
