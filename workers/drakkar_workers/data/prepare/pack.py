"""Tokens of all files as shards of whole documents."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from drakkar_workers.data.prepare.manifest import Shard
from drakkar_workers.data.prepare.work import written

PARTS = ("train", "held-out")


def is_held_out(keys: NDArray[np.void], share: float) -> NDArray[np.bool_]:
    """Which documents are for evaluation: by their keys alone, so that more data moves none."""
    first = np.frombuffer(keys.tobytes(), ">u8").reshape(len(keys), -1)[:, 0]
    held: NDArray[np.bool_] = first < np.uint64(share * (1 << 53)) << np.uint64(11)
    return held


@dataclass
class _Writer:
    folder: Path
    part: str
    dtype: np.dtype[np.generic]
    limit: int
    shards: list[Shard] = field(default_factory=list)
    counts: NDArray[np.int64] | None = None
    _held: list[NDArray[np.generic]] = field(default_factory=list)
    _tokens: int = 0

    def add(self, ids: NDArray[np.uint32]) -> None:
        if self._tokens and self._tokens + len(ids) > self.limit:
            self.close()
        self._held.append(ids.astype(self.dtype))
        self._tokens += len(ids)

    def close(self) -> None:
        if not self._held:
            return
        name = f"{self.part}-{len(self.shards):05d}.bin"
        sha = hashlib.sha256()
        with written(self.folder / name) as part, part.open("wb") as out:
            for ids in self._held:
                data = ids.tobytes()
                sha.update(data)
                out.write(data)
        self.shards.append(
            Shard(file=name, tokens=self._tokens, documents=len(self._held), sha256=sha.hexdigest())
        )
        self._held.clear()
        self._tokens = 0


def pack(
    tokenised: Sequence[Path], folder: Path, *, vocab_size: int, held_out: float, shard_tokens: int
) -> tuple[dict[str, tuple[Shard, ...]], str, float | None]:
    """Write the shards; by part, with their dtype and the held-out loss of a unigram model."""
    dtype = np.dtype("<u2") if vocab_size <= 1 << 16 else np.dtype("<u4")
    writers = {part: _Writer(folder, part, dtype, shard_tokens) for part in PARTS}
    counts = {part: np.zeros(vocab_size, np.int64) for part in PARTS}
    for path in tokenised:
        with np.load(path) as found:
            ids, lengths, keys = found["ids"], found["lengths"], found["keys"]
        ends = np.cumsum(lengths)
        held = is_held_out(keys, held_out)
        for end, length, evaluated in zip(ends, lengths, held, strict=True):
            part = PARTS[int(evaluated)]
            document = ids[end - length : end]
            writers[part].add(document)
        of_held = np.repeat(held, lengths)
        counts["train"] += np.bincount(ids[~of_held], minlength=vocab_size)
        counts["held-out"] += np.bincount(ids[of_held], minlength=vocab_size)
    for writer in writers.values():
        writer.close()
    shards = {part: tuple(writer.shards) for part, writer in writers.items()}
    return shards, dtype.str, _unigram_loss(counts["train"], counts["held-out"])


def _unigram_loss(train: NDArray[np.int64], held: NDArray[np.int64]) -> float | None:
    if not held.sum():
        return None
    smoothed = train + 1.0
    log_p = np.log(smoothed / smoothed.sum())
    return float(-(log_p * held).sum() / held.sum())
