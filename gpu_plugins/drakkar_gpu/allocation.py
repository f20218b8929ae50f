"""Which devices to give to a container so that they reach each other best. Pure.

A set is better if its worst link is better, then if the sum of its links is larger, then if the
devices left behind are the better linked ones (they stay whole for the next container), then if it
comes first in the devices' order.
"""

from collections.abc import Collection, Iterator
from functools import lru_cache
from itertools import combinations, islice
from math import comb

import numpy as np
import numpy.typing as npt

from drakkar_gpu.links import LinkMatrix, Matrix

EXACT_LIMIT = 20_000
"""Every set is looked at where there are at most so many: 12,870 are the 8 of 16 devices."""
_PASSES = 8

Sets = npt.NDArray[np.int64]
Value = tuple[int, int, int]


class AllocationError(ValueError):
    """The request can't be met; the message says why."""


def preferred(
    matrix: LinkMatrix, available: Collection[str], required: Collection[str], size: int
) -> tuple[str, ...]:
    """The best ``size`` of the available devices, the required ones among them, in device order.

    Exact where there are at most EXACT_LIMIT sets to choose from, else the best of a greedy growth
    from each device, improved by swaps. Raises AllocationError.
    """
    there = [i for i, name in enumerate(matrix.ids) if name in available]
    must = [i for i in there if matrix.ids[i] in required]
    _check(matrix, available, required, size, len(there))
    # The matrix of the available devices alone; positions in it from here on.
    scores = matrix.scores[np.ix_(there, there)]
    fixed = tuple(there.index(i) for i in must)
    free = tuple(i for i in range(len(there)) if i not in fixed)
    more = size - len(fixed)
    if comb(len(free), more) <= EXACT_LIMIT:
        chosen = _exact(scores, fixed, free, more)
    else:
        chosen = _grown(scores, fixed, free, size)
    return tuple(matrix.ids[there[i]] for i in chosen)


def _check(
    matrix: LinkMatrix, available: Collection[str], required: Collection[str], size: int, there: int
) -> None:
    missing = sorted(set(required) - set(available))
    unknown = sorted(set(available) - set(matrix.ids))
    if unknown:
        raise AllocationError(f"no device {unknown[0]!r} on this node")
    if missing:
        raise AllocationError(f"device {missing[0]!r} must be included but is not available")
    if not len(set(required)) <= size <= there:
        raise AllocationError(
            f"{size} devices asked for: {len(set(required))} are required, {there} are available"
        )


def _exact(
    scores: Matrix, fixed: tuple[int, ...], free: tuple[int, ...], more: int
) -> tuple[int, ...]:
    added = np.array(free, dtype=np.int64)[_combinations(len(free), more)]
    base = np.broadcast_to(np.array(fixed, dtype=np.int64), (len(added), len(fixed)))
    sets = np.sort(np.concatenate([base, added], axis=1), axis=1)
    # Rows in the devices' order, so that the first of equals is the one that comes first.
    sets = sets[np.lexsort(sets.T[::-1])] if fixed else sets
    worst, total, rest = _values(scores, sets)
    # Keys of lexsort go from the least important to the most; it is stable.
    best = np.lexsort((-rest, -total, -worst))[0]
    return tuple(int(i) for i in sets[best])


def _values(scores: Matrix, sets: Sets) -> tuple[Matrix, Matrix, Matrix]:
    """Worst link, sum of links, and sum of the links left behind, of each set (one per row)."""
    inside = scores[sets[:, :, None], sets[:, None, :]]
    total = inside.sum(axis=(1, 2)) // 2
    apart = inside + np.eye(sets.shape[1], dtype=np.int64) * np.iinfo(np.int32).max
    worst = apart.min(axis=(1, 2), initial=np.iinfo(np.int64).max)
    # All links less those that touch the set; links within it were taken off twice.
    touching = scores.sum(axis=1)[sets].sum(axis=1)
    rest = scores.sum() // 2 - touching + total
    return worst, total, rest


@lru_cache(maxsize=64)
def _combinations(n: int, k: int) -> Sets:
    """All ``k`` of ``range(n)`` in lexicographic order, one per row."""
    flat = np.fromiter((i for c in combinations(range(n), k) for i in c), dtype=np.int64)
    return flat.reshape(comb(n, k), k)


def _grown(
    scores: Matrix, fixed: tuple[int, ...], free: tuple[int, ...], size: int
) -> tuple[int, ...]:
    seeds = [fixed] if fixed else [(i,) for i in free]
    grown = {tuple(sorted(_grow(scores, seed, free, size))) for seed in seeds}
    start = max(sorted(grown), key=lambda s: _value(scores, s))
    return _improved(scores, start, fixed, free)


def _grow(
    scores: Matrix, seed: tuple[int, ...], free: tuple[int, ...], size: int
) -> tuple[int, ...]:
    """Add the device that is linked best to those inside, until there are enough."""
    inside = list(seed)
    worst = scores[inside].min(axis=0)
    total = scores[inside].sum(axis=0)
    open_ = np.zeros(len(scores), dtype=bool)
    open_[list(free)] = True
    open_[inside] = False
    while len(inside) < size:
        candidates = np.flatnonzero(open_)
        order = np.lexsort((-total[candidates], -worst[candidates]))
        best = int(candidates[order[0]])
        inside.append(best)
        open_[best] = False
        worst = np.minimum(worst, scores[best])
        total = total + scores[best]
    return tuple(inside)


def _improved(
    scores: Matrix, chosen: tuple[int, ...], fixed: tuple[int, ...], free: tuple[int, ...]
) -> tuple[int, ...]:
    """Swap one device for another as long as that is better, a few times at most."""
    value = _value(scores, chosen)
    for _ in range(_PASSES):
        better = max(_swaps(chosen, fixed, free), key=lambda s: _value(scores, s), default=chosen)
        if _value(scores, better) <= value:
            break
        chosen, value = better, _value(scores, better)
    return chosen


def _swaps(
    chosen: tuple[int, ...], fixed: tuple[int, ...], free: tuple[int, ...]
) -> Iterator[tuple[int, ...]]:
    outside = [i for i in free if i not in chosen]
    pairs = ((out, new) for out in chosen if out not in fixed for new in outside)
    for out, new in islice(pairs, EXACT_LIMIT):
        yield tuple(sorted([*(i for i in chosen if i != out), new]))


def _value(scores: Matrix, chosen: tuple[int, ...]) -> Value:
    worst, total, rest = _values(scores, np.array([chosen], dtype=np.int64))
    return int(worst[0]), int(total[0]), int(rest[0])
