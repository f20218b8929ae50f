"""The integer problem below placement: fill as few domains as possible, and leave little over."""

import itertools

import numpy as np

from drakkar_operator.scheduling.topology import IntArray

_MOST_STEPS = 4_000
_MOST_BITS = 4_096
"""Bounds of the exact search: about 2 ms. Larger problems are settled greedily."""


def fewest(room: IntArray, need: int) -> IntArray:
    """Positions of the fewest entries whose sum reaches ``need``, and of those the least sum.

    ``room`` is positive and its sum at least ``need``, which is at least 1. Among equal entries
    earlier positions are taken first. The least sum is exact (a subset-sum search over bit sets)
    up to a bound of work, beyond it greedy.
    """
    order = np.argsort(-room, kind="stable")
    falling = room[order]
    sums = np.cumsum(falling)
    count = int(np.searchsorted(sums, need)) + 1
    if count == 1:
        return (
            order[[int(np.searchsorted(-falling, -need, side="right")) - 1]]
            if (falling[0] == need)
            else _tightest(room, need)
        )
    if int(sums[count - 1]) == need:
        return order[:count]
    wanted = _exact(falling, need, count)
    if wanted is None:
        wanted = _greedy(falling.tolist(), need, count)
    taken: list[IntArray] = []
    for value, times in sorted(wanted.items(), reverse=True):
        first = int(np.searchsorted(-falling, -value))
        taken.append(order[first : first + times])
    return np.concatenate(taken)


def _tightest(room: IntArray, need: int) -> IntArray:
    fits = np.flatnonzero(room >= need)
    return fits[[int(np.argmin(room[fits]))]]


def _exact(falling: IntArray, need: int, count: int) -> dict[int, int] | None:
    """How many entries of each value; None if the search would take too long.

    Works on what each entry lacks of the largest: of all choices of ``count`` entries, the one
    that lacks most in total but no more than the slack has the least sum.
    """
    largest = int(falling[0])
    slack = largest * count - need
    values, numbers = np.unique(falling[falling >= largest - slack], return_counts=True)
    items: list[tuple[int, int]] = []  # (value, copies): 1, 2, 4, ... of each value
    for value, number in zip(values[::-1].tolist(), numbers[::-1].tolist(), strict=True):
        rest, copies = min(number, count), 1
        while rest > 0:
            copies = min(copies, rest)
            if (largest - value) * copies <= slack:
                items.append((value, copies))
            rest -= copies
            copies *= 2
    if slack > _MOST_BITS or len(items) * count > _MOST_STEPS:
        return None
    window = (1 << (slack + 1)) - 1
    # reach[n]: bit b is set if n entries can lack b in total.
    reach = [1] + [0] * count
    history: list[list[int]] = []
    for value, copies in items:
        history.append(reach)
        lacks = (largest - value) * copies
        reach = reach[:]
        for n in range(count - copies, -1, -1):
            if history[-1][n]:
                reach[n + copies] |= (history[-1][n] << lacks) & window
    lack, n = reach[count].bit_length() - 1, count
    wanted: dict[int, int] = {}
    for (value, copies), before in zip(reversed(items), reversed(history), strict=True):
        if not before[n] >> lack & 1:
            wanted[value] = wanted.get(value, 0) + copies
            lack -= (largest - value) * copies
            n -= copies
    return wanted


def _greedy(falling: list[int], need: int, count: int) -> dict[int, int]:
    """Take each time the least entry with which the largest of the rest still suffice."""
    rest = list(falling)
    largest = [0, *itertools.accumulate(falling[:count])]
    wanted: dict[int, int] = {}
    for left in range(count - 1, -1, -1):
        # Entries are taken from behind these, so they are still the largest.
        others = largest[left]
        low, high = left, len(rest) - 1
        while low < high:  # the last position that is large enough
            at = (low + high + 1) // 2
            if rest[at] + others >= need:
                low = at
            else:
                high = at - 1
        value = rest.pop(low)
        wanted[value] = wanted.get(value, 0) + 1
        need -= value
    return wanted
