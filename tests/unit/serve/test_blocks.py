"""The books of the paged cache."""

import pytest

from drakkar_workers.serve.engine.blocks import BlockManager
from drakkar_workers.serve.engine.request import Request
from drakkar_workers.serve.engine.sequence import Sequence


def sequence(tokens, **fields):
    return Sequence.of(Request(id="r", prompt=list(tokens), **fields))


def compute(blocks, one):
    """Hold and publish all tokens of a sequence."""
    blocks.admit(one, blocks.cached_prefix(one))
    assert blocks.grow(one, len(one.tokens))
    one.computed = len(one.tokens)
    blocks.publish(one)
    return one


def test_equal_prefixes_share_blocks():
    blocks = BlockManager(8, 4)
    first = compute(blocks, sequence(range(10)))
    second = compute(blocks, sequence([*range(8), 77, 78]))
    assert second.blocks[:2] == first.blocks[:2]
    assert second.blocks[2] != first.blocks[2]
    assert (blocks.free, second.cached, blocks.hits, blocks.queries) == (4, 8, 8, 20)
    blocks.check([first, second])


def test_one_token_is_always_computed():
    blocks = BlockManager(8, 4)
    compute(blocks, sequence(range(8)))
    assert len(blocks.cached_prefix(sequence(range(8)))) == 1
    assert len(blocks.cached_prefix(sequence(range(9)))) == 2


@pytest.mark.parametrize(
    "other", [{"adapter": "poet"}, {"salt": "tenant-b"}, {"embed": True}], ids=str
)
def test_what_must_not_be_shared(other):
    blocks = BlockManager(8, 4)
    compute(blocks, sequence(range(8)))
    assert blocks.cached_prefix(sequence(range(9), **other)) == []
    assert len(blocks.cached_prefix(sequence(range(9)))) == 2


def test_an_adapter_can_not_be_named_like_a_salt():
    blocks = BlockManager(8, 4)
    compute(blocks, sequence(range(8), adapter="a", salt="b/c"))
    assert blocks.cached_prefix(sequence(range(9), adapter="a/b", salt="c")) == []


def test_a_block_in_the_middle_is_only_found_behind_its_own_beginning():
    blocks = BlockManager(8, 4)
    compute(blocks, sequence([1, 2, 3, 4, 5, 6, 7, 8]))
    assert blocks.cached_prefix(sequence([9, 9, 9, 9, 5, 6, 7, 8, 9])) == []


def test_released_content_is_found_until_it_is_reused_ends_first():
    blocks = BlockManager(4, 4)
    one = compute(blocks, sequence(range(16)))
    held = list(one.blocks)
    blocks.release(one)
    assert blocks.free == 4
    assert blocks.cached_prefix(sequence(range(17))) == held
    other = compute(blocks, sequence([50, 51, 52, 53]))
    assert other.blocks == held[-1:]
    assert blocks.cached_prefix(sequence(range(17))) == held[:3]
    blocks.check([other])


def test_blocks_without_content_are_reused_before_cached_ones():
    blocks = BlockManager(4, 4)
    cached = compute(blocks, sequence(range(4)))
    partial = compute(blocks, sequence([9, 9]))
    empty = partial.blocks[0]
    blocks.release(cached)
    blocks.release(partial)
    taken = sequence([5] * 12)
    assert blocks.grow(taken, 12)
    assert taken.blocks[0] == empty
    assert len(blocks.cached_prefix(sequence(range(5)))) == 1


def test_growing_is_all_or_nothing():
    blocks = BlockManager(2, 4)
    one = sequence(range(12))
    assert not blocks.grow(one, 12)
    assert (one.blocks, blocks.free) == ([], 2)


def test_reset_forgets_content_but_not_holders():
    blocks = BlockManager(4, 4)
    one = compute(blocks, sequence(range(8)))
    blocks.reset()
    assert blocks.cached_prefix(sequence(range(9))) == []
    assert blocks.free == 2
    blocks.check([one])


def test_without_caching_nothing_is_found():
    blocks = BlockManager(8, 4, caching=False)
    compute(blocks, sequence(range(8)))
    assert blocks.cached_prefix(sequence(range(9))) == []


def test_the_check_sees_a_block_that_was_lost():
    blocks = BlockManager(4, 4)
    one = compute(blocks, sequence(range(8)))
    one.blocks.pop()
    with pytest.raises(AssertionError):
        blocks.check([one])
