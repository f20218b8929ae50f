"""A text as memory-mapped tokens, prepared once per node and shared by its ranks.

CACHE/<key>/train.bin held_out.bin   token ids, uint16 or uint32, little-endian
            tokenizer.json manifest.json
"""

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drakkar.v1alpha1.recipes import DataConfig
from drakkar_workers.data import tokenizer as tokenizers
from drakkar_workers.data.sources import locate
from drakkar_workers.errors import ConfigError

CACHE_ENV = "DRAKKAR_CACHE"
FORMAT = 1
"""Part of the cache key: changes with what the files mean."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """Tokens of a text, split in a training part and the held-out end."""

    folder: Path
    train: NDArray[np.generic]
    held_out: NDArray[np.generic]
    vocab_size: int
    unigram_loss: float
    """Nats per held-out token, of a model that knows only how often tokens are in ``train``."""
    digest: str
    """sha256 of all tokens: equal on all nodes, or they train on different texts."""

    @property
    def tokenizer_path(self) -> Path:
        """The tokenizer.json that made the tokens."""
        return self.folder / "tokenizer.json"


def default_cache(environ: Mapping[str, str] = os.environ) -> Path:
    """``$DRAKKAR_CACHE``, else a folder of this user's in the temporary directory.

    Raises ConfigError if there is no temporary directory that can be written.
    """
    named = environ.get(CACHE_ENV)
    if named:
        return Path(named)
    try:
        return Path(tempfile.gettempdir()) / f"drakkar-cache-{os.getuid()}"
    except OSError as error:
        raise ConfigError(
            f"data cache: {error}; set {CACHE_ENV} or mount a volume at /tmp"
        ) from None


def open_corpus(config: DataConfig, sequence: int, cache: Path) -> Corpus:
    """The tokens that a recipe asks for; prepared now unless a process of this node did so before.

    ``sequence`` is the tokens per sequence that both parts must have room for. Raises ConfigError
    for an unknown or unreadable text, one that is too short, or a cache that can't be written.
    """
    path = locate(config.source)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"data.source: {path} can't be read: {error.strerror}") from None
    key = cache_key(data, config)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with _locked(cache / f".{key}.lock"):
            if not (cache / key / "manifest.json").is_file():
                _prepare(path, data, config, cache / key)
    except OSError as error:
        raise ConfigError(
            f"data cache: {cache} can't be written as uid {os.getuid()}: {error.strerror}; "
            f"set {CACHE_ENV} to a folder that can"
        ) from None
    corpus = _open(cache / key)
    for name, tokens in (("training", corpus.train), ("held-out", corpus.held_out)):
        if len(tokens) <= 2 * sequence:
            raise ConfigError(
                f"data.source: the {name} part of {config.source} has {len(tokens)} tokens; "
                f"sequenceLength {sequence} needs more than {2 * sequence}"
            )
    return corpus


def cache_key(data: bytes, config: DataConfig) -> str:
    """Names the result of preparing ``data``: 16 hexadecimal digits."""
    vocab = config.vocab_size if config.tokenizer == "bpe" else 256
    settings = f"{FORMAT} {config.tokenizer} {vocab} {config.held_out!r}"
    return hashlib.sha256(hashlib.sha256(data).digest() + settings.encode()).hexdigest()[:16]


def unigram_loss(
    train: NDArray[np.generic], held_out: NDArray[np.generic], vocab_size: int
) -> float:
    """Nats per held-out token under the frequencies of ``train``, with add-one smoothing."""
    counts = np.bincount(train, minlength=vocab_size) + 1.0
    log_p = np.log(counts / counts.sum())
    return float(-log_p[held_out].mean())


def _prepare(path: Path, data: bytes, config: DataConfig, folder: Path) -> None:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"data.source: {path} is not UTF-8 text (byte {error.start}: {error.reason})"
        ) from None
    # The tail is held out whole: neighbouring sentences on both sides of a random split would
    # let the model see what it is tested on. The tokenizer learns from the head only, too.
    cut = int(len(text) * (1 - config.held_out))
    cut = text.rfind("\n", 0, cut) + 1 or cut
    parts = {"train": text[:cut], "held_out": text[cut:]}
    tokenizer = tokenizers.build(config.tokenizer, parts["train"], config.vocab_size)
    vocab_size = tokenizer.get_vocab_size()
    dtype = np.dtype("<u2") if vocab_size <= 1 << 16 else np.dtype("<u4")
    tokens = {
        name: tokenizers.encode(tokenizer, config.tokenizer, part).astype(dtype)
        for name, part in parts.items()
    }
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for name, ids in tokens.items():
            ids.tofile(scratch / f"{name}.bin")
        tokenizer.save(str(scratch / "tokenizer.json"))
        manifest = {
            "source": config.source,
            "tokenizer": config.tokenizer,
            "vocab_size": vocab_size,
            "dtype": dtype.str,
            "tokens": {name: len(ids) for name, ids in tokens.items()},
            "sha256": {
                name: hashlib.sha256(ids.tobytes()).hexdigest() for name, ids in tokens.items()
            },
            "unigram_loss": unigram_loss(tokens["train"], tokens["held_out"], vocab_size)
            if len(tokens["held_out"])
            else None,
        }
        (scratch / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
        scratch.chmod(0o755)
        scratch.rename(folder)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def _open(folder: Path) -> Corpus:
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    parts = {}
    for name, count in manifest["tokens"].items():
        path = folder / f"{name}.bin"
        dtype = np.dtype(manifest["dtype"])
        if path.stat().st_size != count * dtype.itemsize:
            raise ConfigError(
                f"data cache: {path} has {path.stat().st_size} bytes, expected "
                f"{count * dtype.itemsize}; delete {folder}"
            )
        # An empty file can't be mapped.
        parts[name] = np.memmap(path, dtype, "r") if count else np.empty(0, dtype)
    digest = hashlib.sha256("".join(manifest["sha256"].values()).encode()).hexdigest()
    return Corpus(
        folder=folder,
        train=parts["train"],
        held_out=parts["held_out"],
        vocab_size=manifest["vocab_size"],
        unigram_loss=manifest["unigram_loss"] or 0.0,
        digest=digest,
    )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process of the node at a time; freed by the kernel however the process ends."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
