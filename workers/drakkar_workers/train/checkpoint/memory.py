"""Checkpoints in memory that outlives the process: a copy every few steps, found again after it dies.

A save costs the copy and a checksum that is taken while the bytes are in the processor's cache. The
agent owns the memory (``drakkar_workers.memory.arena``) and sends what a peer should have.
"""

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from xxhash import xxh3_64

from drakkar_workers.memory import agree
from drakkar_workers.memory.agree import Offer
from drakkar_workers.memory.arena import (
    CHUNK_BYTES,
    Arena,
    Key,
    NoRoomError,
    Record,
    checksum,
    checksum_of,
)
from drakkar_workers.memory.limits import room
from drakkar_workers.memory.marks import Marks, NoMarks
from drakkar_workers.train.world import World

MEMORY_ENV = "DRAKKAR_MEMORY_FD"
_ALIGNMENT = 64
_LENGTH_BYTES = 8


class DamagedError(RuntimeError):
    """A checkpoint in memory is not what it should be, though its checksums hold."""


def from_environ(environ: Mapping[str, str]) -> Arena | None:
    """The memory that the agent keeps for this rank, None outside of an agent."""
    descriptor = _descriptor(environ)
    return Arena(descriptor, room) if descriptor is not None else None


def marks_from_environ(environ: Mapping[str, str]) -> Marks:
    """Where this rank leaves its marks; nowhere outside of an agent."""
    descriptor = _descriptor(environ)
    return Marks(descriptor) if descriptor is not None else NoMarks()


def _descriptor(environ: Mapping[str, str]) -> int | None:
    value = environ.get(MEMORY_ENV, "")
    if not value.isdigit():
        return None
    try:
        os.fstat(int(value))
    except OSError:
        # A command in between has closed what it did not know.
        return None
    return int(value)


@dataclass(frozen=True, slots=True)
class Recalled:
    """A checkpoint that all ranks have agreed on."""

    key: Key
    meta: dict[str, Any]
    own: bytes
    """What this rank stored for itself, or another one, if ``is_mine`` is false."""
    is_mine: bool
    """False in a gang of another size: no rank is the one that it was."""
    source: int | None
    """The rank that gives its tensors to those that lack them."""
    record: Record | None


class Memory:
    """One rank's checkpoints in memory; every rank has one and calls it at the same steps."""

    def __init__(
        self,
        arena: Arena,
        world: World,
        *,
        epoch: int,
        shared: bool,
        warn: Callable[[str], None] = lambda _text: None,
        pulse: Callable[[], None] = lambda: None,
        group: dist.ProcessGroup | None = None,
    ) -> None:
        """``shared``: every rank has the same tensors, so that a lost one can have them of any.

        ``group``: by which it gets them; the default one unless given.
        """
        self._group = group
        self._arena = arena
        self._world = world
        self._epoch = epoch
        self._shared = shared
        self._warn = warn
        self._pulse = pulse
        self._off = False
        self._pinned: dict[int, int] = {}
        self.stall_seconds = 0.0
        """That saves have taken of the training's time."""

    @property
    def off(self) -> bool:
        """Whether there is no room for it."""
        return self._off

    def reserve(self, tensors: Mapping[str, Tensor]) -> None:
        """Have the memory at hand before the first save, which would else be a slow one."""
        layout, body_size = _layout(tensors)
        size = len(_head(layout, Key(0, 0), self._world, {}, b"")) + (1 << 16) + body_size
        self._guarded(lambda: self._arena.reserve(size, 3 if self._arena.peer_every else 2))

    def save(
        self, step: int, tensors: Mapping[str, Tensor], *, meta: dict[str, Any], own: bytes
    ) -> None:
        """Copy the state of a step. Without room it warns once and does nothing from then on."""
        begin = time.monotonic()
        self._guarded(lambda: self._save(Key(self._epoch, step), tensors, meta, own))
        self.stall_seconds += time.monotonic() - begin

    def recall(self, at_least: int) -> Recalled | None:
        """The newest checkpoint in memory that all ranks can go on from, if it is of a step that is
        not below ``at_least``. Damaged ones are told, forgotten, and the one before is tried.
        """
        while True:
            mine = self._offers()
            offers = self._world.gather(list(mine.values()))
            keys = agree.candidates(offers, at_least=at_least)
            if not keys:
                return None
            key = keys[0]
            record = self._arena.find(key)
            self._pulse()
            trouble = self._arena.verify(record) if record is not None else None
            troubles = self._world.gather(trouble)
            if any(troubles):
                if trouble is not None:
                    self._warn(
                        f"the checkpoint of step {key.step} in memory is damaged ({trouble}); "
                        "trying the one before"
                    )
                    self._arena.drop(lambda r, key=key: r.key == key)  # type: ignore[misc]
                continue
            meta, own = self._read_head(record) if record is not None else (None, None)
            lacking = self._world.gather((record is None, record is None or not record.with_body))
            if any(head for head, _ in lacking):
                heads = self._world.gather((meta, own))
                meta, own = next(head for head in heads if head[0] is not None)
            assert meta is not None and own is not None
            return Recalled(
                key,
                meta,
                own,
                record is not None and mine[key].world_size == self._world.size,
                agree.holder(key, offers) if any(body for _, body in lacking) else None,
                record,
            )

    def load(self, found: Recalled, tensors: Mapping[str, Tensor]) -> None:
        """Put a checkpoint's tensors into these, in place. Raises DamagedError."""
        if found.record is not None and found.record.with_body:
            self._fill(found.record, tensors)
        if found.source is not None:
            for tensor in tensors.values():
                dist.broadcast(tensor, src=found.source, group=self._group)
                self._pulse()

    def take(self, found: Recalled) -> dict[str, Tensor]:
        """A checkpoint's tensors as new ones in host memory, whatever their shapes were."""
        index = self._index(found.record) if found.record is not None else None
        if found.source is not None:
            index = next(i for i in self._world.gather(index) if i is not None)
        assert index is not None, "a rank without a record has a source"
        tensors = {
            name: torch.empty(shape, dtype=getattr(torch, kind.removeprefix("torch.")))
            for name, kind, shape, _, _ in index["tensors"]
        }
        self.load(found, tensors)
        return tensors

    def settle(self, step: int, key: Key | None) -> None:
        """The training goes on from this step: what is of a past that it has left is forgotten."""
        self._arena.drop(
            lambda record: record.key.step > step or (record.key.step == step and record.key != key)
        )

    def _guarded(self, act: Callable[[], None]) -> None:
        if self._off:
            return
        try:
            act()
        except NoRoomError as error:
            self._off = True
            self._warn(
                f"no checkpoints in memory: {error.args[0]}; raise spec.resources.limits.memory, "
                "or set spec.checkpoint.memoryEverySteps to 0"
            )
        except OSError as error:
            self._off = True
            self._warn(f"no checkpoints in memory: {error}")

    def _save(
        self, key: Key, tensors: Mapping[str, Tensor], meta: dict[str, Any], own: bytes
    ) -> None:
        layout, body_size = _layout(tensors)
        head = _head(layout, key, self._world, meta, own)
        slot = self._arena.begin(len(head) + body_size)
        view = self._arena.view(slot)
        view[: len(head)] = head
        body = view[len(head) : len(head) + body_size]
        on_device = any(tensor.is_cuda for tensor in tensors.values())
        if on_device:
            self._pin(slot, view)
        total = _copy(tensors, layout, body, on_device)
        self._arena.seal(
            slot,
            key,
            head=(len(head), checksum_of(head)),
            body=(body_size, total),
            shared=self._shared,
        )

    def _pin(self, slot: int, view: memoryview) -> None:
        """Let the GPU write to the slot by itself. Written after CUDA's documentation; not run on
        a GPU yet."""
        target = torch.frombuffer(view, dtype=torch.uint8)
        if self._pinned.get(slot) != target.data_ptr():
            status = torch.cuda.cudart().cudaHostRegister(  # type: ignore[no-untyped-call]
                target.data_ptr(), target.numel(), 0
            )
            torch.cuda.check_error(int(status))
            self._pinned[slot] = target.data_ptr()

    def _offers(self) -> dict[Key, Offer]:
        found = {}
        for record in self._arena.records():
            try:
                index = self._index(record)
            except ValueError:
                continue
            found[record.key] = Offer(
                record.key, int(index["world_size"]), record.shared, record.with_body
            )
        return found

    def _index(self, record: Record) -> dict[str, Any]:
        length = int.from_bytes(self._arena.read(record, 0, _LENGTH_BYTES), "little")
        if not 0 < length <= record.head_size:
            raise ValueError("no index")
        index: dict[str, Any] = json.loads(self._arena.read(record, _LENGTH_BYTES, length))
        return index

    def _read_head(self, record: Record) -> tuple[dict[str, Any], bytes]:
        index = self._index(record)
        at, size = index["own"]
        return index["meta"], self._arena.read(record, at, size)

    def _fill(self, record: Record, tensors: Mapping[str, Tensor]) -> None:
        index = self._index(record)
        stored = {entry[0]: entry[1:] for entry in index["tensors"]}
        if stored.keys() != tensors.keys():
            name = sorted(stored.keys() ^ tensors.keys())[0]
            raise DamagedError(f"tensor {name} is in only one of the checkpoint and the model")
        body = torch.frombuffer(self._arena.view(record.slot), dtype=torch.uint8)
        for name, tensor in tensors.items():
            kind, shape, at, size = stored[name]
            if kind != str(tensor.dtype) or shape != list(tensor.shape):
                raise DamagedError(
                    f"tensor {name} is {kind}{shape} in memory and "
                    f"{tensor.dtype}{list(tensor.shape)} in the model"
                )
            at += record.head_size
            tensor.copy_(body[at : at + size].view(tensor.dtype).view(tensor.shape))


Entry = tuple[str, str, list[int], int, int]
"""Name, dtype, shape, offset in the body, size in bytes."""


def _layout(tensors: Mapping[str, Tensor]) -> tuple[list[Entry], int]:
    """Where each tensor lies in the body, and the body's size."""
    at, entries = 0, []
    for name, tensor in tensors.items():
        size = tensor.numel() * tensor.element_size()
        entries.append((name, str(tensor.dtype), list(tensor.shape), at, size))
        at += -(-size // _ALIGNMENT) * _ALIGNMENT
    return entries, at


def _head(layout: list[Entry], key: Key, world: World, meta: dict[str, Any], own: bytes) -> bytes:
    """Length, index, own bytes, padding."""
    index = {
        "step": key.step,
        "world_size": world.size,
        "rank": world.rank,
        "meta": meta,
        "tensors": layout,
        "own": [0, len(own)],
    }
    # The place of the own bytes is part of the index before them: make it as long as it can get.
    text = json.dumps(index).encode()
    at = -(-(len(text) + 32 + _LENGTH_BYTES) // _ALIGNMENT) * _ALIGNMENT
    index["own"] = [at, len(own)]
    text = json.dumps(index).encode()
    head = bytearray(-(-(at + len(own)) // _ALIGNMENT) * _ALIGNMENT)
    head[:_LENGTH_BYTES] = len(text).to_bytes(_LENGTH_BYTES, "little")
    head[_LENGTH_BYTES : _LENGTH_BYTES + len(text)] = text
    head[at : at + len(own)] = own
    return bytes(head)


def _copy(
    tensors: Mapping[str, Tensor], layout: list[Entry], body: memoryview, on_device: bool
) -> int:
    """Copy the tensors to their places; the body's checksum."""
    if not len(body):
        return checksum(())
    target = torch.frombuffer(body, dtype=torch.uint8)
    state, summed = xxh3_64(), 0
    for (_, _, _, at, size), tensor in zip(layout, tensors.values(), strict=True):
        source = tensor.detach().reshape(-1)
        if tensor.is_cuda:
            target[at : at + size].view(tensor.dtype).copy_(source, non_blocking=True)
            continue
        flat = source.view(torch.uint8)
        for start in range(0, size, CHUNK_BYTES):
            end = min(size, start + CHUNK_BYTES)
            target[at + start : at + end].copy_(flat[start:end])
            if not on_device and at + end - summed >= CHUNK_BYTES:
                state.update(body[summed : at + end])
                summed = at + end
    if on_device:
        torch.cuda.synchronize()
    state.update(body[summed:])
    return state.intdigest()
