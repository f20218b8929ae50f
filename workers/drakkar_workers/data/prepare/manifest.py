"""What a prepared folder says of itself.

OUT/manifest.json                       read by the loader, and by people
    tokenizer.json
    train-00000.bin held-out-00000.bin  token ids, uint16 or uint32, little-endian; whole documents,
                                        each with the end token after it
"""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from drakkar_workers.errors import ConfigError

MANIFEST = "manifest.json"
TOKENIZER = "tokenizer.json"
Count = Annotated[int, Field(ge=0)]


class _Part(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True
    )


class Shard(_Part):
    """A file of tokens."""

    file: str = Field(pattern=r"^[a-z-]+-\d{5,}\.bin$")
    tokens: Count
    documents: Count
    sha256: str


class InputRecord(_Part):
    """A file that was read."""

    path: str
    bytes: Count
    documents: Count
    """That were read."""
    kept: Count
    sha256: str
    """Over the keys of its documents after cleaning."""


class Bad(_Part):
    """A record that was left out, as it could not be read."""

    where: str
    what: str


class Manifest(_Part):
    """Counts, hashes and licences of a prepared folder, and the settings that led to it."""

    format: int = 1
    settings: dict[str, Any]
    inputs: tuple[InputRecord, ...]
    documents: dict[str, int]
    """``read``, ``kept``, ``bad``; ``dropped.RULE`` by the rule."""
    bad: tuple[Bad, ...]
    """The first of them."""
    masked: dict[str, int]
    licences: dict[str, int]
    """Documents kept, by licence."""
    vocab_size: Annotated[int, Field(ge=1)]
    end_id: Count
    dtype: Annotated[str, Field(pattern=r"^<u[24]$")]
    tokenizer_sha256: str
    unigram_loss: float | None
    """Nats per held-out token, of a model that knows only how often tokens are in training."""
    shards: dict[str, tuple[Shard, ...]]
    """``train`` and ``held-out``."""

    def tokens(self, part: str) -> int:
        """Of all shards of a part."""
        return sum(shard.tokens for shard in self.shards.get(part, ()))


def read(folder: Path, field: str = "data.path") -> Manifest:
    """The manifest of a prepared folder. Raises ConfigError that names ``field``."""
    path = folder / MANIFEST
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise ConfigError(
            f"{field}: {folder} holds no {MANIFEST}: give a folder that drakkar data prepare wrote"
        ) from None
    except OSError as error:
        raise ConfigError(f"{field}: {path} can't be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ConfigError(f"{field}: {path}: {place}: {first['msg']}") from None
