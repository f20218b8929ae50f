"""The stages of a preparation, one after the other; any of them may be killed and done again.

read (a process per file) -> duplicates -> vocabulary -> tokenise (a process per file) -> pack -> rename
"""

import hashlib
import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from tokenizers import Tokenizer

from drakkar_workers.agent.syscalls import die_with_parent
from drakkar_workers.data.prepare import dedup, inputs, stages, vocabulary, work
from drakkar_workers.data.prepare.inputs import Input
from drakkar_workers.data.prepare.manifest import MANIFEST, TOKENIZER, Bad, InputRecord, Manifest
from drakkar_workers.data.prepare.manifest import read as read_manifest
from drakkar_workers.data.prepare.pack import is_held_out, pack
from drakkar_workers.data.prepare.progress import Progress
from drakkar_workers.data.prepare.settings import PrepareSettings
from drakkar_workers.errors import ConfigError

PREPARATION = "preparation"
"""Key of the manifest's settings that names inputs and settings."""
Mask = NDArray[np.bool_]
Task = tuple[Path, int, Callable[..., None], tuple[Any, ...]]
"""The file that it makes, bytes for the progress, and the call."""


def prepare(settings: PrepareSettings, out: Path, processes: int) -> Manifest:
    """Make the folder ``out``, or find it made of the same; returns its manifest.

    Goes on where another process was stopped; the bytes do not depend on that, nor on the number of
    processes. Raises ConfigError, DataError among them, before anything is at ``out``.
    """
    found = inputs.find(settings)
    name = work.digest(found, settings, vocabulary.file_content(settings))
    if out.exists():
        before = read_manifest(out, "--out")
        if before.settings.get(PREPARATION) == name:
            return before
        raise ConfigError(f"--out: {out} holds other data or the result of other settings")
    with work.working_folder(out, name) as folder:
        cleaned = _read(found, settings, folder, processes)
        kept, dropped = _without_duplicates(cleaned, settings)
        if not any(mask.any() for mask in kept):
            raise ConfigError(
                f"nothing is left to learn: {_counts(_Counted(found, cleaned, kept, dropped))}"
            )
        result = folder / "out"
        shutil.rmtree(result, ignore_errors=True)
        result.mkdir()
        tokenizer_path = _vocabulary(cleaned, kept, settings, folder)
        shutil.copyfile(tokenizer_path, result / TOKENIZER)
        tokenizer = Tokenizer.from_file(str(tokenizer_path))
        end = vocabulary.end_id(tokenizer, settings)
        tokenised = _tokenise(cleaned, kept, tokenizer_path, end, folder, processes)
        vocab_size = tokenizer.get_vocab_size()
        shards, dtype, unigram = pack(
            tokenised,
            result,
            vocab_size=vocab_size,
            held_out=settings.held_out,
            shard_tokens=settings.shard_tokens,
        )
        counted = _Counted(found, cleaned, kept, dropped)
        manifest = Manifest(
            settings={**settings.model_dump(mode="json", by_alias=True), PREPARATION: name},
            inputs=counted.inputs,
            documents=counted.documents,
            bad=counted.bad,
            masked=counted.masked,
            licences=counted.licences,
            vocab_size=vocab_size,
            end_id=end,
            dtype=dtype,
            tokenizer_sha256=hashlib.sha256(tokenizer_path.read_bytes()).hexdigest(),
            unigram_loss=unigram,
            shards=shards,
        )
        if not manifest.tokens("train"):
            raise ConfigError(f"nothing is left to learn: all is held out, {_counts(counted)}")
        work.write_json(result / MANIFEST, manifest.model_dump(mode="json", by_alias=True))
        result.rename(out)
        shutil.rmtree(folder, ignore_errors=True)
    return manifest


def _read(
    found: Sequence[Input], settings: PrepareSettings, folder: Path, processes: int
) -> list[Path]:
    targets = [folder / f"clean-{i:06d}.parquet" for i in range(len(found))]
    tasks = [
        (target, one.size, stages.read_file, (one, settings, target))
        for one, target in zip(found, targets, strict=True)
    ]
    _run("read", tasks, processes)
    return targets


def _without_duplicates(
    cleaned: Sequence[Path], settings: PrepareSettings
) -> tuple[list[Mask], dict[str, int]]:
    """Which documents of each file are kept, and how many are not, by the rule."""
    keys = np.concatenate([_column(path, "key", dedup.KEY_BYTES) for path in cleaned])
    kept = np.ones(len(keys), np.bool_)
    dropped = {}
    if settings.dedup.exact:
        kept &= dedup.first_of_equals(keys)
        dropped["dropped.duplicate"] = int((~kept).sum())
    if settings.dedup.near:
        width = 4 * settings.dedup.permutations
        raw = np.concatenate([_column(path, "signature", width) for path in cleaned])
        signatures = np.frombuffer(raw[kept].tobytes(), np.uint32).reshape(-1, width // 4)
        near = dedup.near_duplicates(signatures, settings.dedup)
        kept[np.flatnonzero(kept)[near]] = False
        dropped["dropped.nearDuplicate"] = int(near.sum())
    sizes = [pq.read_metadata(path).num_rows for path in cleaned]
    return np.split(kept, np.cumsum(sizes)[:-1]), dropped


def _column(path: Path, name: str, width: int) -> NDArray[np.void]:
    values = pq.read_table(path, columns=[name]).column(0).to_pylist()
    return np.frombuffer(b"".join(values), np.dtype((np.void, width)))


def _vocabulary(
    cleaned: Sequence[Path], kept: Sequence[Mask], settings: PrepareSettings, folder: Path
) -> Path:
    path = folder / TOKENIZER
    if not path.is_file():
        learned = [
            mask & ~is_held_out(_column(file, "key", dedup.KEY_BYTES), settings.held_out)
            for file, mask in zip(cleaned, kept, strict=True)
        ]
        with work.written(path) as part:
            vocabulary.build(settings, cleaned, learned).save(str(part))
    return path


def _tokenise(
    cleaned: Sequence[Path],
    kept: Sequence[Mask],
    tokenizer: Path,
    end: int,
    folder: Path,
    processes: int,
) -> list[Path]:
    targets = [folder / f"tokens-{i:06d}.npz" for i in range(len(cleaned))]
    tasks = [
        (target, path.stat().st_size, stages.tokenise_file, (path, mask, tokenizer, end, target))
        for path, mask, target in zip(cleaned, kept, targets, strict=True)
    ]
    _run("tokenise", tasks, processes)
    return targets


def _run(stage: str, tasks: Iterable[Task], processes: int) -> None:
    """Do what is not done yet; the first error ends the stage."""
    open_ = [task for task in tasks if not task[0].is_file()]
    progress = Progress(stage, len(open_))
    if min(processes, len(open_)) <= 1:
        for _, size, call, arguments in open_:
            call(*arguments)
            progress.add(size)
        return
    # Spawned: the tokenizer's threads do not survive a fork.
    pool = ProcessPoolExecutor(
        min(processes, len(open_)),
        mp_context=get_context("spawn"),
        initializer=_begin,
        initargs=(os.getpid(),),
    )
    with pool:
        futures: dict[Future[None], int] = {
            pool.submit(call, *arguments): size for _, size, call, arguments in open_
        }
        try:
            for future in as_completed(futures):
                future.result()
                progress.add(futures[future])
        except BrokenProcessPool:
            raise ConfigError(
                f"{stage}: a process was killed, as one is that needs more memory than there is; "
                "use fewer --processes"
            ) from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _begin(parent: int) -> None:
    # A killed parent could not end them.
    die_with_parent(parent, signal.SIGKILL)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


class _Counted:
    """What the manifest tells of the documents."""

    def __init__(
        self,
        found: Sequence[Input],
        cleaned: Sequence[Path],
        kept: Sequence[Mask],
        dropped: dict[str, int],
    ) -> None:
        counts: Counter[str] = Counter(dropped)
        masked: Counter[str] = Counter()
        licences: Counter[str] = Counter()
        bad: list[Bad] = []
        records = []
        for one, path, mask in zip(found, cleaned, kept, strict=True):
            statistics = stages.statistics_of(path)
            counts.update(statistics["counts"])
            masked.update(statistics["masked"])
            bad += [Bad(**item) for item in statistics["bad"]]
            names = pq.read_table(path, columns=["licence"]).column(0).to_pylist()
            licences.update(
                name or "unknown" for name, stays in zip(names, mask, strict=True) if stays
            )
            records.append(
                InputRecord(
                    path=one.path,
                    bytes=one.size,
                    documents=statistics["counts"].get("read", 0),
                    kept=int(mask.sum()),
                    sha256=statistics["sha256"],
                )
            )
        counts["kept"] = sum(int(mask.sum()) for mask in kept)
        self.inputs = tuple(records)
        self.documents = dict(sorted(counts.items()))
        self.masked = dict(sorted(masked.items()))
        self.licences = dict(sorted(licences.items()))
        self.bad = tuple(bad[: stages.BAD_NAMED])


def _counts(counted: _Counted) -> str:
    return ", ".join(f"{count} {name}" for name, count in counted.documents.items())
