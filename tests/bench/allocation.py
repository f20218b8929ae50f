"""Choosing devices of a node: CPU time of one answer, against looking at the sets one by one.

python tests/bench/allocation.py
"""

import time
from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np

from drakkar_gpu.allocation import preferred
from drakkar_gpu.links import LinkMatrix

CASES = ((8, 4), (8, 8), (16, 4), (16, 8), (64, 8), (128, 16))
BRUTE_FORCE = 16
"""One by one there are too many sets beyond."""


def node(size: int, group: int = 8) -> LinkMatrix:
    """Groups of devices on one fabric."""
    scores = np.zeros((size, size), dtype=np.int64)
    for i, j in combinations(range(size), 2):
        scores[i, j] = scores[j, i] = 4_000_900 if i // group == j // group else 500
    return LinkMatrix(tuple(f"d{i}" for i in range(size)), scores)


def brute_force(links: LinkMatrix, wanted: int) -> tuple[str, ...]:
    """The best of all sets, one by one in Python."""
    scores = links.scores.tolist()
    everything = set(range(len(links.ids)))

    def value(chosen: tuple[int, ...]) -> tuple[int, int, int]:
        inside = [scores[i][j] for i, j in combinations(chosen, 2)]
        rest = [scores[i][j] for i, j in combinations(sorted(everything - set(chosen)), 2)]
        return min(inside, default=0), sum(inside), sum(rest)

    best = max(combinations(range(len(links.ids)), wanted), key=value)
    return tuple(links.ids[i] for i in best)


def milliseconds(what: Callable[[], Any], times: int) -> float:
    """The best of several runs."""
    best = float("inf")
    for _ in range(times):
        start = time.process_time()
        what()
        best = min(best, time.process_time() - start)
    return best * 1e3


def main() -> None:
    """Print a line per case."""
    print(f"{'devices':>8} {'wanted':>7} {'ms':>9} {'one by one':>11} {'ratio':>7}")
    for size, wanted in CASES:
        links = node(size)
        names = set(links.ids)
        ours = milliseconds(lambda: preferred(links, names, (), wanted), 7)  # noqa: B023
        line = f"{size:>8} {wanted:>7} {ours:>9.2f}"
        if size <= BRUTE_FORCE:
            assert preferred(links, names, (), wanted) == brute_force(links, wanted)
            theirs = milliseconds(lambda: brute_force(links, wanted), 1)  # noqa: B023
            line += f" {theirs:>11.2f} {theirs / ours:>6.0f}x"
        print(line)


if __name__ == "__main__":
    main()
