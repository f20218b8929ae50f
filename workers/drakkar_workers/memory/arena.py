"""The checkpoints of one rank in memory, in a file without a name that outlives the rank's process.

The agent creates the file (memfd_create(2)) and hands its descriptor down, so nothing is left when
the agent ends and no size limit of /dev/shm applies; its pages count as the container's memory.

    0      header: capacity of a slot, and which steps also go to a peer
    64     one record per slot: what it holds, sizes, checksums
    4096   slot 0 | slot 1 | ...          grown when first needed

A slot holds a *head* (an index and the rank's own bytes) and a *body* (tensors). Its record is
cleared before the first byte of a slot is written and set after the last: whoever dies in between
leaves an empty slot beside the older ones, never half a checkpoint. One process writes at a time.
"""

import mmap
import os
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from xxhash import xxh3_64, xxh3_64_intdigest

SLOTS = 4
"""The newest, two that go to a peer (the one it has, the one under way), and the one written."""
PAGE = 4096
CHUNK_BYTES = 1 << 20
"""Copied and summed at a time, so that the sum is taken from the processor's cache."""
_GRAIN = 2 << 20
_HEADER = struct.Struct("<QQ")
_RECORD = struct.Struct("<IIQQQQQQQ")
_RECORDS_AT = 64
_EMPTY, _WHOLE = 0, 1
_SHARED, _WITH_BODY = 1, 2


class Key(NamedTuple):
    """Names a checkpoint: a later epoch's is newer, whatever its step."""

    epoch: int
    step: int


@dataclass(frozen=True, slots=True)
class Record:
    """A whole checkpoint in a slot; sizes in bytes."""

    slot: int
    key: Key
    head_size: int
    body_size: int
    head_sum: int
    body_sum: int
    shared: bool
    """Every rank of the gang has the same body."""
    with_body: bool
    """False for a peer's copy of a shared one: the body is everywhere."""
    sequence: int
    """Counts what was written to the file; tells whether a slot was written anew."""

    @property
    def size(self) -> int:
        """Bytes that are there."""
        return self.head_size + (self.body_size if self.with_body else 0)


class NoRoomError(OSError):
    """The memory limit leaves no room for another slot; the text has the numbers."""


class Arena:
    """One rank's file."""

    def __init__(self, descriptor: int, room: Callable[[], int | None] = lambda: None) -> None:
        """``room``: bytes that this container may still take; None if it has no limit."""
        self.descriptor = descriptor
        self._room = room
        self._maps: dict[int, tuple[int, mmap.mmap]] = {}
        if os.fstat(descriptor).st_size < PAGE:
            os.ftruncate(descriptor, PAGE)

    @classmethod
    def create(cls, name: str, room: Callable[[], int | None] = lambda: None) -> "Arena":
        """A file of its own; ``name`` shows in /proc/PID/fd. Raises OSError."""
        return cls(os.memfd_create(name, os.MFD_CLOEXEC), room)

    def close(self) -> None:
        """Let go of it; its memory is freed when the last process has."""
        self._forget_maps()
        os.close(self.descriptor)

    @property
    def peer_every(self) -> int:
        """Steps that are multiples of this go to a peer, too; 0 for none."""
        return self._header()[1]

    @peer_every.setter
    def peer_every(self, steps: int) -> None:
        os.pwrite(self.descriptor, struct.pack("<Q", steps), 8)

    @property
    def bytes_used(self) -> int:
        """Memory that it takes."""
        return os.fstat(self.descriptor).st_blocks * 512

    def records(self) -> list[Record]:
        """Whole checkpoints, newest first."""
        table = os.pread(self.descriptor, SLOTS * _RECORD.size, _RECORDS_AT)
        found = []
        for slot in range(SLOTS):
            state, flags, epoch, step, *sizes, sequence = _RECORD.unpack_from(
                table, slot * _RECORD.size
            )
            if state == _WHOLE:
                head, body, head_sum, body_sum = sizes
                shared, with_body = bool(flags & _SHARED), bool(flags & _WITH_BODY)
                found.append(
                    Record(
                        slot, Key(epoch, step), head, body, head_sum, body_sum, shared, with_body,
                        sequence,
                    )
                )  # fmt: skip
        return sorted(found, key=lambda record: record.key, reverse=True)

    def find(self, key: Key) -> Record | None:
        """The checkpoint of this key."""
        return next((record for record in self.records() if record.key == key), None)

    def begin(self, size: int) -> int:
        """Clear a slot and make room for so many bytes in it; its number. Raises NoRoomError."""
        capacity, peer_every = self._header()
        if size > capacity:
            # Slots lie at other places from now on: what they held is gone.
            for slot in range(SLOTS):
                self._clear(slot)
            self._forget_maps()
            os.ftruncate(self.descriptor, PAGE)
            capacity = -(-size // _GRAIN) * _GRAIN
            os.pwrite(self.descriptor, struct.pack("<Q", capacity), 0)
        grown = (os.fstat(self.descriptor).st_size - PAGE) // capacity
        slot = choose(self.records(), grown, peer_every)
        self._clear(slot)
        if slot >= grown:
            self._grow(slot, capacity)
        return slot

    def reserve(self, size: int, count: int) -> None:
        """Have the memory of ``count`` slots at hand before it is needed. Raises NoRoomError."""
        if size > self._header()[0]:
            self.begin(size)
        capacity = self._header()[0]
        for slot in range(count):
            if slot >= (os.fstat(self.descriptor).st_size - PAGE) // capacity:
                self._grow(slot, capacity)
            self.view(slot)

    def view(self, slot: int) -> memoryview:
        """A slot as memory to write to; only for the file's writer."""
        capacity = self._header()[0]
        known = self._maps.get(slot)
        if known is None or known[0] != capacity:
            flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
            area = mmap.mmap(self.descriptor, capacity, flags, offset=PAGE + slot * capacity)
            self._maps[slot] = (capacity, area)
        return memoryview(self._maps[slot][1])

    def write(self, slot: int, data: bytes, at: int) -> None:
        """Put bytes into a slot without mapping it."""
        os.pwrite(self.descriptor, data, PAGE + slot * self._header()[0] + at)

    def read(self, record: Record, at: int, size: int) -> bytes:
        """Bytes of a slot; fewer than asked for if the file has shrunk since."""
        return os.pread(self.descriptor, size, PAGE + record.slot * self._header()[0] + at)

    def seal(
        self,
        slot: int,
        key: Key,
        *,
        head: tuple[int, int],
        body: tuple[int, int],
        shared: bool,
        with_body: bool = True,
    ) -> None:
        """Declare a slot whole; ``head`` and ``body`` are (size, checksum) each."""
        flags = _SHARED * shared | _WITH_BODY * with_body
        sequence = 1 + max((record.sequence for record in self.records()), default=0)
        packed = _RECORD.pack(
            _EMPTY, flags, key.epoch, key.step, head[0], body[0], head[1], body[1], sequence
        )
        os.pwrite(self.descriptor, packed, self._record_at(slot))
        os.pwrite(self.descriptor, struct.pack("<I", _WHOLE), self._record_at(slot))

    def drop(self, doomed: Callable[[Record], bool]) -> None:
        """Forget the checkpoints for which this holds."""
        for record in self.records():
            if doomed(record):
                self._clear(record.slot)

    def verify(self, record: Record) -> str | None:
        """What is wrong with a checkpoint's bytes, or None."""
        parts = [("head", 0, record.head_size, record.head_sum)]
        if record.with_body:
            parts.append(("body", record.head_size, record.body_size, record.body_sum))
        for name, at, size, expected in parts:
            found = checksum(self._blocks(record, at, size))
            if found != expected:
                return f"its {name} has checksum {found:016x}, expected {expected:016x}"
        return None

    def holds(self, record: Record) -> bool:
        """Whether the slot has not been touched since this record was read."""
        return record in self.records()

    def _blocks(self, record: Record, at: int, size: int) -> Iterable[bytes]:
        end = at + size
        while at < end:
            block = self.read(record, at, min(CHUNK_BYTES, end - at))
            if not block:
                return
            yield block
            at += len(block)

    def _header(self) -> tuple[int, int]:
        capacity, peer_every = _HEADER.unpack(os.pread(self.descriptor, _HEADER.size, 0))
        return capacity, peer_every

    def _record_at(self, slot: int) -> int:
        return _RECORDS_AT + slot * _RECORD.size

    def _clear(self, slot: int) -> None:
        os.pwrite(self.descriptor, struct.pack("<I", _EMPTY), self._record_at(slot))

    def _grow(self, slot: int, capacity: int) -> None:
        room = self._room()
        if room is not None and room < capacity:
            raise NoRoomError(
                f"another checkpoint in memory takes {mebibytes(capacity)}, and the container's "
                f"memory limit leaves {mebibytes(max(0, room))}"
            )
        os.ftruncate(self.descriptor, PAGE + (slot + 1) * capacity)
        # The pages come now, not in the middle of the first copy.
        os.posix_fallocate(self.descriptor, PAGE + slot * capacity, capacity)

    def _forget_maps(self) -> None:
        # Closed when the last view of them is gone: a tensor may still look at one.
        self._maps.clear()


def choose(records: Sequence[Record], grown: int, peer_every: int) -> int:
    """The slot to write next: an empty one, else the oldest that nobody needs, else one more.

    Needed are the newest checkpoint, and of those that go to a peer the two newest: one is there
    already, the other may be under way.
    """
    by_age = sorted(records, key=lambda record: record.key, reverse=True)
    anchors = [r for r in by_age if peer_every and r.key.step % peer_every == 0]
    needed = {record.slot for record in [*by_age[:1], *anchors[:2]]}
    taken = {record.slot for record in records}
    for slot in range(grown):
        if slot not in taken:
            return slot
    for record in reversed(by_age):
        if record.slot not in needed:
            return record.slot
    return grown


def checksum(blocks: Iterable[bytes | memoryview]) -> int:
    """XXH3 of 64 bits: as fast as memory, and any flipped bit shows."""
    state = xxh3_64()
    for block in blocks:
        state.update(block)
    return state.intdigest()


def checksum_of(data: bytes | memoryview) -> int:
    """``checksum`` of one block."""
    return xxh3_64_intdigest(data)


def mebibytes(size: int) -> str:
    """12345678 as 12 MiB."""
    return f"{-(-size // (1 << 20))} MiB"
