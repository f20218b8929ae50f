"""What a recipe learns from."""

from typing import Literal

from pydantic import Field

from drakkar.v1alpha1.recipes.settings import Settings


class DataConfig(Settings):
    """The text that is learned."""

    source: str = Field(
        default="bible-kjv",
        min_length=1,
        max_length=512,
        description="Name of a data set in the worker image, or an absolute path of a UTF-8 text file.",
    )
    tokenizer: Literal["bytes", "bpe"] = "bytes"
    vocab_size: int = Field(default=1024, ge=257, le=262_144, description="Of the trained BPE.")
    held_out: float = Field(
        default=0.05, gt=0, lt=0.5, description="Share of the text for evaluation."
    )
