"""Guesses from what was said before."""

from hypothesis import given
from hypothesis import strategies as st

from drakkar_workers.serve.engine.speculate import Ngrams


def test_what_followed_before_is_guessed():
    assert Ngrams().propose([1, 2, 3, 4, 5, 9, 1, 2, 3], 2) == [4, 5]


def test_the_newest_occurrence_of_the_longest_match_counts():
    assert Ngrams().propose([1, 2, 7, 5, 1, 2, 8, 5, 1, 2], 1) == [8]
    assert Ngrams().propose([3, 1, 2, 7, 5, 1, 2, 8, 3, 1, 2], 1) == [7]


def test_nothing_recurs():
    assert Ngrams().propose([1, 2, 3, 4], 3) == []
    assert Ngrams().propose([1], 3) == []


@given(st.lists(st.integers(0, 2), max_size=60), st.integers(1, 5))
def test_growing_step_by_step_finds_what_one_look_finds(tokens, count):
    grown = Ngrams()
    for end in range(len(tokens) + 1):
        assert grown.propose(tokens[:end], count) == Ngrams().propose(tokens[:end], count)
