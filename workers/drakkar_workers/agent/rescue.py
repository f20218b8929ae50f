"""Who keeps whose checkpoints in memory, and who gets what from where after a loss: pure."""

import math
from collections.abc import Mapping, Sequence

from drakkar_workers.agent.wire import Held
from drakkar_workers.memory.agree import Offer, candidates
from drakkar_workers.memory.arena import Key

COPY_SECONDS = 0.5
"""Copies go to a peer no more often than this."""
EVERY_LIMIT = 1 << 40


def partners(nodes: Sequence[str]) -> list[int | None]:
    """For each replica, the replica that keeps its copies; ``nodes`` are theirs, in order.

    On another node wherever no node holds more than half of the gang, each for one other: replicas
    in order of their nodes, moved on by the size of the largest node. None for a gang of one.
    """
    count = len(nodes)
    if count < 2:
        return [None] * count
    order = sorted(range(count), key=lambda replica: (nodes[replica], replica))
    shift = max(nodes.count(node) for node in set(nodes)) % count or 1
    found: list[int | None] = [None] * count
    for place, replica in enumerate(order):
        found[replica] = order[(place + shift) % count]
    return found


def copy_every(every: int, step_seconds: float | None, copy_seconds: float | None) -> int:
    """Steps between two copies to a peer: ``every`` times a power of two.

    So that a copy is there before the next begins; powers, so that replicas that hear of a change
    at different times still have steps in common.
    """
    period = max(COPY_SECONDS, 2 * (copy_seconds or 0.0))
    if step_seconds is None or step_seconds <= 0:
        return every
    doublings = max(0, math.ceil(math.log2(max(1.0, period / (every * step_seconds)))))
    return int(min(EVERY_LIMIT, every * 2.0**doublings))


def plan(
    world_size: int, own: Mapping[int, Sequence[Held]], copies: Mapping[int, Sequence[Held]]
) -> dict[int, tuple[int, Key]]:
    """Rank -> (replica that keeps its copy, key), for ranks whose pod lacks what the gang needs.

    ``own`` and ``copies`` are what each replica has in memory: of its own ranks, and for others.
    """
    have: dict[int, dict[Key, Held]] = {rank: {} for rank in range(world_size)}
    kept: dict[int, dict[Key, tuple[int, Held]]] = {rank: {} for rank in range(world_size)}
    for held in (item for items in own.values() for item in items):
        if held.rank in have:
            have[held.rank][Key(held.epoch, held.step)] = held
    for replica, items in copies.items():
        for held in items:
            if held.rank in kept:
                kept[held.rank].setdefault(Key(held.epoch, held.step), (replica, held))
    offers = [
        _offers(world_size, {**{k: h for k, (_, h) in kept[rank].items()}, **have[rank]})
        for rank in range(world_size)
    ]
    keys = candidates(offers, at_least=0)
    if not keys:
        return {}
    return {
        rank: (kept[rank][keys[0]][0], keys[0])
        for rank in range(world_size)
        if keys[0] not in have[rank] and keys[0] in kept[rank]
    }


def _offers(world_size: int, held: Mapping[Key, Held]) -> list[Offer]:
    # Agents keep no checkpoint across a change of the world's size.
    return [Offer(key, world_size, item.shared, item.with_body) for key, item in held.items()]
