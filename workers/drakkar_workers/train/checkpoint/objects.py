"""Places in an object store (S3, Google Cloud Storage), as far as checkpoints use paths.

The store's own names for what goes wrong become those of the system: what handles a full disk or a
folder without rights handles a bucket, too. Credentials and the endpoint come from the environment
(AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, GOOGLE_SERVICE_ACCOUNT_KEY, ... or
what a cloud gives to its machines), never from the URL.
"""

import contextlib
import errno
import functools
import io
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import ObjectStore, from_url

READ_AHEAD = 16 << 20
"""Bytes of one request: stores answer in a tenth of a second, whatever is asked for."""
SCHEMES = ("s3", "gs")
_S3_ERROR = re.compile(r"<Code>([^<]*)</Code>.*?<Message>([^<]*)</Message>", re.DOTALL)


class ObjectPath:
    """A name in a store. Methods are those of ``Path`` and raise OSError alone."""

    def __init__(self, root: str, key: str) -> None:
        """``root`` is a bucket's URL (``at`` takes it apart), ``key`` has no leading slash."""
        self._root = root
        self._key = key

    def __truediv__(self, name: str) -> "ObjectPath":
        return ObjectPath(self._root, f"{self._key}/{name}".strip("/"))

    def __str__(self) -> str:
        return f"{self._root}/{self._key}"

    def __repr__(self) -> str:
        return f"ObjectPath({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectPath) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    @property
    def name(self) -> str:
        """The last part."""
        return self._key.rpartition("/")[2]

    @property
    def parent(self) -> "ObjectPath":
        """The place above."""
        return ObjectPath(self._root, self._key.rpartition("/")[0])

    def is_relative_to(self, other: object) -> bool:
        """Whether it lies below ``other``."""
        return str(self).startswith(f"{str(other).rstrip('/')}/")

    def relative_to(self, other: object) -> str:
        """Its name as seen from ``other``, below which it lies."""
        return str(self)[len(str(other).rstrip("/")) + 1 :]

    def mkdir(self, **_options: object) -> None:
        """Stores have no folders."""

    def stat(self) -> "Stat":
        """Its size. FileNotFoundError if it is not there."""
        with self._plainly():
            return Stat(obstore.head(self._store, self._key)["size"])

    def open(self, _mode: Literal["rb"] = "rb") -> BinaryIO:
        """For reading, anywhere in it."""
        return cast(BinaryIO, io.BufferedReader(_Raw(self, self.stat().st_size), READ_AHEAD))

    def read_bytes(self) -> bytes:
        """All of it."""
        with self._plainly():
            return bytes(obstore.get(self._store, self._key).bytes())

    def read_text(self) -> str:
        """All of it, as UTF-8."""
        return self.read_bytes().decode()

    def read_range(self, start: int, length: int) -> bytes:
        """A part of it, which must be there."""
        with self._plainly():
            return bytes(obstore.get_range(self._store, self._key, start=start, length=length))

    def write_bytes(self, content: bytes) -> None:
        """Put it there at once: who reads it sees the old or the new, never a part."""
        with self._plainly():
            obstore.put(self._store, self._key, content)

    def upload(self, source: Path) -> None:
        """Put a file's content there at once; large ones in parts side by side."""
        with self._plainly():
            obstore.put(self._store, self._key, source)

    def touch(self) -> None:
        """Make it empty."""
        self.write_bytes(b"")

    def unlink(self, *, missing_ok: bool = False) -> None:
        """Delete it."""
        with self._plainly(), contextlib.suppress(*([FileNotFoundError] if missing_ok else [])):
            obstore.delete(self._store, self._key)

    def rename(self, target: "ObjectPath") -> None:
        """Copy it, then delete it."""
        with self._plainly():
            obstore.rename(self._store, self._key, target._key)

    def below(self) -> list["Entry"]:
        """All that lies below it, at any depth."""
        with self._plainly():
            found = obstore.list(self._store, prefix=f"{self._key}/" if self._key else None)
            return [
                Entry(
                    each["path"][len(self._key) :].strip("/"), each["size"], each["last_modified"]
                )
                for chunk in found
                for each in chunk
            ]

    @property
    def _store(self) -> ObjectStore:
        return _connect(self._root)

    @contextlib.contextmanager
    def _plainly(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise FileNotFoundError(errno.ENOENT, _words(error), str(self)) from None
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise PermissionError(errno.EACCES, _words(error), str(self)) from None
        except BaseError as error:
            raise OSError(errno.EIO, _words(error), str(self)) from None


@dataclass(frozen=True, slots=True)
class Stat:
    """What is known of one object."""

    st_size: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One object of a list."""

    path: str
    """Below what was listed."""
    size: int
    changed: datetime


Place = Path | ObjectPath
"""Where a checkpoint, or a folder of them, lies."""


def place(text: str) -> Place:
    """A URL's place in a store, or a path. Raises ValueError if no store is known by the URL."""
    return at(text) if "://" in text else Path(text)


def at(url: str) -> ObjectPath:
    """The place that a URL such as ``s3://bucket/runs`` names. Raises ValueError."""
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES or not parts.netloc:
        known = ", ".join(f"{scheme}://BUCKET/PREFIX" for scheme in SCHEMES)
        raise ValueError(f"{url!r} is no place for checkpoints: write {known}")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError(f"the URL of {parts.hostname!r} must hold nothing but bucket and prefix")
    return ObjectPath(f"{parts.scheme}://{parts.netloc}", parts.path.strip("/"))


def relative(folder: Place, root: Place) -> str:
    """A folder as seen from where all storage begins; its whole path if it lies elsewhere."""
    if isinstance(folder, ObjectPath):
        return folder.relative_to(root) if folder.is_relative_to(root) else str(folder)
    if isinstance(root, Path) and folder.is_relative_to(root):
        return str(folder.relative_to(root))
    return str(folder)


@functools.lru_cache(maxsize=8)
def _connect(root: str) -> ObjectStore:
    """One client per bucket and process. Made late: its threads would not survive a fork."""
    options: dict[str, Any] = {}
    if os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://"):
        # Whoever names such an endpoint has chosen it.
        options["client_options"] = {"allow_http": True}
    return from_url(root, **options)


def _words(error: BaseException) -> str:
    """What went wrong in one line; a store's answer repeats the request, with the key's name."""
    text = str(error)
    if found := _S3_ERROR.search(text):
        return f"{found[1]}: {found[2]}"
    return text.partition("\n")[0].partition(": <?xml")[0][:300]


class _Raw(io.RawIOBase):
    """An object that is read by ranges."""

    def __init__(self, path: ObjectPath, size: int) -> None:
        self._path = path
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        length = min(len(buffer), self._size - self._at)
        if length <= 0:
            return 0
        buffer[:length] = self._path.read_range(self._at, length)
        self._at += length
        return length
