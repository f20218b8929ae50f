"""The store keeps the newest state, in whatever order states come in."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from drakkar.kube.store import Store

Object = dict[str, Any]


def raw(name: str, uid: str, version: int, value: int = 0) -> Object:
    meta = {"name": name, "namespace": "ns", "uid": uid, "resourceVersion": str(version)}
    return {"metadata": meta, "value": value}


def make() -> Store[tuple[str, int]]:
    return Store("things", lambda o: (o["metadata"]["uid"], o["value"]))


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[str, Object]]:
    """One object's states, deletions and rebirths, in the order they happened."""
    events: list[tuple[str, Object]] = []
    version, life, alive = 1, 0, False
    for _ in range(draw(st.integers(1, 12))):
        version += draw(st.integers(1, 3))
        if alive and draw(st.booleans()):
            events.append(("delete", raw("a", f"u{life}", version)))
            alive = False
        else:
            life += not alive
            alive = True
            events.append(("upsert", raw("a", f"u{life}", version, version)))
    return events


@given(histories(), st.randoms(use_true_random=False))
def test_any_order_with_repeats_ends_in_the_newest_state(
    history: list[tuple[str, Object]], rng: Any
):
    store = make()
    told: list[tuple[str, int] | None] = []
    store.subscribe(lambda old, new: told.append(new))
    shuffled = history + rng.sample(history, len(history) // 2)
    rng.shuffle(shuffled)
    for kind, thing in shuffled:
        if kind == "upsert":
            store.upsert(thing)
        else:
            store.delete("ns/a", thing["metadata"]["uid"])
    kind, last = history[-1]
    want = {} if kind == "delete" else {"ns/a": (last["metadata"]["uid"], last["value"])}
    assert store.items == want
    if told:
        assert told[-1] == (want.get("ns/a"))


def test_a_list_drops_what_it_lacks_but_not_what_is_newer():
    store = make()
    store.upsert(raw("old", "u1", 5))
    store.upsert(raw("new", "u2", 20))
    assert store.retain({"ns/other"}, 10) == ["ns/old"]
    assert set(store.items) == {"ns/new"}


def test_a_list_of_one_namespace_leaves_the_others_alone():
    store = make()
    store.upsert(raw("a", "u1", 5))
    assert store.retain(set(), 10, prefix="elsewhere/") == []
    assert store.retain(set(), 10, prefix="ns/") == ["ns/a"]


def test_listeners_hear_of_real_changes_only():
    store = make()
    told = []
    store.subscribe(lambda old, new: told.append((old, new)))
    assert store.upsert(raw("a", "u", 1, 7))
    assert not store.upsert(raw("a", "u", 2, 7)), "a heartbeat"
    assert store.upsert(raw("a", "u", 3, 8))
    assert told == [(None, ("u", 7)), (("u", 7), ("u", 8))]
