"""The memory that an agent keeps: checkpoints of its own ranks, and copies of other replicas' ranks."""

from collections.abc import Callable, Iterable

from drakkar_workers.agent.wire import Held
from drakkar_workers.memory.arena import Arena, Record
from drakkar_workers.memory.limits import room
from drakkar_workers.memory.parcel import Intake, Parcel

MEMORY_ENV = "DRAKKAR_MEMORY_FD"
COPIES_LIMIT = 128
"""Ranks of others: a partner has 64 at most, and partners change."""


class BusyError(RuntimeError):
    """A checkpoint of this rank is being taken in already."""


class Vault:
    """Ends with the agent: nothing of it is ever in a file system."""

    def __init__(self, ranks: Iterable[int], limit: Callable[[], int | None] = room) -> None:
        """Raises OSError."""
        self._room = limit
        self.own = {rank: Arena.create(f"drakkar-rank-{rank}", limit) for rank in ranks}
        self.copies: dict[int, Arena] = {}
        self._busy: set[int] = set()

    def close(self) -> None:
        """Free the memory, as far as no trainer still has it."""
        for arena in [*self.own.values(), *self.copies.values()]:
            arena.close()

    @property
    def descriptors(self) -> dict[int, int]:
        """Of each rank; for the processes below, under the numbers that they have here."""
        return {rank: arena.descriptor for rank, arena in self.own.items()}

    def environment(self, rank: int) -> dict[str, str]:
        """The variable by which a trainer finds its memory."""
        return {MEMORY_ENV: str(self.own[rank].descriptor)}

    @property
    def bytes_used(self) -> int:
        """Memory that all of it takes."""
        return sum(arena.bytes_used for arena in [*self.own.values(), *self.copies.values()])

    def list_own(self) -> list[Held]:
        """Checkpoints of the replica's own ranks."""
        return _list(self.own)

    def list_copies(self) -> list[Held]:
        """Checkpoints of other replicas' ranks."""
        return _list(self.copies)

    def copy_every(self, steps: int) -> None:
        """Which steps of the own ranks go to a peer; trainers keep these longer."""
        for arena in self.own.values():
            if arena.peer_every != steps:
                arena.peer_every = steps

    def take_copy(self, rank: int, parcel: Parcel) -> "Receiving":
        """Begin to take another replica's checkpoint. Raises BusyError, NoRoomError, ValueError."""
        if rank not in self.copies:
            if len(self.copies) >= COPIES_LIMIT:
                raise ValueError(f"copies of {COPIES_LIMIT} ranks are kept already")
            self.copies[rank] = Arena.create(f"drakkar-copy-{rank}", self._room)
        return self._receive(rank, self.copies[rank], parcel)

    def take_back(self, rank: int, parcel: Parcel) -> "Receiving":
        """Begin to take an own rank's checkpoint from its keeper. Raises as ``take_copy``."""
        return self._receive(rank, self.own[rank], parcel)

    def keep_copies(self, ranks: Iterable[int]) -> None:
        """Free the copies of all other ranks: they are kept elsewhere by now."""
        for rank in self.copies.keys() - set(ranks) - self._busy:
            self.copies.pop(rank).close()

    def _receive(self, rank: int, arena: Arena, parcel: Parcel) -> "Receiving":
        if rank in self._busy:
            raise BusyError(f"a checkpoint of rank {rank} is being taken in already")
        self._busy.add(rank)
        try:
            return Receiving(Intake(arena, parcel), lambda: self._busy.discard(rank))
        except BaseException:
            self._busy.discard(rank)
            raise


class Receiving:
    """One checkpoint that comes in; a context that ends it in any case."""

    def __init__(self, intake: Intake, end: Callable[[], None]) -> None:
        self.intake = intake
        self._end = end

    def __enter__(self) -> Intake:
        return self.intake

    def __exit__(self, *_: object) -> None:
        self._end()


def _list(arenas: dict[int, Arena]) -> list[Held]:
    return [
        _held(rank, record) for rank, arena in sorted(arenas.items()) for record in arena.records()
    ]


def _held(rank: int, record: Record) -> Held:
    return Held(
        rank=rank,
        epoch=record.key.epoch,
        step=record.key.step,
        shared=record.shared,
        with_body=record.with_body,
    )
