"""Finds the newest checkpoint that is whole, and loads it. All ranks take part and agree."""

import contextlib
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor
from torch.distributed.checkpoint.filesystem import FileSystem, FileSystemReader
from torch.distributed.checkpoint.state_dict_loader import load

from drakkar_workers.errors import TrainingError
from drakkar_workers.train.checkpoint import layout, store
from drakkar_workers.train.checkpoint.layout import FileRecord, Manifest
from drakkar_workers.train.checkpoint.objects import ObjectPath, Place
from drakkar_workers.train.world import World

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Found:
    """A checkpoint whose files are all as its manifest says."""

    folder: Place
    manifest: Manifest


def newest(
    directory: Place,
    world: World,
    warn: Callable[[str], None],
    *,
    move: bool = True,
    pulse: Callable[[], None] = lambda: None,
) -> Found | None:
    """The newest whole checkpoint in a folder of checkpoints; ``move`` sets damaged ones aside.

    ``pulse`` is called again and again while files are read. Rank 0 lists, every rank checks its
    share of the files, and one rank's doubt is enough. Raises TrainingError on all ranks if one of
    them can't read: that is no damage, and may pass.
    """
    aside: set[str] = set()
    kept = store.of(directory)
    for name in by_first(world, kept.published):
        folder = directory / name
        found, trouble = check(folder, world, pulse)
        if found is not None:
            return found
        if world.is_first:
            warn(f"checkpoint {folder} is damaged ({trouble}); trying the one before")
            if move:
                aside.add(kept.set_aside(name, aside))
    return None


def check(
    folder: Place, world: World, pulse: Callable[[], None] = lambda: None
) -> tuple[Found | None, str | None]:
    """The checkpoint in this folder, or what is wrong with it; the same on all ranks.

    Raises TrainingError on all ranks if one of them can't read it.
    """
    manifest, trouble = by_first(world, lambda: _manifest(folder))
    if manifest is None:
        return None, trouble
    names = sorted(manifest.files)[world.rank :: world.size]
    seen = world.gather(_look(folder, {name: manifest.files[name] for name in names}, pulse))
    for rank, view in enumerate(seen):
        if view.unread:
            raise unreadable(f"rank {rank}: {view.unread}")
    missing = [(rank, view.missing) for rank, view in enumerate(seen) if view.missing]
    gone = by_first(world, lambda: [name for _, name in missing if not exists(folder / name)])
    for rank, name in missing:
        if name not in gone:
            raise unreadable(f"rank {rank} does not see {folder / name}, which rank 0 does")
    troubles = [view.damage for view in seen if view.damage]
    troubles += [f"{name}: No such file or directory" for name in gone]
    return (None, troubles[0]) if troubles else (Found(folder, manifest), None)


def by_first(world: World, read: Callable[[], T]) -> T:
    """What rank 0 reads, on every rank. Raises TrainingError on every rank if it can't."""
    found: list[T] = []
    error: str | None = None
    if world.is_first:
        try:
            found.append(read())
        except OSError as failure:
            error = str(failure)
    found, error = world.from_first((found, error))
    if error is not None:
        raise unreadable(f"rank 0: {error}")
    return found[0]


def unreadable(what: str) -> TrainingError:
    """Storage did not do its work; another try may find it better."""
    return TrainingError("StorageError", what)


@dataclass(frozen=True, slots=True)
class _View:
    """What one rank found of its share of the files."""

    damage: str | None = None
    missing: str | None = None
    """A file that is not there, as this rank's node sees the folder."""
    unread: str | None = None


def _look(folder: Place, files: dict[str, FileRecord], pulse: Callable[[], None]) -> _View:
    missing: str | None = None
    for name, expected in files.items():
        try:
            damage = layout.problem(folder, {name: expected}, pulse)
        except FileNotFoundError:
            missing = missing or name
        except OSError as error:
            return _View(unread=str(error))
        else:
            if damage:
                return _View(damage=damage)
    return _View(missing=missing)


def _manifest(folder: Place) -> tuple[Manifest | None, str | None]:
    try:
        return layout.read_manifest(folder), None
    except ValueError as error:
        return None, str(error)


def exists(path: Place) -> bool:
    """Like ``Path.exists``, but raises OSError if it can't be known."""
    try:
        path.stat()
    except FileNotFoundError:
        return False
    return True


def load_tensors(folder: Place, tensors: dict[str, Tensor]) -> None:
    """Read a checkpoint's tensors into these, in place; every rank reads what it needs.

    Works for any number of ranks, whatever number wrote it. Without collectives: a plan that all
    ranks must gather is what times out in large gangs (accelerate#4086).
    """
    load(dict(tensors), storage_reader=reader(folder), no_dist=True)


def reader(folder: Place) -> FileSystemReader:
    """What torch reads a checkpoint with, wherever it lies."""
    return _ObjectReader(folder) if isinstance(folder, ObjectPath) else FileSystemReader(folder)


class _ObjectReader(FileSystemReader):
    """Reads the ranges of objects that it needs."""

    def __init__(self, folder: ObjectPath) -> None:
        super().__init__(str(folder))
        self.fs = _Objects()
        self.path = folder  # type: ignore[assignment]


class _Objects(FileSystem):
    """The two things that a reader asks of a filesystem."""

    def concat_path(self, path: Any, suffix: str) -> Any:
        return path / suffix

    @contextlib.contextmanager
    def create_stream(self, path: Any, mode: str) -> Generator[Any, None, None]:
        with path.open(mode) as stream:
            yield stream
