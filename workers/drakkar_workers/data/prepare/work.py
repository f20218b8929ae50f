"""The folder in which a preparation is at work: what is there under its name is whole.

It lies beside the result, which is published by one rename. Its name has a digest of inputs and
settings, so that a later run goes on with it only if it would do the same.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from drakkar_workers.data.prepare.inputs import Input
from drakkar_workers.data.prepare.settings import PrepareSettings
from drakkar_workers.errors import ConfigError

FORMAT = 1
"""Part of the digest: changes with what the files mean."""


def digest(inputs: Sequence[Input], settings: PrepareSettings, tokenizer: bytes) -> str:
    """Names a preparation: 16 hexadecimal digits. ``tokenizer`` is the file that is used, if any."""
    plan = {
        "format": FORMAT,
        "settings": settings.model_dump(mode="json"),
        "inputs": [[one.path, one.size, one.modified_ns] for one in inputs],
        "tokenizer": hashlib.sha256(tokenizer).hexdigest(),
    }
    return hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()[:16]


@contextmanager
def working_folder(out: Path, name: str) -> Iterator[Path]:
    """The folder of preparation ``name``, while no other process has it; others of ``out`` go.

    Raises ConfigError if another process prepares the same result, or nothing can be written.
    """
    prefix = f".{out.name}.preparing"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        lock = (out.parent / f"{prefix}.lock").open("w")
    except OSError as error:
        raise ConfigError(f"--out: {out.parent} can't be written: {error.strerror}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"--out: another process prepares {out} at this moment") from None
        folder = out.parent / f"{prefix}-{name}"
        for other in out.parent.glob(f"{prefix}-*"):
            if other != folder:
                shutil.rmtree(other, ignore_errors=True)
        folder.mkdir(exist_ok=True)
        yield folder


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """Where to write what becomes ``path`` when the block ends well, and only then."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield part
        descriptor = os.open(part, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        part.replace(path)
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write JSON whole. Raises OSError."""
    with written(path) as part:
        part.write_text(json.dumps(content, indent=2) + "\n")
