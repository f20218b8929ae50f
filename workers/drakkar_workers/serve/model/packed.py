"""Packed weights in a file that all engines on a machine map into memory: packed once, held once.

A folder per model and way of packing, published by a rename: ``weights.bin`` with every tensor at the
start of a page, and ``index.json``. Mapped pages are the page cache's own, so a second engine
costs no memory for them and need not read them; weights are never written.
"""

import fcntl
import hashlib
import json
import logging
import mmap
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from drakkar_workers.serve.model.backend import Backend, Linear, Quantization

LAYOUT = "panels-32/1"
"""Of what NativeBackend.pack makes; another one never meets the files of this one."""
DATA, INDEX = "weights.bin", "index.json"
PARTS = ("weight", "scales", "bias")

logger = logging.getLogger(__name__)


Read = Callable[[], tuple[Tensor, Tensor | None]]
"""Gives a weight and its bias as the model has them."""


class Shelf:
    """Where ``Decoder`` gets its packed weights from: packed on the spot."""

    def __init__(self, backend: Backend, quantization: Quantization) -> None:
        self.backend = backend
        self.quantization = quantization

    def get(self, name: str, read: Read) -> Linear:  # noqa: ARG002 (others look it up)
        """The weight of this name."""
        return self.backend.pack(*read(), self.quantization)


class _Filling(Shelf):
    """Writes what it packs, and uses it from the file."""

    def __init__(self, backend: Backend, quantization: Quantization, folder: Path) -> None:
        super().__init__(backend, quantization)
        self._file = (folder / DATA).open("wb")
        self._folder = folder
        self._index: dict[str, Any] = {}
        self._whole = True

    def get(self, name: str, read: Read) -> Linear:
        made = super().get(name, read)
        if not self._whole:
            return made
        try:
            entry = self._write(made)
            self._index[name] = entry
            return _linear(self._folder, entry)
        except OSError as error:
            logger.warning("packed weights are not shared: %s", error)
            self._whole = False
            return made

    def _write(self, made: Linear) -> dict[str, Any]:
        entry: dict[str, Any] = {
            "inputs": made.inputs, "outputs": made.outputs, "kind": made.kind
        }  # fmt: skip
        for part in PARTS:
            tensor: Tensor | None = getattr(made, part)
            if tensor is not None:
                self._file.write(b"\0" * (-self._file.tell() % mmap.ALLOCATIONGRANULARITY))
                dtype, shape = str(tensor.dtype).removeprefix("torch."), list(tensor.shape)
                entry[part] = {"at": self._file.tell(), "dtype": dtype, "shape": shape}
                self._file.write(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
        self._file.flush()
        return entry

    def close(self) -> bool:
        """Nothing more comes; whether all of it is in the folder."""
        self._file.close()
        if self._whole:
            (self._folder / INDEX).write_text(json.dumps(self._index))
        return self._whole


class _Mapped(Shelf):
    """Uses what was written."""

    def __init__(self, backend: Backend, quantization: Quantization, folder: Path) -> None:
        super().__init__(backend, quantization)
        self._folder = folder
        self._index = json.loads((folder / INDEX).read_text())

    def get(self, name: str, read: Read) -> Linear:  # noqa: ARG002 (nothing is read)
        return _linear(self._folder, self._index[name])


def _linear(folder: Path, entry: dict[str, Any]) -> Linear:
    with (folder / DATA).open("rb") as file:
        parts = {part: _tensor(file.fileno(), entry.get(part)) for part in PARTS}
    weight = parts["weight"]
    assert weight is not None
    return Linear(
        entry["inputs"], entry["outputs"], entry["kind"], weight, parts["scales"], parts["bias"]
    )


def _tensor(file: int, where: dict[str, Any] | None) -> Tensor | None:
    if where is None:
        return None
    dtype: torch.dtype = getattr(torch, where["dtype"])
    count = torch.Size(where["shape"]).numel()
    # A private mapping shares all pages that nobody writes, and torch takes no others silently.
    mapped = mmap.mmap(file, count * dtype.itemsize, access=mmap.ACCESS_COPY, offset=where["at"])
    return torch.frombuffer(mapped, dtype=dtype).view(where["shape"])


@contextmanager
def shelf(
    folder: Path | None, model: Path, backend: Backend, quantization: Quantization
) -> Iterator[Shelf]:
    """Weights of ``model`` as they are packed below ``folder``, or are to be; None: in memory only.

    One engine packs while others wait for it. A folder that can't be used costs no more than that.
    """
    if folder is None:
        yield Shelf(backend, quantization)
        return
    place = folder / key(model, backend, quantization)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / f"{place.name}.lock").open("w")
    except OSError as error:
        if (place / INDEX).is_file():
            yield _Mapped(backend, quantization, place)
            return
        logger.warning("packed weights are kept in memory alone: %s", error)
        yield Shelf(backend, quantization)
        return
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / INDEX).is_file():
            yield from _fill(place, backend, quantization)
            return
    yield _Mapped(backend, quantization, place)


def _fill(place: Path, backend: Backend, quantization: Quantization) -> Iterator[Shelf]:
    scratch = Path(tempfile.mkdtemp(prefix=".packing-", dir=place.parent))
    try:
        filling = _Filling(backend, quantization, scratch)
        yield filling
        if filling.close():
            scratch.chmod(0o755)
            scratch.rename(place)
            logger.info("packed weights are shared at %s", place)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def key(model: Path, backend: Backend, quantization: Quantization) -> str:
    """Names a model's files as they are, and the way of packing."""
    digest = hashlib.sha256(f"{LAYOUT} {backend.dtype} {quantization}".encode())
    digest.update((model / "config.json").read_bytes())
    for path in sorted(model.glob("*.safetensors")):
        found = path.stat()
        digest.update(f"{path.name} {found.st_size} {found.st_mtime_ns}".encode())
    return digest.hexdigest()[:32]
