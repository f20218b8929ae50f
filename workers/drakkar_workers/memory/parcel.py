"""A checkpoint of one rank on its way from one agent's memory to another's."""

from collections.abc import Iterator

from pydantic import Field
from xxhash import xxh3_64

from drakkar.v1alpha1.meta import Model
from drakkar_workers.memory.arena import Arena, Key, Record

Size = Field(ge=0, lt=1 << 46)
Sum = Field(ge=0, lt=1 << 64)


class Parcel(Model):
    """What it holds; goes ahead of its bytes, which are the head and, if ``with_body``, the body."""

    epoch: int = Field(ge=0, lt=1 << 31)
    step: int = Field(ge=0, lt=1 << 53)
    head_size: int = Size
    body_size: int = Size
    head_sum: int = Sum
    body_sum: int = Sum
    shared: bool
    with_body: bool

    @classmethod
    def of(cls, record: Record) -> "Parcel":
        """A peer needs no body that every rank has."""
        return cls(
            epoch=record.key.epoch,
            step=record.key.step,
            head_size=record.head_size,
            body_size=record.body_size,
            head_sum=record.head_sum,
            body_sum=record.body_sum,
            shared=record.shared,
            with_body=record.with_body and not record.shared,
        )

    @property
    def key(self) -> Key:
        """Of the checkpoint."""
        return Key(self.epoch, self.step)

    @property
    def size(self) -> int:
        """Bytes that follow."""
        return self.head_size + (self.body_size if self.with_body else 0)


def content(arena: Arena, record: Record, parcel: Parcel, block: int) -> Iterator[bytes]:
    """The bytes that follow a parcel; ends early if the slot is gone."""
    at = 0
    while at < parcel.size:
        data = arena.read(record, at, min(block, parcel.size - at))
        if not data:
            return
        yield data
        at += len(data)


class Intake:
    """Takes a parcel's bytes into a slot; whole and as its checksums say, or not at all."""

    def __init__(self, arena: Arena, parcel: Parcel) -> None:
        """Raises NoRoomError."""
        self._arena = arena
        self._parcel = parcel
        self._slot = arena.begin(parcel.size)
        self._at = 0
        self._head, self._body = xxh3_64(), xxh3_64()

    def take(self, data: bytes) -> None:
        """The next bytes. Raises ValueError if there are too many."""
        if self._at + len(data) > self._parcel.size:
            raise ValueError(f"more than the {self._parcel.size} bytes that were announced")
        self._arena.write(self._slot, data, self._at)
        split = max(0, min(len(data), self._parcel.head_size - self._at))
        view = memoryview(data)
        self._head.update(view[:split])
        self._body.update(view[split:])
        self._at += len(data)

    def finish(self) -> None:
        """Raises ValueError if bytes are missing or are not those that were sent."""
        parcel = self._parcel
        if self._at != parcel.size:
            raise ValueError(f"{self._at} of {parcel.size} bytes have come")
        if self._head.intdigest() != parcel.head_sum:
            raise ValueError("the head's checksum does not hold")
        if parcel.with_body and self._body.intdigest() != parcel.body_sum:
            raise ValueError("the body's checksum does not hold")
        self._arena.seal(
            self._slot,
            parcel.key,
            head=(parcel.head_size, parcel.head_sum),
            body=(parcel.body_size, parcel.body_sum),
            shared=parcel.shared,
            with_body=parcel.with_body,
        )
