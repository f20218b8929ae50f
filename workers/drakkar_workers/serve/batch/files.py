"""A client's files in a folder of its own, which the replicas of a service share."""

import hashlib
import json
import os
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from drakkar_workers.serve.server.errors import ApiError, not_found

FILE_LIMIT_BYTES = 128 << 20
FILES_LIMIT = 10_000
"""Of one client."""
_ID = re.compile(r"file-[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class StoredFile:
    """What is known of a file beside its bytes."""

    id: str
    filename: str
    purpose: str
    bytes: int
    created_at: int

    def body(self) -> dict[str, Any]:
        """As OpenAI shows it."""
        return {**asdict(self), "object": "file", "status": "processed"}


class FileStore:
    """The files of one client. A file is there once its description is: that is written last."""

    def __init__(self, root: Path, client: str) -> None:
        # A client's name may hold anything: it never becomes a path.
        self.home = root / hashlib.sha256(client.encode()).hexdigest()[:32]
        self._folder = self.home / "files"

    @contextmanager
    def adding(self) -> Iterator["Upload"]:
        """A file to write to; what is not kept within the block is gone after it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        if len(list(self._folder.glob("*.json"))) >= FILES_LIMIT:
            raise ApiError(f"there are {FILES_LIMIT} files already: delete some", status=409)
        part = self._folder / f".{uuid.uuid4().hex}"
        try:
            with part.open("xb") as out:
                yield Upload(self, part, out)
        finally:
            part.unlink(missing_ok=True)

    def adopt(self, name: str, path: Path, filename: str, purpose: str) -> StoredFile:
        """Make a file of what lies at ``path`` on the same volume; done twice it is done once."""
        self._folder.mkdir(parents=True, exist_ok=True)
        content = self._folder / name
        if path.exists():
            with path.open("rb") as written:
                os.fsync(written.fileno())
            path.rename(content)
        found = StoredFile(
            id=name,
            filename=filename,
            purpose=purpose,
            bytes=content.stat().st_size,
            created_at=int(time.time()),
        )
        write_whole(self._folder / f"{name}.json", json.dumps(asdict(found)))
        return found

    def holds(self, name: str) -> bool:
        """Whether a file's bytes are there, described or not."""
        return (self._folder / name).exists()

    def find(self, name: str) -> StoredFile:
        """A file. Raises ApiError with status 404."""
        try:
            return self._read(self._place(name).with_suffix(".json"))
        except FileNotFoundError:
            raise _unknown(name) from None

    def content(self, name: str) -> Path:
        """Where a file's bytes are. Raises ApiError with status 404."""
        self.find(name)
        return self._place(name)

    def all(self) -> list[StoredFile]:
        """Every file, the newest first."""
        found = []
        for path in self._folder.glob("file-*.json"):
            try:
                found.append(self._read(path))
            except FileNotFoundError:  # deleted by another replica meanwhile
                continue
        return sorted(found, key=lambda one: (one.created_at, one.id), reverse=True)

    def delete(self, name: str) -> None:
        """Delete a file. Raises ApiError with status 404."""
        self.find(name)
        place = self._place(name)
        place.with_suffix(".json").unlink(missing_ok=True)
        place.unlink(missing_ok=True)

    def _place(self, name: str) -> Path:
        if not _ID.fullmatch(name):
            raise _unknown(name)
        return self._folder / name

    @staticmethod
    def _read(path: Path) -> StoredFile:
        return StoredFile(**json.loads(path.read_text()))


class Upload:
    """A file on its way in."""

    def __init__(self, store: FileStore, part: Path, out: IO[bytes]) -> None:
        self._store = store
        self._part = part
        self._out = out
        self._size = 0

    def write(self, piece: bytes) -> None:
        """Add bytes. Raises ApiError with status 413 where they are too many."""
        self._size += len(piece)
        if self._size > FILE_LIMIT_BYTES:
            raise ApiError(
                f"the file is larger than {FILE_LIMIT_BYTES} bytes", status=413, param="file"
            )
        self._out.write(piece)

    def keep(self, filename: str, purpose: str) -> StoredFile:
        """Make a file of what was written."""
        self._out.flush()
        return self._store.adopt(f"file-{uuid.uuid4().hex}", self._part, filename, purpose)


def write_whole(path: Path, text: str) -> None:
    """Write a small file such that readers see all of it or what was there before."""
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with part.open("x") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        part.rename(path)
    finally:
        part.unlink(missing_ok=True)


def _unknown(name: str) -> ApiError:
    return not_found(f"there is no file {name[:128]!r}", code="file_not_found")
