"""One face for both places where checkpoints are kept: a folder that all pods share, or a bucket."""

import contextlib
import hashlib
import shutil
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Protocol

from drakkar_workers.train.checkpoint import bucket, layout
from drakkar_workers.train.checkpoint.layout import Manifest
from drakkar_workers.train.checkpoint.objects import ObjectPath, Place


class Draft(Protocol):
    """A checkpoint that is being written, as one rank has it in hands."""

    folder: Path
    """Where the rank writes its files."""

    def bring(self, names: Collection[str]) -> None:
        """Bring these files to where they are published. Raises OSError."""

    def publish(self, manifest: Manifest) -> Place:
        """Make the files of all ranks the checkpoint of their step.

        Raises OSError, ValueError if one is missing.
        """

    def end(self, *, first: bool, published: bool) -> None:
        """Delete what the save leaves behind. ``first`` on rank 0. Never raises."""


class Store(Protocol):
    """What can be done with a folder of checkpoints. Methods raise OSError."""

    def published(self) -> list[str]:
        """Names of published checkpoints, newest first; not yet checked."""

    def newest_step(self) -> int:
        """Of all that are published; 0 without one."""

    def draft(self, step: int, attempt: str, rank: int) -> Draft:
        """Begin to write a checkpoint."""

    def prune(self, keep: int, newest: Place) -> None:
        """Delete all but the newest."""

    def clean(self, attempt: str | None = None) -> None:
        """Delete what other attempts left unfinished. Never raises."""

    def set_aside(self, name: str, spare: Collection[str] = ()) -> str:
        """Take a damaged checkpoint out of the way; its name then. Never raises."""


def of(directory: Place) -> Store:
    """The store in which a folder of checkpoints lies."""
    return _Bucket(directory) if isinstance(directory, ObjectPath) else _Folder(directory)


class _Folder:
    """All ranks write into one temporary folder, which is renamed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def published(self) -> list[str]:
        return [layout.folder_name(step) for step in layout.published(self._directory)]

    def newest_step(self) -> int:
        return max(layout.published(self._directory), default=0)

    def draft(self, step: int, attempt: str, _rank: int) -> Draft:
        return _SharedDraft(self._directory / layout.temporary_name(step, attempt))

    def prune(self, keep: int, newest: Place) -> None:
        layout.prune(self._directory, keep, int(newest.name.rpartition("-")[2]))

    def clean(self, attempt: str | None = None) -> None:
        layout.clean(self._directory, attempt)

    def set_aside(self, name: str, spare: Collection[str] = ()) -> str:
        return layout.set_aside(self._directory / name, spare)


class _SharedDraft:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def bring(self, names: Collection[str]) -> None:
        """They are there."""

    def publish(self, manifest: Manifest) -> Place:
        return layout.publish(self.folder, manifest)

    def end(self, *, first: bool, published: bool) -> None:
        if first and not published:
            shutil.rmtree(self.folder, ignore_errors=True)


class _Bucket:
    """Each rank writes to the disk of its node and sends its files; the manifest goes last."""

    def __init__(self, directory: ObjectPath) -> None:
        self._directory = directory

    def published(self) -> list[str]:
        return bucket.published(self._directory)

    def newest_step(self) -> int:
        return max((bucket.step_of(name) for name in self.published()), default=0)

    def draft(self, step: int, attempt: str, rank: int) -> Draft:
        # The same folder for all saves of a rank: what a killed process left there goes.
        digest = hashlib.sha256(str(self._directory).encode()).hexdigest()[:12]
        local = Path(tempfile.gettempdir()) / f"drakkar-save-{digest}-{rank}"
        shutil.rmtree(local, ignore_errors=True)
        return _SentDraft(local, self._directory / bucket.name_of(step, attempt))

    def prune(self, keep: int, newest: Place) -> None:
        bucket.prune(self._directory, keep, newest.name)

    def clean(self, attempt: str | None = None) -> None:
        bucket.clean(self._directory, attempt)

    def set_aside(self, name: str, spare: Collection[str] = ()) -> str:
        return bucket.set_aside(self._directory / name, spare)


class _SentDraft:
    def __init__(self, folder: Path, target: ObjectPath) -> None:
        self.folder = folder
        self._target = target

    def bring(self, names: Collection[str]) -> None:
        bucket.upload(self.folder, self._target, names)

    def publish(self, manifest: Manifest) -> Place:
        return bucket.publish(self._target, manifest)

    def end(self, *, first: bool, published: bool) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        if first and not published:
            with contextlib.suppress(OSError):
                bucket.discard(self._target)
