"""Which checkpoint in memory all ranks can go on from: pure, from what each of them offers."""

from collections.abc import Sequence
from dataclasses import dataclass

from drakkar_workers.memory.arena import Key

Offers = Sequence["Offer"]


@dataclass(frozen=True, slots=True)
class Offer:
    """One rank has this checkpoint in memory."""

    key: Key
    world_size: int
    """Of the gang that wrote it."""
    shared: bool
    with_body: bool


def candidates(offers: Sequence[Offers], *, at_least: int) -> list[Key]:
    """Checkpoints that the gang can go on from, newest first; none below step ``at_least``.

    ``offers``: of each rank. A shared one must be whole on one rank, and each rank needs its own
    part of it, unless another number of ranks wrote it: then no part is anybody's. Of any other,
    each rank needs all that it wrote itself.
    """
    keys = {offer.key for of_rank in offers for offer in of_rank}
    return [
        key for key in sorted(keys, reverse=True) if key.step >= at_least and _usable(key, offers)
    ]


def holder(key: Key, offers: Sequence[Offers]) -> int:
    """The first rank that has the body. Raises StopIteration if none has."""
    return next(
        rank
        for rank, of_rank in enumerate(offers)
        if any(offer.key == key and offer.with_body for offer in of_rank)
    )


def _usable(key: Key, offers: Sequence[Offers]) -> bool:
    found = [next((o for o in of_rank if o.key == key), None) for of_rank in offers]
    there = [offer for offer in found if offer is not None]
    if not any(offer.with_body for offer in there):
        return False
    same_world = all(offer.world_size == len(offers) for offer in there)
    whole = len(there) == len(offers)
    if all(offer.shared for offer in there):
        return whole or not same_world
    return whole and same_world and all(offer.with_body for offer in there)
