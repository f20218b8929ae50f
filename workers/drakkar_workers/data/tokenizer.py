"""Tokenizers: bytes as they are, or byte-level BPE trained on the text.

Both are ``tokenizers.Tokenizer`` objects, so a checkpoint's tokenizer.json serves either. The last
id is the end of a text.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

END_OF_TEXT = "<|endoftext|>"
ENCODE_CHUNK = 1 << 20
"""Characters that are encoded at once: bounds memory."""


def bytes_tokenizer() -> Tokenizer:
    """Ids 0 to 255 are the bytes themselves, 256 ends a text."""
    vocab = {character: byte for byte, character in _byte_characters().items()}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END_OF_TEXT])
    return tokenizer


def train_bpe(text: str, vocab_size: int) -> Tokenizer:
    """``train_bpe_from`` of one text."""
    return train_bpe_from(_chunks(text), vocab_size)


def train_bpe_from(texts: Iterator[str], vocab_size: int) -> Tokenizer:
    """A byte-level BPE (GPT-2's scheme) of at most ``vocab_size`` tokens, the end token included."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([END_OF_TEXT])
    return tokenizer


def build(kind: Literal["bytes", "bpe"], text: str, vocab_size: int) -> Tokenizer:
    """The tokenizer that a recipe asks for; ``text`` and ``vocab_size`` matter for bpe only."""
    return bytes_tokenizer() if kind == "bytes" else train_bpe(text, vocab_size)


def encode(tokenizer: Tokenizer, kind: Literal["bytes", "bpe"], text: str) -> NDArray[np.uint32]:
    """Token ids of a text, shape (tokens,)."""
    if kind == "bytes":
        return np.frombuffer(text.encode(), dtype=np.uint8).astype(np.uint32)
    parts = [np.asarray(tokenizer.encode(chunk).ids, np.uint32) for chunk in _chunks(text)]
    return np.concatenate(parts) if parts else np.empty(0, np.uint32)


def load(path: Path) -> Tokenizer:
    """Read a tokenizer.json."""
    return Tokenizer.from_file(str(path))


def _chunks(text: str) -> Iterator[str]:
    """Pieces that end with a line where one ends: no word is cut, so encoding is the same."""
    start = 0
    while start < len(text):
        stop = min(start + ENCODE_CHUNK, len(text))
        if stop < len(text):
            stop = text.rfind("\n", start, stop) + 1 or stop
        yield text[start:stop]
        start = stop


def _byte_characters() -> dict[int, str]:
    """GPT-2's printable stand-in of every byte (openai/gpt-2, encoder.py: bytes_to_unicode)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {
        byte: chr(256 + i) for i, byte in enumerate(others)
    }
