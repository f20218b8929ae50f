"""Fewest entries, then the least sum: against all subsets."""

import itertools
import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from drakkar_operator.scheduling import packing
from drakkar_operator.scheduling.packing import fewest


def best(room: list[int], need: int) -> tuple[int, int]:
    """(entries, sum) of the best choice, by trying all."""
    return min(
        (len(choice), sum(choice))
        for count in range(1, len(room) + 1)
        for choice in itertools.combinations(room, count)
        if sum(choice) >= need
    )


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=9), st.data())
def test_optimal(room: list[int], data: st.DataObject) -> None:
    need = data.draw(st.integers(1, sum(room)))
    chosen = fewest(np.array(room), need).tolist()
    assert len(set(chosen)) == len(chosen)
    assert (len(chosen), sum(room[at] for at in chosen)) == best(room, need)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 20), min_size=2, max_size=9), st.data())
def test_the_greedy_way_takes_as_few_and_never_more_than_the_largest(
    room: list[int], data: st.DataObject
) -> None:
    need = data.draw(st.integers(1, sum(room)))
    falling = sorted(room, reverse=True)
    count, _ = best(room, need)
    wanted = packing._greedy(falling, need, count)
    total = sum(value * times for value, times in wanted.items())
    assert sum(wanted.values()) == count
    assert need <= total <= sum(falling[:count])
    assert all(falling.count(value) >= times for value, times in wanted.items())


def test_earlier_entries_first_among_equals() -> None:
    assert fewest(np.array([4, 4, 4, 4]), 8).tolist() == [0, 1]
    assert fewest(np.array([2, 4, 3, 4]), 3).tolist() == [2]
    assert fewest(np.array([5, 4, 4]), 4).tolist() == [1]
    assert fewest(np.array([5, 4]), 5).tolist() == [0]


def test_large_problems_stay_feasible_and_quick() -> None:
    """Beyond the bound of the exact search: still the fewest, and enough."""
    chance = random.Random(5)
    room = np.array([chance.randint(1, 4000) for _ in range(5000)])
    need = int(np.sort(room)[-900:].sum()) - 1_234
    chosen = fewest(room, need)
    assert len(chosen) == 900
    assert need <= int(room[chosen].sum()) <= need + 50
