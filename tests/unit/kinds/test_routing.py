"""What operator and routers say to each other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from drakkar.routing import (
    LATENCY_BOUNDS,
    Endpoint,
    Histogram,
    Revision,
    RevisionStats,
    RouterStats,
    RouteTable,
)

COUNTS = st.lists(
    st.integers(0, 1000), min_size=len(LATENCY_BOUNDS) + 1, max_size=len(LATENCY_BOUNDS) + 1
)


def endpoint(**changes):
    return Endpoint(
        **{"name": "a-0", "url": "http://10.0.0.1:8000", "revision": "1", "ready": True, **changes}
    )


def test_a_table_survives_the_wire():
    table = RouteTable(
        service="team/chat", uid="u", version=3, endpoints=[endpoint()],
        revisions=[Revision(name="1", weight=90)],
    )  # fmt: skip
    text = table.model_dump_json(by_alias=True)
    assert '"holdSeconds"' in text
    assert RouteTable.model_validate_json(text) == table


@pytest.mark.parametrize(
    "url",
    ["10.0.0.1:8000", "ftp://a", "http://a/path", "http://user@a", "http://a?x", "http://a b", ""],
)
def test_an_endpoint_is_no_more_than_an_address(url):
    with pytest.raises(ValidationError):
        endpoint(url=url)


def test_an_endpoint_may_have_an_address_of_version_6():
    assert endpoint(url="http://[fd00::1]:8000").url == "http://[fd00::1]:8000"


def test_names_are_there_once():
    with pytest.raises(ValidationError, match="endpoints: a name is there twice"):
        RouteTable(service="a/b", uid="u", version=1, endpoints=[endpoint(), endpoint()])


def test_stats_survive_the_wire():
    stats = RouterStats(
        uid="u", instance="i", version=4, revisions=[RevisionStats(name="1", errors={"broken": 2})]
    )
    assert RouterStats.model_validate_json(stats.model_dump_json(by_alias=True)) == stats
    assert stats.revisions[0].faults == 2


def test_what_a_client_did_wrong_does_not_speak_against_a_revision():
    assert RevisionStats(name="1", errors={"client": 5, "overloaded": 3}).faults == 0


def test_a_quantile_lies_within_its_bucket():
    counts = [0] * (len(LATENCY_BOUNDS) + 1)
    counts[3] = 10
    assert 0.05 <= Histogram(counts=counts).quantile(0.5, LATENCY_BOUNDS) <= 0.1


def test_without_observations_there_is_no_quantile():
    assert Histogram().quantile(0.9, LATENCY_BOUNDS) is None


def test_what_is_above_all_bounds_is_told_as_the_last_one():
    counts = [0] * len(LATENCY_BOUNDS) + [1]
    assert Histogram(counts=counts).quantile(0.9, LATENCY_BOUNDS) == LATENCY_BOUNDS[-1]


@given(COUNTS, COUNTS)
def test_a_window_is_the_difference_of_two_states(first, more):
    earlier = Histogram(counts=first, sum=float(sum(first)))
    window = Histogram(counts=more, sum=float(sum(more)))
    assert earlier.plus(window).since(earlier) == window


@given(COUNTS, st.floats(0, 1), st.floats(0, 1))
def test_quantiles_grow_with_the_share(counts, one, other):
    found = Histogram(counts=counts)
    low, high = sorted((one, other))
    if found.count:
        assert found.quantile(low, LATENCY_BOUNDS) <= found.quantile(high, LATENCY_BOUNDS)
