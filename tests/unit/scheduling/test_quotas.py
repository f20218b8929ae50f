"""Quotas: borrowing, lending, flavors, and what a queue says of its use."""

from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drakkar_operator.model import NO_LIMIT, Flavor, QueueView, Quota
from drakkar_operator.scheduling.decision import Decision
from drakkar_operator.scheduling.ledger import Ledger
from drakkar_operator.scheduling.queueing import schedule
from drakkar_operator.scheduling.queues import ALL, Queues
from drakkar_operator.scheduling.workload import Pending, Running
from support.scheduling import GPU, gang, node, snapshot

ROOM = snapshot([node(f"n{at}") for at in range(8)])


def job(name: str, gpus: int, queue: str | None, **rest: object) -> Pending:
    """A waiting gang of one replica."""
    return Pending(("team", name), gang(1, gpus, key=("team", name)), queue, **rest)  # type: ignore[arg-type]


def runs(name: str, gpus: int, queue: str | None, on: str = "elsewhere", **rest: object) -> Running:
    """A running gang of one replica."""
    request = gang(1, gpus, key=("team", name), fixed={0: on})
    return Running(("team", name), request, queue, **rest)  # type: ignore[arg-type]


def ask(
    pending: Pending, queues: list[QueueView], running: list[Running], snap: object = ROOM
) -> Decision:
    """The decision on one gang."""
    (decision,) = schedule(snap, [pending], {q.name: q for q in queues}, running)  # type: ignore[arg-type]
    return decision


def pair(
    borrowing: int = 0, lending: int | None = None, parent: int | None = 16
) -> list[QueueView]:
    """Queues a and b of 8 each; a may borrow and b lend so much."""
    return [
        QueueView("all", {GPU: parent} if parent is not None else {}),
        QueueView("a", {GPU: 8}, parent="all", borrowing={GPU: borrowing}),
        QueueView("b", {GPU: 8}, parent="all", lending={} if lending is None else {GPU: lending}),
    ]


@pytest.mark.parametrize(
    ("queues", "used_by_b", "need", "text"),
    [
        (pair(), 0, 4, "queue 'a' allows 8 nvidia.com/gpu; 8 are used by 1 job, this job needs 4"),
        (pair(borrowing=4), 0, 4, None),
        (
            pair(borrowing=4), 0, 5,
            "queue 'a' allows 8 nvidia.com/gpu and 4 borrowed; 8 are used by 1 job, this job needs 5",
        ),
        (
            pair(borrowing=8), 5, 4,
            "queue 'all' allows 16 nvidia.com/gpu; 13 are used by 2 jobs, this job needs 4",
        ),
        (pair(borrowing=8), 4, 4, None),
        (pair(borrowing=NO_LIMIT), 0, 8, None),
        (
            pair(borrowing=8, lending=2), 0, 4,
            "queue 'all' allows 16 nvidia.com/gpu; 8 are used by 1 job, 6 kept by queues that do not "
            "lend them, this job needs 4",
        ),
        (pair(borrowing=8, lending=2), 0, 2, None),
        (pair(borrowing=8, lending=2), 6, 2, None),
        (
            pair(borrowing=8, parent=None), 5, 4,
            "the queues below 'all' have 16 nvidia.com/gpu together; 13 are used by 2 jobs, "
            "this job needs 4",
        ),
        (pair(borrowing=8, parent=None), 4, 4, None),
    ],
)  # fmt: skip
def test_borrowing_and_lending(
    queues: list[QueueView], used_by_b: int, need: int, text: str | None
) -> None:
    running = [runs("x", 8, "a"), *([runs("y", used_by_b, "b")] if used_by_b else [])]
    decision = ask(job("j", need, "a"), queues, running)
    assert decision.reason == text
    assert (decision.placed is None) == (text is not None)


def test_what_is_borrowed_and_lent_is_told() -> None:
    ledger = Ledger(Queues({q.name: q for q in pair(borrowing=8)}))
    item = (ALL, GPU)
    ledger.add("a", {item: 11})
    ledger.add("b", {item: 2})
    assert (ledger.borrowed("a"), ledger.borrowed("b")) == ({item: 3}, {})
    assert (ledger.lent("a"), ledger.lent("b")) == ({}, {item: 3})
    assert ledger.used("all")[item] == 13


def test_what_a_parent_has_beyond_its_children_is_borrowed_first() -> None:
    ledger = Ledger(Queues({q.name: q for q in pair(borrowing=8, parent=18)}))
    item = (ALL, GPU)
    ledger.add("a", {item: 11})
    assert ledger.lent("b") == {item: 1}


H100, H200 = {"gpu": "h100"}, {"gpu": "h200"}
MIXED = snapshot(
    [node(f"a{at}", labels=H100) for at in range(2)]
    + [node(f"b{at}", labels=H200) for at in range(2)]
    + [node("c0")]
)


def flavored(**limits: int) -> QueueView:
    """A queue with a quota of so many GPUs per type."""
    labels = {"h100": H100, "h200": H200}
    return QueueView(
        "q", {}, flavors=tuple(Flavor(n, labels[n], Quota({GPU: q})) for n, q in limits.items())
    )


def test_a_gang_runs_on_the_first_flavor_with_quota_and_room() -> None:
    queue = flavored(h100=8, h200=8)
    placed = [
        d.placed.nodes[0] if d.placed else d.reason
        for d in schedule(MIXED, [job(f"j{at}", 8, "q") for at in range(3)], {"q": queue})
    ]
    assert placed[:2] == ["a0", "b0"]
    assert placed[2] == (
        "queue 'q' allows 8 nvidia.com/gpu of flavor h100; 8 are used, this job needs 8; "
        "queue 'q' allows 8 nvidia.com/gpu of flavor h200; 8 are used, this job needs 8"
    )


def test_use_of_a_flavor_is_counted_by_the_nodes() -> None:
    running = [runs("x", 8, "q", on="a1"), runs("other", 8, "q", on="c0")]
    assert ask(job("j", 8, "q"), [flavored(h100=8)], running, MIXED).placed is None
    placed = ask(job("j", 8, "q"), [flavored(h100=16)], running, MIXED).placed
    assert placed is not None and placed.nodes == {0: "a0"}


def test_a_gang_that_asks_for_none_of_the_resources_may_run_anywhere() -> None:
    plain = Pending(("team", "j"), gang(5, requests={"cpu": 60_000}), "q")
    assert ask(plain, [flavored(h100=0)], [], MIXED).placed is not None


def test_a_node_selector_that_rules_out_all_flavors_is_named() -> None:
    request = gang(1, 8, node_selector={"gpu": "b300"})
    decision = ask(Pending(("team", "j"), request, "q"), [flavored(h100=8, h200=8)], [], MIXED)
    assert decision.reason == (
        "queue 'q' allows nodes of these flavors only: h100, h200; "
        "the job's node selector asks for others"
    )


def test_flavors_of_a_parent_hold_for_its_children() -> None:
    queues = [
        QueueView("all", {}, flavors=(Flavor("h100", H100, Quota({GPU: 8})),)),
        QueueView("q", {GPU: 32}, parent="all"),
    ]
    assert ask(job("j", 8, "q"), queues, [], MIXED).placed
    decision = ask(job("j", 8, "q"), queues, [runs("x", 4, "q", on="a0")], MIXED)
    assert decision.reason == (
        "queue 'all' allows 8 nvidia.com/gpu of flavor h100; 4 are used, this job needs 8"
    )


def test_a_repair_stays_on_its_flavor() -> None:
    request = gang(2, 8, fixed={0: "b0"})
    decision = ask(Pending(("team", "j"), request, "q"), [flavored(h100=8, h200=16)], [], MIXED)
    assert decision.placed is not None
    assert decision.placed.nodes[1] in ("b0", "b1")


def test_a_queue_too_far_down_is_refused() -> None:
    queues = [QueueView(f"q{at}", {}, parent=f"q{at - 1}" if at else None) for at in range(40)]
    decision = ask(job("j", 1, "q39"), queues, [])
    assert decision.reason == "queue 'q39' has 39 queues above it; write at most 15"
    assert ask(job("j", 1, "q15"), queues, []).placed


names = st.sampled_from(["a", "b", "c", "d", "e"])


@st.composite
def trees(draw: st.DrawFn) -> dict[str, QueueView]:
    """A tree of up to six queues with any limits."""
    found: dict[str, QueueView] = {}
    for name in ["r", "a", "b", "c", "d", "e"][: draw(st.integers(2, 6))]:
        parent = draw(st.sampled_from(sorted(found))) if found else None
        quota = {GPU: draw(st.integers(0, 24))} if draw(st.booleans()) else {}
        limits = {k: draw(st.integers(0, 12)) for k in quota if parent and draw(st.booleans())}
        lending = {k: draw(st.integers(0, 12)) for k in quota if parent and draw(st.booleans())}
        found[name] = QueueView(
            name, quota, draw(st.integers(1, 4)), parent, borrowing=limits, lending=lending
        )
    return found


@settings(max_examples=200, deadline=None)
@given(trees(), st.lists(st.tuples(names, st.integers(1, 8), st.integers(-1, 1)), max_size=14))
def test_no_queue_ever_uses_more_than_its_rules_allow(
    queues: dict[str, QueueView], gangs: list[tuple[str, int, int]]
) -> None:
    """Checked by sums over the placed jobs, without the ledger."""
    pending = [
        job(f"j{at}", gpus, name if name in queues else "r", priority=priority)
        for at, (name, gpus, priority) in enumerate(gangs)
    ]
    own = dict.fromkeys(queues, 0)
    by_key = {p.key: p for p in pending}
    decisions = schedule(ROOM, pending, queues)
    for decision in decisions:
        if decision.placed is not None:
            gang_ = by_key[decision.key]
            own[gang_.queue or ""] += gang_.request.total[GPU]
    children = {n: [c for c, v in queues.items() if v.parent == n] for n in queues}

    def used(name: str) -> int:
        return own[name] + sum(used(child) for child in children[name])

    def claimed(name: str, own: Mapping[str, int]) -> int:
        view = queues[name]
        kept = view.quota.get(GPU, 0) - view.lending.get(GPU, NO_LIMIT)
        return max(own[name] + below(name, own), kept)

    def below(name: str, own: Mapping[str, int]) -> int:
        return sum(claimed(child, own) for child in children[name])

    for name, view in queues.items():
        if GPU in view.quota:
            most = view.quota[GPU] + view.borrowing.get(GPU, 0)
            assert used(name) <= most
            # Queues below may keep more than there is; nobody gets more than that either.
            idle = below(name, dict.fromkeys(queues, 0))
            assert own[name] + below(name, own) <= max(most, idle)
    # What was refused for its quota would break a rule.
    for decision in decisions:
        if decision.placed is None and decision.unplaced is None:
            assert "this job needs" in (decision.reason or "")
