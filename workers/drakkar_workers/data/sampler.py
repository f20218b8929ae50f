"""Which tokens a step sees: a pure function of the seed and the step, whatever the world size."""

import numpy as np
from numpy.typing import NDArray

_ROUNDS = 6
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def mix(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finalizer (Steele, Lea, Flood 2014): a hash of every element."""
    value = (value ^ (value >> np.uint64(30))) * _MIX_1
    value = (value ^ (value >> np.uint64(27))) * _MIX_2
    return value ^ (value >> np.uint64(31))


def permute(index: NDArray[np.int64], size: int, key: int) -> NDArray[np.int64]:
    """The image of every index in a random permutation of range(size) chosen by ``key``.

    A Feistel network over the next power of four with cycle walking (Black and Rogaway 2002,
    'Ciphers with arbitrary finite domains'): no table, so the size of the text costs no memory.
    """
    half = max(1, (max(size - 1, 1).bit_length() + 1) // 2)
    low = np.uint64((1 << half) - 1)
    shift = np.uint64(half)
    keys = mix(
        np.array([(key + (i + 1) * _GOLDEN) & _MASK for i in range(_ROUNDS)], dtype=np.uint64)
    )
    value = index.astype(np.uint64)
    outside = np.ones(value.shape, dtype=bool)
    while outside.any():
        walking = value[outside]
        left, right = walking >> shift, walking & low
        for round_key in keys:
            left, right = right, left ^ (mix(right ^ round_key) & low)
        value[outside] = (left << shift) | right
        outside = value >= np.uint64(size)
    return value.astype(np.int64)


def windows_of_step(
    *, step: int, batch: int, tokens: int, sequence: int, seed: int
) -> NDArray[np.int64]:
    """Where the sequences of a step begin, shape (batch,), each with ``sequence`` + 1 tokens.

    Every pass over the text sees each window once, in an order of its own and shifted by an offset
    of its own. ``step`` counts from 0; ``tokens`` is the length of the text and must exceed
    2 x ``sequence``.
    """
    count = (tokens - 1 - sequence) // sequence
    position = np.arange(step * batch, (step + 1) * batch, dtype=np.int64)
    pass_number, index = np.divmod(position, count)
    starts = np.empty(batch, dtype=np.int64)
    for number in np.unique(pass_number):
        here = pass_number == number
        key = int(mix(np.array([(seed * _GOLDEN + int(number)) & _MASK], dtype=np.uint64))[0])
        offset = key % sequence
        starts[here] = permute(index[here], count, key) * sequence + offset
    return starts


def rows_of_step(*, step: int, batch: int, rows: int, seed: int) -> NDArray[np.int64]:
    """Which of ``rows`` examples a step sees, shape (batch,): each once per pass, in another order
    in every pass. ``step`` counts from 0."""
    position = np.arange(step * batch, (step + 1) * batch, dtype=np.int64)
    pass_number, index = np.divmod(position, rows)
    found = np.empty(batch, dtype=np.int64)
    for number in np.unique(pass_number):
        here = pass_number == number
        key = int(mix(np.array([(seed * _GOLDEN + int(number)) & _MASK], dtype=np.uint64))[0])
        found[here] = permute(index[here], rows, key)
    return found


def slice_of_rank(
    starts: NDArray[np.int64], *, rank: int, world: int, micro: int, micros: int
) -> NDArray[np.int64]:
    """The part of a step's windows that a rank computes in a micro-batch: shape (batch / world /
    micros,). The parts of all ranks and micro-batches are disjoint and cover the batch."""
    part: NDArray[np.int64] = starts.reshape(micros, world, -1)[micro, rank]
    return part
