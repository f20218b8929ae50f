"""Which replica gets a request."""

import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drakkar.routing import Policy
from drakkar_workers.serve.router.pick import SLACK, SPREAD, WAITING_LIMIT, Candidate, pick

POLICY = Policy()
KINDS = st.sampled_from(["scored", "round-robin", "least-requests"])

CANDIDATE = st.builds(
    Candidate,
    name=st.just(""),
    revision=st.sampled_from(["old", "new"]),
    ready=st.booleans(),
    draining=st.booleans(),
    closed=st.booleans(),
    load=st.integers(0, 100),
    in_flight=st.integers(0, 100),
    waiting=st.none() | st.integers(0, 2 * WAITING_LIMIT),
    kv=st.none() | st.floats(0, 1),
    prefix=st.floats(0, 1),
    session=st.booleans(),
    adapter=st.booleans(),
)


@st.composite
def fleets(draw):
    found = draw(st.lists(CANDIDATE, max_size=8))
    return [replace(one, name=f"r{number}") for number, one in enumerate(found)]


def choose(fleet, shares=None, policy=POLICY, *, seed=0, draw=0.5, **more):
    chance = random.Random(seed)
    return pick(fleet, shares or {}, policy, draw=draw, chance=chance, **more)


def replicas(*changes):
    return [
        Candidate(**{"name": f"r{number}", "revision": "1", **one})
        for number, one in enumerate(changes)
    ]


@given(
    fleets(),
    st.fixed_dictionaries({}, optional={"old": st.floats(0, 100), "new": st.floats(0, 100)}),
    KINDS,
    st.floats(0, 1, exclude_max=True),
    st.integers(0, 100),
    st.integers(0, 50),
    st.integers(),
)
def test_whoever_is_picked_may_be_picked(fleet, shares, kind, draw, turn, limit, seed):
    avoid = {"r0"}
    found = choose(
        fleet, shares, Policy(kind=kind), seed=seed, draw=draw, turn=turn, limit=limit, avoid=avoid
    )
    allowed = [
        one
        for one in fleet
        if one.ready
        and not one.draining
        and one.name not in avoid
        and (not shares or shares.get(one.revision, 0) > 0)
    ]
    through = [one for one in allowed if one.closed] or allowed
    roomy = [
        one
        for one in through
        if (one.waiting is None or one.waiting < WAITING_LIMIT)
        and (limit == 0 or one.in_flight < limit)
    ]
    if roomy:
        assert found in roomy, "nobody waits while a replica has room"
    else:
        assert found is None


@given(st.integers(1, 99), st.integers(), KINDS)
def test_shares_are_kept(percent, seed, kind):
    fleet = replicas(
        {"revision": "old"}, {"revision": "new"}, {"revision": "old"}, {"revision": "old"}
    )
    shares = {"old": 100 - percent, "new": percent}
    count = 200
    found = Counter(
        choose(fleet, shares, Policy(kind=kind), seed=seed, draw=number / count).revision
        for number in range(count)
    )
    assert abs(found["new"] / count - percent / 100) <= 1 / count + 1e-9


def test_a_revision_without_replicas_leaves_its_share_to_others():
    fleet = replicas({"revision": "old"}, {"revision": "new", "ready": False})
    assert choose(fleet, {"old": 10, "new": 90}, draw=0.9).revision == "old"


def test_a_revision_of_weight_0_gets_nothing():
    assert choose(replicas({"revision": "bad"}), {"bad": 0, "good": 100}) is None


@given(st.integers(1, 8), st.integers(1, 200), st.booleans(), st.integers())
def test_no_herd(size, requests, one_has_the_prefix, seed):
    """However alike requests are, none gets far more than its part: what is under way counts."""
    chance = random.Random(seed)
    loads = [0] * size
    for _ in range(requests):
        fleet = replicas(
            *(
                {"load": load, "in_flight": load, "prefix": float(one_has_the_prefix and i == 0)}
                for i, load in enumerate(loads)
            )
        )
        found = pick(fleet, {}, POLICY, draw=0.0, chance=chance)
        loads[int(found.name[1:])] += 1
    assert max(loads) <= SPREAD * (requests + 1) / size + SLACK + 1


def test_equals_are_drawn_at_random():
    found = Counter(choose(replicas({}, {}, {}), seed=seed).name for seed in range(300))
    assert set(found) == {"r0", "r1", "r2"}
    assert min(found.values()) > 60


def test_round_robin_takes_turns():
    fleet, policy = replicas({}, {}, {}), Policy(kind="round-robin")
    assert [choose(fleet, policy=policy, turn=turn).name for turn in range(4)] == [
        "r0", "r1", "r2", "r0",
    ]  # fmt: skip


CASES = {
    "who has the prompt": ({"prefix": 0.9}, {}),
    "who has the prompt though it has a little more to do": ({"prefix": 1.0, "load": 2}, {}),
    "not who has the prompt but far too much to do": ({}, {"prefix": 1.0, "load": 40}),
    "who has less to do": ({"load": 1}, {"load": 3}),
    "whose cache has room": ({"kv": 0.1}, {"kv": 0.9}),
    "who is heard of rather than who is mute": ({"kv": 0.1}, {"kv": None}, {"kv": 0.9}),
    "who had the session": ({"session": True}, {}),
    "who has the adapter": ({"adapter": True}, {}),
    "who is ready": ({}, {"ready": False, "prefix": 1.0}),
    "who is not about to leave": ({}, {"draining": True, "prefix": 1.0}),
    "whose circuit is closed": ({}, {"closed": False, "prefix": 1.0}),
    "in which few wait": ({}, {"waiting": WAITING_LIMIT, "prefix": 1.0}),
}


@pytest.mark.parametrize("case", CASES)
def test_the_first_is_picked(case):
    fleet = replicas(*CASES[case])
    assert {choose(fleet, seed=seed).name for seed in range(20)} == {"r0"}


def test_if_all_circuits_are_open_they_are_tried():
    assert choose(replicas({"closed": False})) is not None
