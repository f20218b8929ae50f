"""Merge patches: exact, minimal, empty for no change."""

import copy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from drakkar_operator.cluster.merge import merge_patch

leaves = st.one_of(st.integers(0, 3), st.text("ab", max_size=2), st.lists(st.integers(0, 2)))
trees = st.recursive(
    st.dictionaries(st.sampled_from("abc"), leaves),
    lambda inner: st.dictionaries(st.sampled_from("abc"), st.one_of(leaves, inner)),
    max_leaves=8,
)


def apply(patch: dict[str, Any], to: Any) -> dict[str, Any]:
    """RFC 7386, section 2."""
    result = copy.deepcopy(to) if isinstance(to, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        elif isinstance(value, dict):
            result[name] = apply(value, result.get(name))
        else:
            result[name] = value
    return result


@given(trees, trees)
def test_the_patch_leads_from_one_to_the_other(old: dict[str, Any], new: dict[str, Any]):
    assert apply(merge_patch(old, new), old) == new


@given(trees)
def test_nothing_to_do_is_an_empty_patch(tree: dict[str, Any]):
    assert merge_patch(tree, copy.deepcopy(tree)) == {}


def test_only_what_differs_is_sent():
    old = {"a": 1, "deep": {"x": 1, "y": 2}, "gone": 1}
    new = {"a": 1, "deep": {"x": 1, "y": 3}}
    assert merge_patch(old, new) == {"gone": None, "deep": {"y": 3}}
