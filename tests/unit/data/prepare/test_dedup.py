import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from drakkar_workers.data.prepare.dedup import (
    Signer,
    first_of_equals,
    near_duplicates,
    rows_of_band,
)
from drakkar_workers.data.prepare.settings import DedupSettings

SETTINGS = DedupSettings()


def words(seed: int, count: int = 300) -> list[str]:
    chosen = random.Random(seed)
    return [f"w{chosen.randrange(5000)}" for _ in range(count)]


def signed(texts):
    signer = Signer(SETTINGS)
    return np.stack([signer.sign(text) for text in texts])


def test_a_text_with_a_few_other_words_is_found():
    one = words(1)
    other = [*one[:150], "changed", *one[151:]]
    texts = [" ".join(words(i)) for i in range(2, 40)] + [" ".join(one), " ".join(other)]
    assert near_duplicates(signed(texts), SETTINGS).nonzero()[0].tolist() == [39]


def test_half_a_text_is_another():
    one = words(1)
    texts = [" ".join(one), " ".join(one[:150] + words(2, 150))]
    assert not near_duplicates(signed(texts), SETTINGS).any()


def test_case_and_punctuation_do_not_count():
    assert near_duplicates(signed(["A man, a plan.", "a man A PLAN"]), SETTINGS).tolist() == [
        False,
        True,
    ]


def test_estimated_similarity_is_that_of_the_shingles():
    one, other = words(1), words(1)[:240] + words(3, 60)
    a, b = ({" ".join(w[i : i + 5]) for i in range(296)} for w in (one, other))
    estimate = (signed([" ".join(one)]) == signed([" ".join(other)])).mean()
    assert abs(estimate - len(a & b) / len(a | b)) < 0.12


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30))
@settings(deadline=None, max_examples=40)
def test_the_first_of_each_stays_whatever_the_order(order):
    texts = [" ".join(words(number, 60)) for number in order]
    firsts = [order.index(number) == at for at, number in enumerate(order)]
    assert (~near_duplicates(signed(texts), SETTINGS)).tolist() == firsts
    keys = np.array(order, np.dtype("<u8")).view(np.dtype((np.void, 8)))
    assert first_of_equals(keys).tolist() == firsts


def test_bands_compare_pairs_below_the_threshold_too():
    for permutations in (16, 64, 128, 256):
        for threshold in (0.5, 0.7, 0.8, 0.9):
            rows = rows_of_band(permutations, threshold)
            assert permutations % rows == 0
            # The chance that a pair at the threshold is compared (Mining of Massive Datasets, 3.4.2).
            assert 1 - (1 - threshold**rows) ** (permutations // rows) > 0.6
