"""Checkpoint folders on disk: names, manifest, publication, clean-up. No torch here.

What takes a ``Place`` is for object stores, too; the rest of theirs is in ``bucket``.

step-00000050/            published: complete, never changed again
  manifest.json           step, world size, checksums of all other files
  .metadata __0_0.distcp  tensors, as torch.distributed.checkpoint lays them
  rank-00000.json         state that each rank has for itself
.tmp-step-00000100-ID/    being written, or left behind by a process that died
.corrupt-step-00000075/   was found damaged; kept for whoever wants to know why
position.json             the first batch that may be used, after others had to be passed over
OWNER                     the newest attempt that writes here; older ones must not
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import uuid
import zlib
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from drakkar_workers.train.checkpoint.objects import ObjectPath, Place

MANIFEST = "manifest.json"
TEMPORARY = ".tmp-"
CORRUPT = ".corrupt-"
OWNER = "OWNER"
POSITION = "position.json"
_PUBLISHED = re.compile(r"^step-(\d{8,})$")
_NAMED = re.compile(r"^step-(\d{8,})(?:\.|$)")
_READ_BYTES = 1 << 22


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class FileRecord(_Strict):
    """Size in bytes and CRC-32 of one file."""

    size: Annotated[int, Field(ge=0)]
    crc32: Annotated[int, Field(ge=0, lt=1 << 32)]


class Manifest(_Strict):
    """What a published checkpoint says of itself."""

    format: int = 1
    step: Annotated[int, Field(ge=0)]
    world_size: Annotated[int, Field(ge=1)]
    time: float
    """When it was written, seconds since the epoch."""
    started: float
    """When the training first began, seconds since the epoch."""
    productive_seconds: float
    """Time in the steps and evaluations that led here; lost ones are not in it."""
    passed_over: Annotated[int, Field(ge=0)] = 0
    """Batches that no step was made of."""
    recipe: dict[str, Any]
    recipe_sha256: str
    model: dict[str, Any]
    """All sizes of the model (``model.Shape``): a checkpoint of another model is refused."""
    data_sha256: str
    files: dict[str, FileRecord]


class SupersededError(RuntimeError):
    """A newer attempt has taken the checkpoint folder over."""


def recipe_digest(recipe: dict[str, Any]) -> str:
    """sha256 of a recipe's settings, whatever their order."""
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()


def folder_name(step: int) -> str:
    """Name of the published folder of a step."""
    return f"step-{step:08d}"


def temporary_name(step: int, attempt: str) -> str:
    """Name of the folder in which a step's checkpoint is written."""
    return f"{TEMPORARY}{folder_name(step)}-{attempt}"


def published(directory: Path) -> list[int]:
    """Steps of all published folders, newest first; not yet checked. Raises OSError.

    A folder that can't be read is not one without checkpoints: the training would begin anew.
    """
    try:
        with os.scandir(directory) as entries:
            names = [entry.name for entry in entries if entry.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = (_PUBLISHED.match(name) for name in names)
    return sorted((int(match[1]) for match in found if match), reverse=True)


def read_manifest(folder: Place) -> Manifest:
    """The manifest of a published folder.

    Raises ValueError if it is missing, torn or misplaced, OSError if it can't be read.
    """
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except FileNotFoundError as error:
        raise ValueError(f"{MANIFEST}: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in (MANIFEST, *first["loc"]))
        raise ValueError(f"{place}: {first['msg']}") from None
    named = _NAMED.match(folder.name)
    if named and int(named[1]) != manifest.step:
        raise ValueError(f"{MANIFEST} is of step {manifest.step}")
    return manifest


def record(path: Place, pulse: Callable[[], None] = lambda: None) -> FileRecord:
    """Size and checksum of a file as it is on disk; ``pulse`` is called again and again."""
    crc, size = 0, 0
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            crc = zlib.crc32(block, crc)
            size += len(block)
            pulse()
    return FileRecord(size=size, crc32=crc)


def problem(
    folder: Place, files: dict[str, FileRecord], pulse: Callable[[], None] = lambda: None
) -> str | None:
    """What is wrong with the first of these files that is not as its record says, or None.

    Raises OSError if one can't be read, FileNotFoundError if it is not there: neither says that the
    checkpoint is damaged, as storage may fail on one node only.
    """
    for name, expected in files.items():
        size = (folder / name).stat().st_size
        if size != expected.size:
            return f"{name} has {size} bytes, expected {expected.size}"
        found = record(folder / name, pulse)
        if found != expected:
            return f"{name} has CRC-32 {found.crc32:08x}, expected {expected.crc32:08x}"
    return None


def publish(temporary: Path, manifest: Manifest) -> Path:
    """Make a written folder the checkpoint of its step, at once and for good; its new path.

    A folder of the same step (found damaged, or of a run that was cut off) gives way. Raises
    OSError, ValueError if a file of the manifest is not there.
    """
    for name, expected in manifest.files.items():
        path = temporary / name
        if not path.is_file() or path.stat().st_size != expected.size:
            raise ValueError(
                f"{path} of another rank is not here: all pods must share the checkpoint folder"
            )
    with (temporary / MANIFEST).open("w") as file:
        file.write(manifest.model_dump_json(indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())
    sync(temporary)
    target = temporary.parent / folder_name(manifest.step)
    if target.exists():
        discard(target)
    temporary.rename(target)
    sync(target.parent)
    return target


def prune(directory: Path, keep: int, newest: int) -> None:
    """Delete all but the ``keep`` newest published folders up to step ``newest``. Raises OSError.

    ``newest`` was just published and stays. Later steps are of a past that the training has left,
    as after a damaged checkpoint: they neither count nor are they touched.
    """
    older = [step for step in published(directory) if step < newest]
    for step in older[max(0, keep - 1) :]:
        discard(directory / folder_name(step))


def clean(directory: Path, attempt: str | None = None) -> None:
    """Delete what other attempts left unfinished. What can't be deleted is left alone."""
    for entry in directory.glob(f"{TEMPORARY}*"):
        if attempt is None or not entry.name.endswith(attempt):
            shutil.rmtree(entry, ignore_errors=True)


def claim(directory: Place, attempt: str) -> None:
    """Make this attempt the only one that may publish and delete here. Raises OSError."""
    if isinstance(directory, ObjectPath):
        (directory / OWNER).write_bytes(attempt.encode())
        return
    temporary = directory / f"{TEMPORARY}owner-{attempt}"
    write_synced(temporary, attempt.encode())
    temporary.rename(directory / OWNER)
    sync(directory)


def check_owner(directory: Place, attempt: str) -> None:
    """Raises SupersededError if another attempt has claimed the folder since, OSError.

    A node that is cut off from the control plane may still reach the storage: its gang trains on
    while the next one runs elsewhere. If somebody has deleted the file nobody else has claimed it.
    """
    try:
        owner = (directory / OWNER).read_text()
    except FileNotFoundError:
        return
    if owner != attempt:
        raise SupersededError(
            f"{directory} belongs to attempt {owner[:64]!r} now; this is attempt {attempt!r}"
        )


def write_position(directory: Place, batch: int) -> None:
    """Keep that batches before this one are not to be used again. Raises OSError."""
    write_synced(directory / POSITION, json.dumps({"batch": batch}).encode())


def read_position(directory: Place) -> int:
    """The first batch that may be used; 0 if nothing was passed over, or what is there is torn."""
    try:
        return int(json.loads((directory / POSITION).read_text())["batch"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def set_aside(folder: Path, spare: Collection[str] = ()) -> str:
    """Take a damaged folder out of the way of the next search; its new name.

    Takes the place of those that earlier searches set aside, but for the names to ``spare``.
    """
    name = f"{CORRUPT}{folder.name}"
    with contextlib.suppress(OSError):
        for old in folder.parent.glob(f"{CORRUPT}*"):
            if old.name not in spare:
                shutil.rmtree(old, ignore_errors=True)
        folder.rename(folder.parent / name)
    return name


def discard(folder: Path) -> None:
    """Delete a folder; a reader never sees it half there."""
    doomed = folder.parent / f"{TEMPORARY}delete-{uuid.uuid4().hex[:8]}"
    folder.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def write_synced(path: Place, content: bytes) -> None:
    """Write a file so that it is on disk when this returns. Raises OSError."""
    if isinstance(path, ObjectPath):
        path.write_bytes(content)
        return
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync(path: Path) -> None:
    """fsync a file or a folder. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
