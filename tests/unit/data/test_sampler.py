import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from drakkar_workers.data.sampler import permute, slice_of_rank, windows_of_step

SIZES = st.integers(1, 3000)
SEEDS = st.integers(0, 2**31 - 1)


@settings(deadline=None)
@given(size=SIZES, key=st.integers(0, 2**64 - 1))
def test_permute_is_a_permutation(size, key):
    assert sorted(permute(np.arange(size), size, key)) == list(range(size))


def test_permute_looks_random():
    """Neighbours end up a third of the range apart on average, and keys give different orders."""
    size = 10_000
    image = permute(np.arange(size), size, 1)
    assert 0.3 < np.abs(np.diff(image)).mean() / size < 0.37
    assert (image == permute(np.arange(size), size, 2)).mean() < 0.01


def test_permute_needs_no_table():
    image = permute(np.array([0, 1, 10**12 - 1]), 10**12, 3)
    assert ((image >= 0) & (image < 10**12)).all() and len(set(image.tolist())) == 3


@settings(deadline=None)
@given(seed=SEEDS, batch=st.integers(1, 64), sequence=st.integers(8, 40), extra=st.integers(1, 900))
def test_every_pass_sees_every_window_once(seed, batch, sequence, extra):
    tokens = 2 * sequence + extra
    count = (tokens - 1 - sequence) // sequence
    steps = -(-2 * count // batch)
    starts = np.concatenate(
        [
            windows_of_step(step=s, batch=batch, tokens=tokens, sequence=sequence, seed=seed)
            for s in range(steps)
        ]
    )
    assert starts.min() >= 0 and starts.max() + sequence + 1 <= tokens
    for one_pass in (starts[:count], starts[count : 2 * count]):
        assert len(set(one_pass.tolist())) == count
        assert len({int(start) % sequence for start in one_pass}) == 1, "one shift per pass"


def test_passes_differ_and_seeds_differ():
    def order(seed, step):
        return windows_of_step(step=step, batch=100, tokens=100 * 8 + 9, sequence=8, seed=seed)

    assert (order(0, 0) == order(0, 0)).all()
    assert (order(0, 0) != order(0, 1)).any()
    assert (order(0, 0) != order(1, 0)).any()


@settings(deadline=None)
@given(
    world=st.sampled_from([1, 2, 3, 4]), micros=st.sampled_from([1, 2, 5]), each=st.integers(1, 4)
)
def test_ranks_and_micro_batches_share_the_batch_out(world, micros, each):
    starts = np.arange(world * micros * each)
    parts = [
        slice_of_rank(starts, rank=rank, world=world, micro=micro, micros=micros)
        for rank in range(world)
        for micro in range(micros)
    ]
    assert all(len(part) == each for part in parts)
    assert sorted(np.concatenate(parts)) == starts.tolist()
