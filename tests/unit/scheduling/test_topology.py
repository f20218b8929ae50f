"""Domains, their order and their names."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drakkar.constants import DEFAULT_LEVELS
from drakkar_operator.model import NodeView
from drakkar_operator.scheduling.topology import Tree, natural, with_host
from support.scheduling import LEVELS, domain, node

PARTS = ["z/a/1", "z/a/2", "z/b/1", "y/a/1", "z/a/", "z//1", "//2", "", "y//"]


@given(st.lists(st.sampled_from(PARTS), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_two_nodes_share_a_domain_exactly_when_their_paths_agree(
    parts: list[str], chance: random.Random
) -> None:
    nodes = [node(f"n{at}", part) for at, part in enumerate(parts)]
    shuffled = nodes[:]
    chance.shuffle(shuffled)
    tree = Tree.build(shuffled, DEFAULT_LEVELS)
    for depth, level in enumerate(LEVELS):
        for one in nodes:
            for other in nodes:
                same = (
                    tree.ids[depth][tree.index[one.name]] == tree.ids[depth][tree.index[other.name]]
                )
                assert same == (domain(nodes, one.name, level) == domain(nodes, other.name, level))


@given(st.lists(st.sampled_from(PARTS), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_domains_are_contiguous_nested_and_independent_of_order(
    parts: list[str], chance: random.Random
) -> None:
    nodes = [node(f"n{at}", part) for at, part in enumerate(parts)]
    tree = Tree.build(nodes, DEFAULT_LEVELS)
    chance.shuffle(nodes)
    again = Tree.build(nodes, DEFAULT_LEVELS)
    assert tree.names == again.names
    for depth in range(tree.leaf + 1):
        assert (tree.ids[depth] == again.ids[depth]).all()
        assert (np.diff(tree.ids[depth]) >= 0).all()
        ones = np.ones(len(nodes), dtype=np.int64)
        sizes = tree.roll_up(ones, tree.leaf, depth)
        assert sizes.sum() == len(nodes)
        for each in range(tree.count(depth)):
            inside = tree.nodes_of(depth, each)
            assert inside.stop - inside.start == sizes[each]
            assert set(tree.ids[depth][inside].tolist()) == {each}
            if depth < tree.leaf:
                span = tree.inside(depth, each, depth + 1)
                below = tree.children(depth, np.array([each]))
                assert below.tolist() == list(range(span.start, span.stop))


def test_names_of_domains() -> None:
    tree = Tree.build([node("n1", "a/b/c"), node("n2", "a//c"), node("n3", "a/b/")], DEFAULT_LEVELS)

    def name(level: str, of: str) -> str:
        depth = tree.depth(level)
        return tree.domain_name(depth, int(tree.ids[depth][tree.index[of]]))

    assert name("cluster", "n1") == "cluster"
    assert name("rack", "n1") == "a/b/c"
    assert name("host", "n1") == "a/b/c/n1"
    assert name("block", "n2") == "a/no-block/n2"
    assert name("rack", "n2") == "a/no-block/c"
    assert name("rack", "n3") == "a/b/no-rack/n3"


def test_levels_nobody_labels_are_left_out_of_names() -> None:
    tree = Tree.build([node("n1", "//c"), node("n2", "//c"), node("n3", "//d")], DEFAULT_LEVELS)
    assert tree.unlabelled == {"zone", "block"}
    assert [tree.count(depth) for depth in range(tree.leaf + 1)] == [1, 2, 2, 2, 3]
    assert tree.domain_name(3, 0) == "c"


def test_an_unknown_level_lists_the_known_ones() -> None:
    tree = Tree.build([node("n")], DEFAULT_LEVELS)
    with pytest.raises(ValueError, match="'rak' is unknown; known: zone, block, rack, host"):
        tree.depth("rak")


@pytest.mark.parametrize(
    ("levels", "names"),
    [
        ((), ["host"]),
        ((("rack", "r"),), ["rack", "host"]),
        ((("rack", "r"), ("machine", "kubernetes.io/hostname")), ["rack", "machine"]),
        ((("host", "chassis"),), ["host", "node"]),
    ],
)
def test_the_last_level_is_the_node(levels: tuple[tuple[str, str], ...], names: list[str]) -> None:
    assert [name for name, _ in with_host(levels)] == names


def test_the_host_is_the_node_whatever_its_hostname_label_says() -> None:
    nodes = [NodeView(name, {"kubernetes.io/hostname": "same"}, {}) for name in ("n1", "n2")]
    assert Tree.build(nodes, DEFAULT_LEVELS).count(4) == 2


def test_natural_order() -> None:
    names = ["rack-10", "rack-9", "rack-2a", "rack-02", "a"]
    assert sorted(names, key=natural) == ["a", "rack-02", "rack-2a", "rack-9", "rack-10"]


def test_common_depth() -> None:
    tree = Tree.build(
        [node("n1", "z/a/1"), node("n2", "z/a/1"), node("n3", "z/b/1"), node("n4", "y/a/1")],
        DEFAULT_LEVELS,
    )

    def depth(*names: str) -> int:
        return tree.common_depth(np.array([tree.index[name] for name in names]))

    assert [depth("n1"), depth("n1", "n2"), depth("n1", "n3"), depth("n1", "n4")] == [4, 3, 1, 0]


def test_no_nodes() -> None:
    tree = Tree.build([], DEFAULT_LEVELS)
    assert tree.names == ()
    assert tree.count(0) == 0
