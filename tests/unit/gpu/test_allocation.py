"""Preferred sets are the best ones: compared with all sets, one by one."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drakkar_gpu import allocation
from drakkar_gpu.allocation import AllocationError, preferred
from drakkar_gpu.links import LinkMatrix

Value = tuple[int, int, int]


def matrix(size: int, links: dict[tuple[int, int], int]) -> LinkMatrix:
    scores = np.zeros((size, size), dtype=np.int64)
    for (i, j), value in links.items():
        scores[i, j] = scores[j, i] = value
    return LinkMatrix(tuple(f"d{i}" for i in range(size)), scores)


def grouped(size: int, *, group: int) -> LinkMatrix:
    """Good links within groups of so many neighbours, poor ones between them."""
    pairs = combinations(range(size), 2)
    return matrix(size, {(i, j): 9 if i // group == j // group else 1 for i, j in pairs})


def value(links: LinkMatrix, chosen: tuple[str, ...], available: set[str]) -> Value:
    """What a set is worth, computed link by link."""

    def between(names: set[str]) -> list[int]:
        index = sorted(links.ids.index(name) for name in names)
        return [int(links.scores[i, j]) for i, j in combinations(index, 2)]

    inside, outside = between(set(chosen)), between(available - set(chosen))
    return min(inside, default=0), sum(inside), sum(outside)


def brute_force(
    links: LinkMatrix, available: set[str], required: set[str], size: int
) -> tuple[str, ...]:
    ordered = [name for name in links.ids if name in available]
    sets = [c for c in combinations(ordered, size) if required <= set(c)]
    return max(sets, key=lambda c: value(links, c, available))


@st.composite
def requests(draw: st.DrawFn) -> tuple[LinkMatrix, set[str], set[str], int]:
    size = draw(st.integers(1, 8))
    pairs = list(combinations(range(size), 2))
    scores = draw(st.lists(st.integers(0, 4), min_size=len(pairs), max_size=len(pairs)))
    links = matrix(size, dict(zip(pairs, scores, strict=True)))
    available = draw(st.sets(st.sampled_from(links.ids), min_size=1))
    required = draw(st.sets(st.sampled_from(sorted(available))))
    return links, available, required, draw(st.integers(max(len(required), 1), len(available)))


@given(requests())
def test_as_good_as_the_best_of_all_sets(
    request: tuple[LinkMatrix, set[str], set[str], int],
) -> None:
    links, available, required, size = request
    assert preferred(links, available, required, size) == brute_force(
        links, available, required, size
    )


@settings(max_examples=5)
@given(st.randoms(use_true_random=False), st.integers(2, 15))
def test_as_good_as_the_best_of_sixteen_devices(random: object, size: int) -> None:
    pairs = list(combinations(range(16), 2))
    links = matrix(16, {pair: random.randint(0, 3) for pair in pairs})  # type: ignore[attr-defined]
    names = set(links.ids)
    chosen = preferred(links, names, (), size)
    # Nothing beats it that differs from it in one or two devices, or comes at random.
    for out in combinations(chosen, 2):
        for new in combinations(sorted(names - set(chosen)), 2):
            other = tuple(sorted((set(chosen) - set(out)) | set(new), key=links.ids.index))
            assert value(links, other, names) <= value(links, chosen, names)


@pytest.mark.parametrize(
    ("size", "group", "taken", "wanted", "expected"),
    [
        pytest.param(8, 4, (), 2, (0, 1), id="first of equals"),
        pytest.param(8, 4, (0,), 3, (1, 2, 3), id="finishes the broken group"),
        pytest.param(8, 4, (0, 1), 2, (2, 3), id="the other group stays whole"),
        pytest.param(8, 4, (0, 1, 5), 3, (4, 6, 7), id="three that are near"),
        pytest.param(16, 8, (3,), 8, tuple(range(8, 16)), id="the whole node half"),
        pytest.param(8, 2, (0, 3), 2, (4, 5), id="a pair that is a pair"),
        pytest.param(8, 8, (), 8, tuple(range(8)), id="all of them"),
        pytest.param(8, 1, (0,), 1, (1,), id="one"),
    ],
)
def test_typical_nodes(
    size: int, group: int, taken: tuple[int, ...], wanted: int, expected: tuple[int, ...]
) -> None:
    links = grouped(size, group=group)
    available = {f"d{i}" for i in range(size) if i not in taken}
    assert preferred(links, available, (), wanted) == tuple(f"d{i}" for i in expected)


def test_required_devices_are_taken_though_they_are_far_apart() -> None:
    assert preferred(grouped(8, group=4), {f"d{i}" for i in range(8)}, {"d0", "d7"}, 3) == (
        "d0",
        "d1",
        "d7",
    )


def test_many_devices_are_chosen_group_by_group(monkeypatch: pytest.MonkeyPatch) -> None:
    links = grouped(64, group=8)
    available = {f"d{i}" for i in range(64)} - {"d0", "d9"}
    assert preferred(links, available, (), 8) == tuple(f"d{i}" for i in range(16, 24))
    assert preferred(links, available, ("d20",), 4) == ("d16", "d17", "d18", "d20")


@given(requests())
def test_the_way_for_many_devices_gives_valid_sets(
    request: tuple[LinkMatrix, set[str], set[str], int],
) -> None:
    links, available, required, size = request
    before, allocation.EXACT_LIMIT = allocation.EXACT_LIMIT, 0
    try:
        chosen = set(preferred(links, available, required, size))
    finally:
        allocation.EXACT_LIMIT = before
    assert required <= chosen <= available
    assert len(chosen) == size


@pytest.mark.parametrize(
    ("available", "required", "size", "message"),
    [
        ({"d0"}, (), 2, "2 devices asked for: 0 are required, 1 are available"),
        ({"d0", "d1"}, ("d0", "d1"), 1, "2 are required"),
        ({"d0"}, ("d1",), 1, "'d1' must be included but is not available"),
        ({"d0", "x"}, (), 1, "no device 'x' on this node"),
    ],
)
def test_what_cannot_be_met_is_refused(
    available: set[str], required: tuple[str, ...], size: int, message: str
) -> None:
    with pytest.raises(AllocationError, match=message):
        preferred(grouped(2, group=2), available, required, size)
