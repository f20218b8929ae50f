"""What several routers saw, put together."""

from dataclasses import replace

from drakkar.routing import EndpointStats, RevisionStats, RouterStats, RouteTable, Sample
from drakkar_operator.model import PodView, ServingView
from drakkar_operator.reconcile.serving.traffic import Heard, History, counts, remember, traffic

TABLE = RouteTable(service="ml/chat", uid="u", version=3)


def router(name: str) -> PodView:
    return PodView(
        "ml",
        name,
        name,
        "a",
        "Running",
        {},
        ip="10.0.0.9",
        serving=ServingView("chat", "u", ready=True),
    )


def said(
    instance: str, requests: int, faults: int = 0, at: float = 100.0, version: int = 3
) -> Heard:
    stats = RouterStats(
        uid="u",
        instance=instance,
        version=1,
        table_version=version,
        in_flight=2,
        held=1,
        samples=[Sample(second=10, concurrency=1.5), Sample(second=11, concurrency=2.5)],
        revisions=[RevisionStats(name="r1", requests=requests, errors={"server": faults})],
        endpoints=[EndpointStats(name="chat-serve-0", in_flight=2)],
    )
    return Heard(stats, at)


def test_sums() -> None:
    heard = {"x": said("x", 5), "y": said("y", 7)}
    found = traffic(heard, [router("x"), router("y")], TABLE, History(), now=101)
    assert found.in_flight == {"chat-serve-0": 4}
    assert found.load is not None
    assert found.load.concurrency == ((10, 3.0), (11, 5.0))
    assert (found.load.held, found.load.in_flight) == (2, 4)
    assert found.table == TABLE
    assert found.ready == 2


def test_a_table_holds_only_if_every_router_has_said_so() -> None:
    pods = [router("x"), router("y")]
    older = {"x": said("x", 5), "y": said("y", 7, version=2)}
    assert traffic(older, pods, TABLE, History(), now=101).table is None
    one = {"x": said("x", 5)}
    assert traffic(one, pods, TABLE, History(), now=101).table is None
    stale = {"x": said("x", 5), "y": said("y", 7, at=10)}
    assert traffic(stale, pods, TABLE, History(), now=101).table is None


def test_without_an_answer_there_are_no_figures() -> None:
    found = traffic({}, [router("x")], TABLE, History(), now=101)
    assert found.load is None
    assert found.table is None


def test_outcomes_count_from_the_canarys_first_requests_and_over_restarts() -> None:
    before = {"x": said("x", 100, faults=50)}
    history = remember(History(), counts(before.values()), "r2", 100)
    later = {"x": said("x", 110, faults=51), "y": said("y", 7)}
    history = remember(history, counts(later.values()), "r2", 110)
    found = traffic(later, [router("x")], TABLE, history, now=110)
    assert found.outcomes["r1"].requests == 17
    assert found.outcomes["r1"].faults == 1
    other = remember(history, counts(later.values()), None, 111)
    assert other.base is None


def test_marks_are_kept_for_a_while() -> None:
    history = History()
    for second in range(200):
        history = remember(history, {}, None, float(second))
    assert len(history.marks) <= 32
    assert replace(history, marks=()).marks == ()
