"""Which replicas come and which go: the wanted number per revision, surge, drain. Pure."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from drakkar.v1alpha1.inferenceservice import Member

_LEAVES_FIRST = ("Pending", "Starting", "NotReady", "Ready")


@dataclass(frozen=True, slots=True)
class Changes:
    """Names of members; added ones with their revision."""

    add: tuple[tuple[str, str], ...] = ()
    drain: tuple[str, ...] = ()


def wanted(
    stable: str, update: str | None, desired: int, canary_weight: int | None
) -> dict[str, int]:
    """Replicas per revision: all of the update's, or a canary's part beside the stable ones."""
    if update is None or update == stable:
        return {stable: desired}
    if canary_weight is None:
        return {update: desired}
    part = max(1, math.ceil(desired * canary_weight / 100)) if desired else 0
    return {stable: desired, update: part}


def changes(members: Sequence[Member], wanted: Mapping[str, int], surge: int) -> Changes:
    """The next step from these members to the wanted numbers.

    A revision that is not wanted any more serves until as many replicas of the others are ready: ready
    ones of it go only beyond the wanted number. There are at most ``surge`` more than that at a time,
    besides those that drain.
    """
    active = [member for member in members if member.state != "Draining"]
    total = sum(wanted.values())
    drain: list[Member] = []
    for revision, count in wanted.items():
        own = [member for member in active if member.revision == revision]
        drain += _leaving_first(own)[: max(0, len(own) - count)]
    outgoing = _leaving_first([m for m in active if m.revision not in wanted])
    staying = [m for m in active if m not in drain]
    spare = sum(m.state == "Ready" for m in staying) - total
    for member in outgoing:
        if member.state != "Ready":
            drain.append(member)
        elif spare > 0:
            drain.append(member)
            spare -= 1
    left = [member for member in active if member not in drain]
    room = total + surge - len(left)
    names, add = _free_names(members), []
    for revision, count in wanted.items():
        missing = count - sum(member.revision == revision for member in left)
        for _ in range(max(0, min(missing, room))):
            add.append((next(names), revision))
            room -= 1
    return Changes(tuple(add), tuple(member.name for member in drain))


def _leaving_first(members: Sequence[Member]) -> list[Member]:
    """Those that serve least first, of equals the newest."""
    return sorted(members, key=lambda m: (_LEAVES_FIRST.index(m.state), -int(m.name)))


def _free_names(members: Sequence[Member]) -> Iterator[str]:
    taken = {member.name for member in members}
    return (name for name in map(str, itertools.count()) if name not in taken)
