"""Smaller gangs pass a large one without delaying it."""

from hypothesis import given, settings
from hypothesis import strategies as st

from drakkar_operator.model import QueueView
from drakkar_operator.scheduling.cycle import DEFAULT_BACKFILL_SECONDS
from support.queue_lab import Job, Lab
from support.scheduling import node

HOUR = DEFAULT_BACKFILL_SECONDS


def lab(nodes: int = 2, **rest: object) -> Lab:
    return Lab([node(f"n{at}") for at in range(nodes)], **rest)  # type: ignore[arg-type]


def test_a_gang_passes_only_if_it_ends_before_the_reserved_time() -> None:
    """One node is free, but the large gang needs both at 100."""
    cluster = lab()
    cluster.run(
        [
            Job("first", 0, 1, 8, 100),
            Job("large", 1, 2, 8, 50),
            Job("long", 2, 1, 8, 200, bounded=True),
            Job("short", 3, 1, 8, 90, bounded=True),
            Job("unknown", 4, 1, 8, 10),
        ]
    )
    assert cluster.started["large"] == 100
    assert cluster.started["short"] == 3
    assert cluster.started["long"] == 150
    assert cluster.started["unknown"] == 150
    assert not cluster.overcommitted


def test_a_gang_passes_beside_the_reserved_room() -> None:
    cluster = lab(3)
    cluster.run(
        [
            Job("first", 0, 2, 8, 100, known=True),
            Job("large", 1, 3, 6, 50),
            Job("beside", 2, 1, 2, 1000),
            Job("too large", 3, 1, 4, 1000),
        ]
    )
    assert cluster.started["beside"] == 2
    assert cluster.started["large"] == 100
    assert cluster.started["too large"] == 150


def test_with_unknown_ends_the_first_is_passed_for_a_time_and_then_never() -> None:
    """A stream of small gangs would starve the large one: there is always one that runs."""
    cluster = lab()
    small = [Job(f"s{at}", at * 600, 1, 8, 1199, known=False) for at in range(40)]
    cluster.run([*small, Job("large", 700, 2, 8, 50, known=False)], tick=30)
    start = cluster.started["large"]
    assert 700 + HOUR <= start <= 700 + HOUR + 1199 + 30
    assert not cluster.overcommitted


def test_a_queue_says_for_how_long_its_first_may_be_passed() -> None:
    queues = {"q": QueueView("q", {}, backfill_seconds=0)}
    cluster = lab(queues=queues)
    small = [Job(f"s{at}", at * 600, 1, 8, 1199, known=False, queue="q") for at in range(10)]
    cluster.run([*small, Job("large", 700, 2, 8, 50, known=False, queue="q")], tick=30)
    assert cluster.started["large"] == 1799


def test_an_impossible_gang_keeps_nothing_from_others() -> None:
    cluster = lab()
    cluster.run([Job("impossible", 0, 3, 8, 1), Job("a", 1, 2, 8, 10), Job("b", 2, 2, 8, 10)])
    assert cluster.started == {"a": 1, "b": 11}


def test_the_next_operator_keeps_the_promise_too() -> None:
    cluster = lab(forget=True)
    small = [Job(f"s{at}", at * 600, 1, 8, 1199, known=False) for at in range(40)]
    cluster.run([*small, Job("large", 700, 2, 8, 50, known=False)], tick=30)
    assert cluster.started["large"] <= 700 + HOUR + 1199 + 30


def test_the_quota_is_kept_for_the_first_as_well() -> None:
    queues = {"q": QueueView("q", {"nvidia.com/gpu": 8}, backfill_seconds=100)}
    cluster = lab(4, queues=queues)
    small = [Job(f"s{at}", at * 10, 1, 4, 25, known=False, queue="q") for at in range(60)]
    cluster.run([*small, Job("large", 15, 1, 8, 50, known=False, queue="q")], tick=5)
    assert 115 <= cluster.started["large"] <= 115 + 25 + 5


jobs = st.lists(
    st.builds(
        dict,
        arrives=st.integers(0, 30).map(float),
        replicas=st.integers(1, 4),
        gpus=st.integers(1, 8),
        seconds=st.integers(1, 40).map(float),
        known=st.booleans(),
        bounded=st.booleans(),
        queue=st.sampled_from([None, "a", "b"]),
    ),
    min_size=1,
    max_size=10,
)
PATIENCE = 20.0


def test_one_that_was_let_in_and_is_late_lets_nobody_else_in() -> None:
    cluster = lab(2)
    first = [Job(f"s{at}", 0, 1, 1, 1, known=False) for at in range(5)]
    known = Job("known", 0, 1, 1, 3)
    large = Job("large", 0, 2, 8, 1, known=False)
    let_in = Job("let-in", 1, 1, 1, 2, known=False, bounded=True)
    cluster.run([*first, known, large, let_in, Job("later", 2, 1, 1, 7, known=False)], tick=5)
    assert cluster.started["let-in"] == 1
    assert cluster.started["large"] == 3


@settings(max_examples=60, deadline=None)
@given(jobs, st.integers(1, 4), st.booleans())
def test_no_gang_starves(found: list[dict[str, object]], nodes: int, forget: bool) -> None:
    """The stated bound: see ``backfill``."""
    names = {None: QueueView("none", {}), "a": QueueView("a", {}), "b": QueueView("b", {})}
    queues = {
        view.name: QueueView(view.name, {}, backfill_seconds=PATIENCE) for view in names.values()
    }
    todo = [
        Job(f"j{at}", **{**each, "queue": each["queue"] or "none"})  # type: ignore[arg-type]
        for at, each in enumerate(found)
    ]
    cluster = Lab([node(f"n{at}") for at in range(nodes)], queues, forget=forget)
    cluster.run(todo, tick=5)
    assert not cluster.overcommitted
    for job in todo:
        fits = job.replicas <= nodes * (8 // job.gpus)
        assert (job.name in cluster.started) == fits
    if forget:
        return
    ends = {
        job.name: cluster.started[job.name] + job.seconds
        for job in todo
        if job.name in cluster.started
    }
    promised: dict[str, float] = {}
    for now, running, decisions in cluster.cycles:
        for decision in decisions:
            name = decision.key[1]
            if decision.placed is not None:
                assert now <= promised.get(name, now)
            elif decision.hold is not None and name not in promised:
                placed_now = [d.key[1] for d in decisions if d.placed is not None]
                promised[name] = (
                    max(ends[key] for key in [*(r.key[1] for r in running), *placed_now]) + 5
                )
