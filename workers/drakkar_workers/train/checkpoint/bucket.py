"""Checkpoints in an object store: names, publication, clean-up. The filesystem's are in ``layout``.

step-00000050.ATTEMPT/    one attempt's checkpoint of that step; published if it has a manifest
  manifest.json           written last, when all that it names is there
  .metadata __0_0.distcp  as in a folder
  damaged.json            what was its manifest, once it was found damaged
OWNER position.json run.json

No store can rename a folder, so a checkpoint is published by its manifest. Its name says which attempt
wrote it: two that run at the same time, as when a network is cut, never write the same object.
"""

import contextlib
import re
from collections.abc import Collection
from pathlib import Path

from drakkar_workers.train.checkpoint.layout import MANIFEST, Manifest, folder_name
from drakkar_workers.train.checkpoint.objects import Entry, ObjectPath

DAMAGED = "damaged.json"
_FOLDER = re.compile(r"^step-(\d{8,})\.[^/]+$")


def name_of(step: int, attempt: str) -> str:
    """The folder in which an attempt writes a step's checkpoint."""
    return f"{folder_name(step)}.{attempt}"


def published(directory: ObjectPath) -> list[str]:
    """Names of all published checkpoints, newest first; not yet checked. Raises OSError."""
    found = []
    for name, entries in _folders(directory).items():
        match = _FOLDER.match(name)
        manifest = entries.get(MANIFEST)
        if match and manifest:
            found.append((int(match[1]), manifest.changed, name))
    return [name for _, _, name in sorted(found, reverse=True)]


def step_of(name: str) -> int:
    """Of a published checkpoint's name."""
    match = _FOLDER.match(name)
    assert match is not None
    return int(match[1])


def upload(source: Path, folder: ObjectPath, names: Collection[str]) -> None:
    """Send files of a local folder. Raises OSError."""
    for name in names:
        (folder / name).upload(source / name)


def publish(folder: ObjectPath, manifest: Manifest) -> ObjectPath:
    """Make what lies in this folder a checkpoint, at once and for good.

    Raises OSError, ValueError if a file of the manifest is not there.
    """
    there = {entry.path: entry.size for entry in folder.below()}
    for name, expected in manifest.files.items():
        if there.get(name) != expected.size:
            raise ValueError(
                f"{folder / name} has {there.get(name, 'no')} bytes, expected {expected.size}"
            )
    (folder / MANIFEST).write_bytes((manifest.model_dump_json(indent=2) + "\n").encode())
    return folder


def prune(directory: ObjectPath, keep: int, newest: str) -> None:
    """Delete all but the ``keep`` newest checkpoints up to ``newest``, which stays. Raises OSError.

    Later steps are of a past that the training has left: they neither count nor are they touched.
    """
    step = step_of(newest)
    names = [name for name in published(directory) if name != newest]
    older = [name for name in names if step_of(name) < step]
    again = [name for name in names if step_of(name) == step]
    for name in [*older[max(0, keep - 1) :], *again]:
        discard(directory / name)


def clean(directory: ObjectPath, attempt: str | None = None) -> None:
    """Delete what other attempts left unfinished. What can't be deleted is left alone."""
    with contextlib.suppress(OSError):
        for name, entries in _folders(directory).items():
            kept = MANIFEST in entries or DAMAGED in entries
            if _FOLDER.match(name) and not kept and not (attempt and name.endswith(attempt)):
                discard(directory / name)


def set_aside(folder: ObjectPath, spare: Collection[str] = ()) -> str:
    """Take a damaged checkpoint out of the way of the next search; the new name of its manifest.

    Takes the place of those that earlier searches set aside, but for the names to ``spare``.
    """
    with contextlib.suppress(OSError):
        for name, entries in _folders(folder.parent).items():
            if DAMAGED in entries and name not in spare:
                discard(folder.parent / name)
        (folder / MANIFEST).rename(folder / DAMAGED)
    return folder.name


def discard(folder: ObjectPath) -> None:
    """Delete a checkpoint, its manifest first: nobody finds a part of it. Raises OSError."""
    (folder / MANIFEST).unlink(missing_ok=True)
    for entry in folder.below():
        (folder / entry.path).unlink(missing_ok=True)


def _folders(directory: ObjectPath) -> dict[str, dict[str, Entry]]:
    """Folder -> what lies in it, by name."""
    found: dict[str, dict[str, Entry]] = {}
    for entry in directory.below():
        folder, _, name = entry.path.partition("/")
        if name:
            found.setdefault(folder, {})[name] = entry
    return found
