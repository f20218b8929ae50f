"""Files of documents, wherever they lie: on disk, or behind a URL that Arrow knows.

Credentials and endpoint of S3 come from the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, ...).
"""

import glob
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from drakkar_workers.data.prepare.errors import BadRecord, DataError
from drakkar_workers.data.prepare.settings import PrepareSettings

FORMATS = {
    ".jsonl": "json",
    ".md": "text",
    ".ndjson": "json",
    ".parquet": "parquet",
    ".txt": "text",
}
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2", ".lz4": "lz4"}
PARQUET_ROWS = 1024
"""Rows of a parquet file that are in memory at once."""
CODEC_BLOCK = 1 << 18


@dataclass(frozen=True, slots=True)
class Input:
    """A file: what is read, and how."""

    path: str
    """As the user or a listing names it."""
    size: int
    modified_ns: int
    form: str
    compression: str | None


@dataclass(frozen=True, slots=True)
class Document:
    """A text as it was found."""

    where: str
    text: str
    licence: str | None


def find(settings: PrepareSettings) -> list[Input]:
    """All files of the inputs, by name, each once. Raises DataError if one can't be used."""
    found: dict[str, Input] = {}
    for named in settings.inputs:
        for path, info in _expand(named):
            compression, form = _kind(path)
            found[path] = Input(path, info.size, info.mtime_ns or 0, form, compression)
    return [found[path] for path in sorted(found)]


def documents(source: Input, settings: PrepareSettings) -> Iterator[Document | BadRecord]:
    """The documents of a file in their order, and what is wrong with those that are none.

    Raises DataError if the file can't be read on: it is cut off, or not what its name says.
    """
    if source.size == 0:
        yield BadRecord(source.path, "is empty")
        return
    try:
        if source.form == "parquet":
            yield from _parquet(source, settings)
        elif source.form == "json":
            yield from _json(source, settings)
        else:
            yield from _text(source, settings)
    except (OSError, pa.ArrowException) as error:
        cut = "truncated" in str(error).lower() or "unexpected end" in str(error).lower()
        hint = "; it is cut off: copy it again" if cut else ""
        raise DataError(source.path, f"{_reason(error)}{hint}") from None


def _expand(named: str) -> Iterator[tuple[str, Any]]:
    system, path, prefix = _open_system(named)
    paths = [path]
    if not prefix and glob.has_magic(path):
        # Path.glob has no absolute patterns.
        paths = sorted(glob.glob(path, recursive=True))  # noqa: PTH207
    none = True
    for one in paths:
        try:
            info = system.get_file_info(one)
            if info.type == fs.FileType.Directory:
                inside = system.get_file_info(fs.FileSelector(one, recursive=True))
                files = [entry for entry in inside if entry.type == fs.FileType.File]
                files = [entry for entry in files if _known(entry.path)]
            else:
                files = [info] if info.type == fs.FileType.File else []
        except OSError as error:
            raise DataError(named, _reason(error)) from None
        for entry in files:
            none = False
            yield prefix + entry.path, entry
    if none:
        known = ", ".join(sorted(FORMATS))
        raise DataError(named, f"no file there (of {known}, also compressed)")


def _open_system(named: str) -> tuple[Any, str, str]:
    """A file system, the path in it, and what makes a URL of such a path."""
    if "://" not in named:
        return fs.LocalFileSystem(), str(Path(named).absolute()), ""
    try:
        system, path = fs.FileSystem.from_uri(named)
    except (OSError, pa.ArrowException) as error:
        raise DataError(named, _reason(error)) from None
    return system, path, named.partition("://")[0] + "://"


def _known(path: str) -> bool:
    suffixes = PurePosixPath(path).suffixes
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes = suffixes[:-1]
    return bool(suffixes) and suffixes[-1] in FORMATS


def _kind(path: str) -> tuple[str | None, str]:
    suffixes = PurePosixPath(path).suffixes
    compression = COMPRESSIONS.get(suffixes[-1]) if suffixes else None
    if compression:
        suffixes = suffixes[:-1]
    form = FORMATS.get(suffixes[-1]) if suffixes else None
    if form is None or (form == "parquet" and compression):
        known = ", ".join([*sorted(FORMATS), *sorted(f"*{end}" for end in COMPRESSIONS)])
        raise DataError(path, f"a name that says no format; known: {known}")
    return compression, form


def _stream(source: Input) -> io.BufferedReader:
    system, path, _ = _open_system(source.path)
    opened: Any = system.open_input_stream(path, compression=source.compression)
    return io.BufferedReader(opened, CODEC_BLOCK)


def _json(source: Input, settings: PrepareSettings) -> Iterator[Document | BadRecord]:
    limit = settings.max_record_bytes
    with _stream(source) as stream:
        number = 0
        while line := stream.readline(limit + 1):
            number += 1
            where = f"{source.path} line {number}"
            if len(line) > limit:
                yield BadRecord(where, f"has more than {limit} bytes (maxRecordBytes)")
                while line and not line.endswith(b"\n"):
                    line = stream.readline(CODEC_BLOCK)
                continue
            if line.strip():
                yield _from_line(line, where, settings)


def _from_line(line: bytes, where: str, settings: PrepareSettings) -> Document | BadRecord:
    try:
        item = json.loads(line.decode())
    except UnicodeDecodeError as error:
        return BadRecord(where, f"is not UTF-8 (byte {error.start}: {error.reason})")
    except ValueError as error:
        return BadRecord(where, f"is not JSON: {error}")
    except RecursionError:
        return BadRecord(where, "is not JSON that can be read: it nests too deeply")
    if not isinstance(item, dict):
        return BadRecord(where, f"is a {type(item).__name__}, expected an object")
    return _from_fields(item, where, settings)


def _from_fields(
    item: dict[str, Any], where: str, settings: PrepareSettings
) -> Document | BadRecord:
    if settings.text_field not in item:
        fields = ", ".join(sorted(item)[:8]) or "none"
        return BadRecord(
            where, f"has no field {settings.text_field!r}; its fields: {fields} (see --text-field)"
        )
    text = item[settings.text_field]
    if not isinstance(text, str):
        return BadRecord(where, f"{settings.text_field!r} is {type(text).__name__}, expected text")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return BadRecord(where, f"holds half a surrogate pair at character {error.start}")
    licence = item.get(settings.licence_field) if settings.licence_field else None
    return Document(where, text, str(licence) if licence is not None else settings.licence)


def _parquet(source: Input, settings: PrepareSettings) -> Iterator[Document | BadRecord]:
    system, path, _ = _open_system(source.path)
    with pq.ParquetFile(system.open_input_file(path)) as file:
        wanted = [settings.text_field, *filter(None, [settings.licence_field])]
        names = file.schema_arrow.names
        for name in wanted[:1]:
            if name not in names:
                raise DataError(
                    source.path,
                    f"has no column {name!r}; its columns: {', '.join(names[:16])} (see --text-field)",
                )
        row = 0
        columns = [name for name in wanted if name in names]
        for batch in file.iter_batches(PARQUET_ROWS, columns=columns):
            for item in batch.to_pylist():
                row += 1
                where = f"{source.path} row {row}"
                text = item[settings.text_field]
                if isinstance(text, str) and len(text) > settings.max_record_bytes:
                    yield BadRecord(
                        where, f"has more than {settings.max_record_bytes} bytes (maxRecordBytes)"
                    )
                else:
                    yield _from_fields(item, where, settings)


def _text(source: Input, settings: PrepareSettings) -> Iterator[Document | BadRecord]:
    limit, mode = settings.max_record_bytes, settings.text_documents
    held, number, begin, over = bytearray(), 1, 1, False
    with _stream(source) as stream:
        while line := stream.readline(limit + 1):
            blank = mode == "paragraph" and not line.strip()
            if not held and not over:
                begin = number
            number += line.endswith(b"\n")
            where = f"{source.path} line {begin}"
            if not (blank or over):
                held += line
            if len(held) > limit:
                yield BadRecord(where, f"begins a document of over {limit} bytes (maxRecordBytes)")
                held.clear()
                over = True
            if blank or (mode == "line" and line.endswith(b"\n")):
                if held:
                    yield _from_bytes(bytes(held), where, settings)
                held.clear()
                over = False
    if held:
        yield _from_bytes(bytes(held), f"{source.path} line {begin}", settings)


def _from_bytes(data: bytes, where: str, settings: PrepareSettings) -> Document | BadRecord:
    try:
        return Document(where, data.decode(), settings.licence)
    except UnicodeDecodeError as error:
        return BadRecord(where, f"is not UTF-8 (byte {error.start}: {error.reason})")


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split())[:500] or type(error).__name__
