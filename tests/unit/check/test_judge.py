"""Which nodes a check blames, and for what."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drakkar.check.judge import COMPUTE, ERROR, LINK, Expected, Limits, judge
from drakkar.check.node import condition, taints
from drakkar.check.pairs import rounds
from drakkar.check.results import NodeResult, PairResult
from drakkar.constants import TAINT_CHECK

NOW, LATER = "2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z"


def node(name: str, *teraflops: float, kind: str = "cuda", **links: float) -> NodeResult:
    pairs = tuple(PairResult(peer=peer, gbps=gbps) for peer, gbps in links.items())
    return NodeResult(node=name, accelerator=kind, teraflops=teraflops or (700.0,), pairs=pairs)


def blamed(*results: NodeResult, **expected: Expected) -> dict[str, list[str]]:
    verdicts = judge(results, Limits(), expected)
    return {v.node: [f.reason for f in v.findings] for v in verdicts if not v.passed}


def test_a_fleet_of_equals_passes() -> None:
    fleet = [node(name, 700, 690, a=380, b=400) for name in "abcd"]
    assert blamed(*fleet) == {}


def test_one_slow_device_of_eight_is_found_and_named() -> None:
    fleet = [node("a", *[700.0] * 8), node("b", *[700.0] * 5, 400.0, 700.0, 700.0)]
    (_, verdict) = judge(fleet)
    (finding,) = verdict.findings
    assert finding.reason == COMPUTE
    assert finding.message == (
        "cuda 5 does 400 TFLOP/s, 57% of the fleet's median of 700 (at least 85% wanted)"
    )


def test_a_slow_link_is_the_nodes_whose_best_is_slow() -> None:
    fleet = [
        node("a", b=400, c=390, d=40),
        node("b", a=400, c=395, d=41),
        node("c", a=390, b=395, d=39),
        node("d", a=40, b=41, c=39),
    ]
    assert blamed(*fleet) == {"d": [LINK]}


def test_half_of_the_fleet_may_be_slow() -> None:
    fleet = [node("a", b=9, c=1, d=1), node("b", a=9, c=1, d=1), node("c", a=1), node("d", a=1)]
    assert blamed(*fleet) == {"c": [LINK], "d": [LINK]}


def test_of_two_nodes_none_is_blamed_for_their_link() -> None:
    assert blamed(node("a", b=1), node("b", a=1)) == {}


def test_kinds_are_compared_with_their_own() -> None:
    models = {name: Expected(model) for name, model in zip("abcd", "HHAA", strict=True)}
    fleet = [node("a", 700), node("b", 690), node("c", 200), node("d", 210)]
    assert blamed(*fleet, **models) == {}
    assert blamed(*fleet) == {"c": [COMPUTE], "d": [COMPUTE]}


def test_a_fleet_that_is_slow_as_a_whole_is_found_by_the_catalogue() -> None:
    models = {name: Expected("H100", 989.0) for name in "ab"}
    assert blamed(node("a", 300), node("b", 310), **models) == {"a": [COMPUTE], "b": [COMPUTE]}
    assert blamed(node("a", 600), node("b", 610), **models) == {}
    assert blamed(node("a", 0.01, kind="cpu"), **models) == {}, "it has no say on CPUs"


def test_a_network_that_is_not_used_is_found_by_the_catalogue_even_between_two_nodes() -> None:
    models = {name: Expected("H100", 989.0, 400.0) for name in "ab"}
    assert blamed(node("a", b=40), node("b", a=40), **models) == {"a": [LINK], "b": [LINK]}
    assert blamed(node("a", b=200), node("b", a=200), **models) == {}
    cpus = [node("a", kind="cpu", b=1), node("b", kind="cpu", a=1)]
    assert blamed(*cpus, **models) == {}
    (verdict, _) = judge([node("a", b=40), node("b", a=40)], Limits(), models)
    assert verdict.findings[0].message == (
        "the best of 1 links does 40 Gbit/s, 10% of the network of a usual server with H100, 400 "
        "(at least 25% wanted)"
    )


@pytest.mark.parametrize("figure", ["teraflops", "gbps"])
def test_a_finding_says_if_it_rests_on_an_unconfirmed_figure(figure: str) -> None:
    slow = [node("a", 10, b=1), node("b", 10, a=1)]
    expected = {name: Expected("H100", 989.0, 400.0, frozenset({figure})) for name in "ab"}
    (verdict, _) = judge(slow, Limits(), expected)
    said = [f.message.endswith("; the catalogue's figure is unconfirmed") for f in verdict.findings]
    assert said == [figure == "teraflops", figure == "gbps"]


def test_what_could_not_be_measured_is_no_pass() -> None:
    broken = NodeResult(node="b", accelerator="", error="its pod is gone")
    assert blamed(node("a"), broken) == {"b": [ERROR]}


@given(
    st.lists(
        st.tuples(st.floats(0.001, 2000), st.lists(st.floats(0, 4000), max_size=3)), min_size=1
    )
)
def test_the_better_half_of_a_fleet_always_passes(
    fleet: list[tuple[float, list[float]]],
) -> None:
    results = [
        node(str(i), flops, **{f"p{j}": gbps for j, gbps in enumerate(links)})
        for i, (flops, links) in enumerate(fleet)
    ]
    best = max(results, key=lambda r: r.teraflops)
    found = blamed(*results)
    assert COMPUTE not in found.get(best.node, [])


@pytest.mark.parametrize("members", range(2, 12))
def test_everybody_meets_everybody_once(members: int) -> None:
    made = rounds(range(members), members)
    met = [frozenset(pair) for one in made for pair in one]
    assert len(met) == len(set(met)) == members * (members - 1) // 2
    for one in made:
        busy = [rank for pair in one for rank in pair]
        assert len(busy) == len(set(busy)) == members // 2 * 2


def test_few_rounds_are_few() -> None:
    assert len(rounds(range(64), 3)) == 3
    assert rounds([0], 3) == []


def test_condition_and_taint_come_and_go() -> None:
    other = {"key": "dedicated", "effect": "NoSchedule"}
    bare = {"spec": {"taints": [other]}}
    (_, bad) = judge([node("a", 700), node("b", 100)])
    made = condition(bad, NOW)
    assert (made["status"], made["reason"]) == ("False", COMPUTE)
    assert "100 TFLOP/s, 14% of the fleet's median" in made["message"]
    wanted = taints(bare, bad)
    assert wanted == [other, {"key": TAINT_CHECK, "value": COMPUTE, "effect": "NoSchedule"}]
    assert taints({"spec": {"taints": wanted}}, bad) is None
    (good,) = judge([node("b", 700)])
    assert taints({"spec": {"taints": wanted}}, good) == [other]
    assert taints(bare, good) is None
    passed = condition(good, LATER, made)
    assert (passed["status"], passed["lastTransitionTime"]) == ("True", LATER)
    assert passed["message"] == "700 TFLOP/s on cuda"
    assert condition(good, "2027", passed)["lastTransitionTime"] == LATER
