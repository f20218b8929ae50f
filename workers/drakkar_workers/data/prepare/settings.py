"""What ``data prepare`` is told."""

from typing import Literal, Self

from pydantic import Field, model_validator

from drakkar.v1alpha1.recipes.settings import Settings


class DedupSettings(Settings):
    """Which documents count as the same."""

    exact: bool = True
    near: bool = Field(default=True, description="By MinHash over shingles of words.")
    threshold: float = Field(default=0.8, gt=0, le=1, description="Jaccard similarity.")
    permutations: int = Field(default=128, ge=16, le=1024, multiple_of=16)
    shingle: int = Field(default=5, ge=1, le=32, description="Words.")


class PrepareSettings(Settings):
    """All that the result depends on; the number of processes is not in it."""

    inputs: tuple[str, ...] = Field(min_length=1)
    """Paths, globs or URLs (``s3://``, ``gs://``) of files or folders."""
    text_field: str = Field(default="text", min_length=1)
    licence_field: str | None = None
    licence: str | None = None
    """Of documents that name none themselves."""
    text_documents: Literal["file", "paragraph", "line"] = "file"
    """What a document is in a plain text file."""
    on_bad: Literal["fail", "skip"] = "fail"
    max_record_bytes: int = Field(default=64 << 20, ge=1 << 10, le=1 << 31)
    quality: Literal["none", "gopher"] = "none"
    mask_pii: bool = False
    dedup: DedupSettings = DedupSettings()
    tokenizer: str = "bytes"
    """``bytes``, ``bpe:SIZE`` or the path of a tokenizer.json."""
    end_token: str | None = None
    held_out: float = Field(default=0.01, ge=0, lt=0.5)
    shard_tokens: int = Field(default=1 << 27, ge=1 << 10)

    @model_validator(mode="after")
    def _tokenizer_is_one(self) -> Self:
        kind, _, size = self.tokenizer.partition(":")
        if kind == "bpe" and not (size.isdigit() and 257 <= int(size) <= 262_144):
            raise ValueError(f"tokenizer {self.tokenizer!r}: write bpe:SIZE with 257 to 262144")
        return self

    @property
    def bpe_size(self) -> int | None:
        """Vocabulary of the BPE that is to be trained, if one is."""
        kind, _, size = self.tokenizer.partition(":")
        return int(size) if kind == "bpe" else None
