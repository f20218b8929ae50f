"""Who keeps whose memory, and who gets what from where."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drakkar_workers.agent.rescue import copy_every, partners, plan
from drakkar_workers.agent.wire import Held
from drakkar_workers.memory.arena import Key


@given(st.lists(st.sampled_from("abcdef"), min_size=2, max_size=40))
def test_partners_are_fair_and_elsewhere(nodes) -> None:
    found = partners(nodes)
    assert sorted(found) == list(range(len(nodes))), "each keeps one other's"
    assert all(keeper != replica for replica, keeper in enumerate(found))
    if max(nodes.count(node) for node in nodes) * 2 <= len(nodes):
        for replica, keeper in enumerate(found):
            assert nodes[keeper] != nodes[replica]


def test_a_gang_of_one_has_no_partner() -> None:
    assert partners(["a"]) == [None]


@pytest.mark.parametrize(
    ("every", "step", "copy", "expected"),
    [
        (1, None, None, 1),
        (1, 0.01, None, 64),
        (1, 1.0, 0.1, 1),
        (5, 1.0, 4.0, 10),
        (10, 1.0, 60.0, 160),
    ],
)
def test_copies_are_as_frequent_as_they_can_be(every, step, copy, expected) -> None:
    assert copy_every(every, step, copy) == expected


def held(rank: int, *steps: int, shared: bool = False, body: bool = True) -> list[Held]:
    return [Held(rank=rank, epoch=1, step=s, shared=shared, with_body=body) for s in steps]


def test_nothing_is_fetched_where_all_have_it() -> None:
    own = {0: held(0, 50, 40), 1: held(1, 50, 40)}
    assert plan(2, own, {0: held(1, 40), 1: held(0, 40)}) == {}


def test_a_lost_pods_ranks_come_from_their_keeper() -> None:
    own = {0: held(0, 50, 48, 40), 1: []}
    assert plan(2, own, {0: held(1, 40, 32)}) == {1: (0, Key(1, 40))}


def test_a_lost_part_of_a_shared_state_comes_from_its_keeper() -> None:
    own = {0: held(0, 50, 48, shared=True), 1: [], 2: held(2, 50, 48, shared=True)}
    copies = {2: held(1, 48, shared=True, body=False)}
    assert plan(3, own, copies) == {1: (2, Key(1, 48))}


def test_without_a_common_step_storage_is_left() -> None:
    assert plan(2, {0: held(0, 50)}, {0: held(1, 40)}) == {}
    assert plan(2, {0: held(0, 50)}, {}) == {}
    assert plan(2, {}, {}) == {}
