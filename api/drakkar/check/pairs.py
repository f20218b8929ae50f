"""Which nodes measure their link together, round by round. Pure."""

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def rounds(members: Sequence[T], count: int) -> list[list[tuple[T, T]]]:
    """Up to ``count`` rounds of pairs; nobody is in two pairs of a round, or in one pair twice.

    The circle method: one stays, the others move on by one place each round. With an odd number one
    of them rests. With n members there are at most n - 1 rounds (n, if n is odd).
    """
    if len(members) < 2:
        return []
    places: list[T | None] = [*members, *([None] if len(members) % 2 else [])]
    made = []
    for _ in range(min(count, len(places) - 1)):
        half = len(places) // 2
        pairs = zip(places[:half], reversed(places[half:]), strict=True)
        made.append([(a, b) for a, b in pairs if a is not None and b is not None])
        places = [places[0], places[-1], *places[1:-1]]
    return made
