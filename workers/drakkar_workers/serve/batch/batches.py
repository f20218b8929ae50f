"""Batches as they lie in a client's folder; one process at a time may work on one."""

import fcntl
import json
import os
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from drakkar_workers.serve.batch.files import FileStore, write_whole
from drakkar_workers.serve.server.errors import not_found

WINDOW_SECONDS = 24 * 3600
Status = Literal[
    "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelled"
]
ENDED: frozenset[str] = frozenset({"failed", "completed", "expired", "cancelled"})
_ID = re.compile(r"batch_[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch and how far it is. Times are seconds since 1970."""

    id: str
    client: str
    endpoint: str
    input_file_id: str
    created_at: int
    status: Status = "validating"
    ends_as: Status | None = None
    """What it becomes once its files are there."""
    metadata: dict[str, str] = field(default_factory=dict)
    errors: list[dict[str, Any]] = field(default_factory=list)
    """What is wrong with the input, by line."""
    total: int = 0
    completed: int = 0
    failed: int = 0
    output_file_id: str | None = None
    error_file_id: str | None = None
    in_progress_at: int | None = None
    ended_at: int | None = None

    @property
    def expires_at(self) -> int:
        """When what is not done stays undone."""
        return self.created_at + WINDOW_SECONDS

    def file_name(self, kind: str) -> str:
        """Id of its file of outputs or errors: the same whoever writes it, however often."""
        return f"file-{uuid.uuid5(uuid.NAMESPACE_OID, f'{self.id}/{kind}').hex}"

    def body(self, *, cancelling: bool = False) -> dict[str, Any]:
        """As OpenAI shows it."""
        status = "cancelling" if cancelling and self.status not in ENDED else self.status
        ended = {f"{name}_at": self.ended_at if self.status == name else None for name in ENDED}
        errors = {"object": "list", "data": self.errors} if self.errors else None
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": self.endpoint,
            "errors": errors,
            "input_file_id": self.input_file_id,
            "completion_window": "24h",
            "status": status,
            "output_file_id": self.output_file_id,
            "error_file_id": self.error_file_id,
            "created_at": self.created_at,
            "in_progress_at": self.in_progress_at,
            "expires_at": self.expires_at,
            **ended,
            "request_counts": {
                "total": self.total,
                "completed": self.completed,
                "failed": self.failed,
            },
            "metadata": self.metadata or None,
        }


class BatchStore:
    """The batches of one client."""

    def __init__(self, files: FileStore) -> None:
        self.files = files
        self._folder = files.home / "batches"

    def create(self, client: str, endpoint: str, file: str, metadata: dict[str, str]) -> Batch:
        """A new batch."""
        batch = Batch(
            id=f"batch_{uuid.uuid4().hex}",
            client=client,
            endpoint=endpoint,
            input_file_id=file,
            created_at=int(time.time()),
            metadata=metadata,
        )
        self.place(batch.id).mkdir(parents=True)
        self.write(batch)
        return batch

    def write(self, batch: Batch) -> None:
        """Keep how far it is; only who holds it may."""
        write_whole(self.place(batch.id) / "batch.json", json.dumps(asdict(batch)))

    def find(self, name: str) -> Batch:
        """A batch. Raises ApiError with status 404."""
        try:
            return Batch(**json.loads((self.place(name) / "batch.json").read_text()))
        except FileNotFoundError:
            raise _unknown(name) from None

    def all(self) -> list[Batch]:
        """Every batch, the newest first."""
        paths = self._folder.glob("batch_*/batch.json")
        found = [Batch(**json.loads(path.read_text())) for path in paths]
        return sorted(found, key=lambda one: (one.created_at, one.id), reverse=True)

    def cancel(self, name: str) -> None:
        """Ask for its end; who works on it looks for that."""
        (self.place(name) / "cancel").touch()

    def cancelling(self, name: str) -> bool:
        """Whether its end was asked for."""
        return (self.place(name) / "cancel").exists()

    @contextmanager
    def holding(self, name: str) -> Iterator[bool]:
        """Whether this process alone may work on the batch, until the block ends or it dies.

        The lock is the file system's: it goes with its holder, whatever becomes of that.
        """
        handle = os.open(self.place(name) / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(handle)

    def place(self, name: str) -> Path:
        """The folder of a batch. Raises ApiError with status 404 where the name can't be one."""
        if not _ID.fullmatch(name):
            raise _unknown(name)
        return self._folder / name


class Results:
    """Lines of a batch's answers and errors, appended as they come and read again after a fall."""

    def __init__(self, folder: Path) -> None:
        self._paths = {"output": folder / "output.jsonl", "errors": folder / "errors.jsonl"}
        self.done: set[str] = set()
        """Ids of requests that have their line."""
        self.counts = {"output": 0, "errors": 0}
        for kind, path in self._paths.items():
            self._recover(kind, path)

    def add(self, kind: Literal["output", "errors"], custom_id: str, line: dict[str, Any]) -> None:
        """Append a line."""
        with self._paths[kind].open("ab") as out:
            out.write(json.dumps(line).encode() + b"\n")
        self.done.add(custom_id)
        self.counts[kind] += 1

    def adopt(self, batch: Batch, files: FileStore) -> Batch:
        """Make files of the lines; the batch with their ids."""
        names: dict[str, str | None] = {}
        for kind, path in self._paths.items():
            name = batch.file_name(kind)
            names[kind] = None
            if self.counts[kind] or files.holds(name):
                names[kind] = files.adopt(name, path, f"{batch.id}_{kind}.jsonl", "batch_output").id
        return replace(batch, output_file_id=names["output"], error_file_id=names["errors"])

    def _recover(self, kind: str, path: Path) -> None:
        if not path.exists():
            return
        with path.open("r+b") as lines:
            whole = 0
            for line in lines:
                if not line.endswith(b"\n"):
                    break  # cut off by the death of who wrote it
                self.done.add(json.loads(line)["custom_id"])
                self.counts[kind] += 1
                whole += len(line)
            lines.truncate(whole)


def unfinished(root: Path, ended: set[Path]) -> list[tuple[str, str]]:
    """(client, id) of all batches of all clients that have not ended, the oldest first.

    ``ended`` takes those that have: they stay so, and are not read again.
    """
    found = []
    for path in set(root.glob("*/batches/batch_*/batch.json")) - ended:
        batch = Batch(**json.loads(path.read_text()))
        if batch.status in ENDED:
            ended.add(path)
        else:
            found.append((batch.created_at, batch.client, batch.id))
    return [(client, name) for _, client, name in sorted(found)]


def _unknown(name: str) -> Exception:
    return not_found(f"there is no batch {name[:128]!r}", code="batch_not_found")
