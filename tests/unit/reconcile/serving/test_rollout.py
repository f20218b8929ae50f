"""Which replicas come and which go."""

from hypothesis import given
from hypothesis import strategies as st

from drakkar.v1alpha1.inferenceservice import Member
from drakkar_operator.reconcile.serving.rollout import changes, wanted
from support.services import member


def test_wanted_numbers() -> None:
    assert wanted("a", None, 4, None) == {"a": 4}
    assert wanted("a", "b", 4, None) == {"b": 4}
    assert wanted("a", "b", 4, 25) == {"a": 4, "b": 1}
    assert wanted("a", "b", 10, 25) == {"a": 10, "b": 3}
    assert wanted("a", "b", 0, 25) == {"a": 0, "b": 0}


def test_the_lowest_free_names_are_given() -> None:
    found = changes([member("0", "a"), member("2", "a", "Draining")], {"a": 3}, surge=0)
    assert found.add == (("1", "a"), ("3", "a"))


def test_who_serves_least_leaves_first() -> None:
    members = [
        member("0", "a"),
        member("1", "a", "Starting"),
        member("2", "a"),
        member("3", "a", "Pending"),
    ]
    assert changes(members, {"a": 3}, 1).drain == ("3",)
    assert changes(members, {"a": 2}, 1).drain == ("3", "1")
    assert changes(members, {"a": 1}, 1).drain == ("3", "1", "2")


def test_an_old_replica_goes_for_each_new_one_that_is_ready() -> None:
    old = [member("0", "a"), member("1", "a")]
    assert changes(old, {"b": 2}, 1).drain == ()
    assert changes(old, {"b": 2}, 1).add == (("2", "b"),)
    starting = [*old, member("2", "b", "Starting")]
    assert changes(starting, {"b": 2}, 1).drain == ()
    assert changes(starting, {"b": 2}, 1).add == ()
    ready = [*old, member("2", "b")]
    assert changes(ready, {"b": 2}, 1).drain == ("1",)
    assert changes(ready, {"b": 2}, 1).add == (("3", "b"),)


states = st.sampled_from(["Pending", "Starting", "Ready", "NotReady", "Draining"])
some = st.lists(st.tuples(st.sampled_from(["a", "b"]), states), max_size=12).map(
    lambda items: [member(str(at), *item) for at, item in enumerate(items)]
)


@given(some, st.integers(0, 6), st.integers(1, 4), st.sampled_from([{"a"}, {"b"}, {"a", "b"}]))
def test_serving_replicas_stay_until_others_do_and_surge_is_a_bound(
    members: list[Member], count: int, surge: int, revisions: set[str]
) -> None:
    goal = dict.fromkeys(sorted(revisions), count)
    found = changes(members, goal, surge)
    active = [one for one in members if one.state != "Draining"]
    left = [one for one in active if one.name not in found.drain]
    assert set(found.drain) <= {one.name for one in active}
    assert not {name for name, _ in found.add} & {one.name for one in members}
    total = sum(goal.values())
    assert not found.add or len(left) + len(found.add) <= total + surge
    ready = sum(one.state == "Ready" for one in active)
    kept = sum(one.state == "Ready" for one in left)
    outgoing = [one for one in active if one.revision not in goal]
    if outgoing and len(revisions) == 1:
        assert kept >= min(ready, total)


@given(some, st.integers(0, 5), st.integers(1, 3))
def test_it_ends(members: list[Member], count: int, surge: int) -> None:
    """With replicas that get ready and leave, the wanted ones remain and nothing else."""
    goal = {"b": count}
    for _ in range(60):
        members = [
            one.model_copy(update={"state": "Ready"}) for one in members if one.state != "Draining"
        ]
        found = changes(members, goal, surge)
        members = [
            one.model_copy(update={"state": "Draining"}) if one.name in found.drain else one
            for one in members
        ] + [member(name, revision, "Pending") for name, revision in found.add]
    assert len(members) == count
    assert all(one.revision == "b" for one in members)
