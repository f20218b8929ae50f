"""The tokenizer of a preparation: bytes, a file, or a BPE that is trained on what was kept."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from tokenizers import Tokenizer

from drakkar_workers.data import tokenizer as tokenizers
from drakkar_workers.data.prepare.settings import PrepareSettings
from drakkar_workers.errors import ConfigError

TRAINING_CHARACTERS = 1 << 30
"""A BPE learns from so much at most: a sample of the documents, by their keys."""
END_TOKENS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<|im_end|>", "<eos>")


def file_content(settings: PrepareSettings) -> bytes:
    """The tokenizer.json that is to be used; empty for the other kinds. Raises ConfigError."""
    if settings.tokenizer == "bytes" or settings.bpe_size:
        return b""
    path = Path(settings.tokenizer)
    try:
        content = (path / "tokenizer.json" if path.is_dir() else path).read_bytes()
    except OSError as error:
        raise ConfigError(
            f"--tokenizer: {path} can't be read: {error.strerror}; write bytes, bpe:SIZE or the path "
            "of a tokenizer.json"
        ) from None
    try:
        tokenizer = Tokenizer.from_buffer(content)
    # The library raises Exception itself.
    except Exception as error:
        raise ConfigError(f"--tokenizer: {path} is no tokenizer.json: {error}") from None
    end_id(tokenizer, settings)
    return content


def build(
    settings: PrepareSettings, cleaned: Sequence[Path], learned: Sequence[NDArray[np.bool_]]
) -> Tokenizer:
    """The tokenizer; ``learned``: documents of each file that a BPE may learn from."""
    content = file_content(settings)
    if content:
        return Tokenizer.from_buffer(content)
    if settings.bpe_size:
        return tokenizers.train_bpe_from(_texts(cleaned, learned), settings.bpe_size)
    return tokenizers.bytes_tokenizer()


def end_id(tokenizer: Tokenizer, settings: PrepareSettings) -> int:
    """The token after each document. Raises ConfigError if the tokenizer has none."""
    names = (settings.end_token,) if settings.end_token else END_TOKENS
    for name in names:
        found = tokenizer.token_to_id(name)
        if found is not None:
            return int(found)
    raise ConfigError(f"--end-token: the tokenizer has no token {' or '.join(names)}")


def _texts(cleaned: Sequence[Path], learned: Sequence[NDArray[np.bool_]]) -> Iterator[str]:
    total = sum(row_group.total_byte_size for path in cleaned for row_group in _row_groups(path))
    share = min(1.0, TRAINING_CHARACTERS / max(total, 1))
    for path, wanted in zip(cleaned, learned, strict=True):
        row = 0
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(512, columns=["text", "key"]):
                mine = wanted[row : row + batch.num_rows].copy()
                row += batch.num_rows
                if share < 1.0:
                    # The first bytes say what is held out; these are independent of them.
                    keys = batch.column("key").to_pylist()
                    mine &= [int.from_bytes(key[8:]) < share * (1 << 64) for key in keys]
                yield from batch.column("text").filter(pa.array(mine)).to_pylist()


def _row_groups(path: Path) -> list[pq.RowGroupMetaData]:
    metadata = pq.read_metadata(path)
    return [metadata.row_group(i) for i in range(metadata.num_row_groups)]
