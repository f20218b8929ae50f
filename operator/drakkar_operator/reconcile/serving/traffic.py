"""What the routers of a service saw, put together. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from drakkar.routing import (
    LATENCY_BOUNDS,
    TPOT_BOUNDS,
    Histogram,
    RevisionStats,
    RouterStats,
    RouteTable,
)
from drakkar_operator.model import PodView
from drakkar_operator.reconcile.serving.autoscale import Load
from drakkar_operator.reconcile.serving.canary import Outcomes
from drakkar_operator.reconcile.serving.observed import Traffic

TRUSTED_SECONDS = 10.0
"""What a router said so long ago at most counts."""
LATENCY_SECONDS = 30.0
"""Percentiles are of the requests of so many last seconds."""
Counts = Mapping[tuple[str, str], RevisionStats]
"""(router's instance, revision) -> what it counted since it started."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What a router said, and when on the clock of the one who asked."""

    stats: RouterStats
    at: float


@dataclass(frozen=True, slots=True)
class History:
    """What was counted at earlier moments: what lies between is what happened since."""

    marks: tuple[tuple[float, Counts], ...] = ()
    """(time, counts), oldest first, of the last ``LATENCY_SECONDS``."""
    canary: str | None = None
    """Revision that is on trial."""
    base: Counts | None = None
    """Counts when it got its first requests."""


def counts(heard: Iterable[Heard]) -> dict[tuple[str, str], RevisionStats]:
    """The counters of all routers."""
    return {(each.stats.instance, one.name): one for each in heard for one in each.stats.revisions}


def remember(history: History, found: Counts, canary: str | None, now: float) -> History:
    """The history with this moment in it; ``canary`` is the revision that runs on trial."""
    marks = [(at, seen) for at, seen in history.marks if now - at <= LATENCY_SECONDS]
    if not marks or now - marks[-1][0] >= 1.0:
        marks.append((now, found))
    base = history.base if canary is not None and canary == history.canary else found
    return replace(
        history, marks=tuple(marks), canary=canary, base=base if canary is not None else None
    )


def traffic(
    heard: Mapping[str, Heard],
    pods: Iterable[PodView],
    table: RouteTable | None,
    history: History,
    *,
    now: float,
) -> Traffic:
    """One picture of all routers; ``now`` is on the clock of ``Heard``.

    ``pods`` are those of the routers.
    """
    routers = [pod for pod in pods if not pod.finished]
    fresh = [each for each in heard.values() if now - each.at <= TRUSTED_SECONDS]
    all_told = table is not None and len(fresh) >= len([pod for pod in routers if pod.ip])
    held = all_told and all(
        table is not None and each.stats.table_version == table.version for each in fresh
    )
    in_flight: dict[str, int] = {}
    for each in fresh:
        for endpoint in each.stats.endpoints:
            in_flight[endpoint.name] = in_flight.get(endpoint.name, 0) + endpoint.in_flight
    found = counts(fresh)
    return Traffic(
        routers=len(routers),
        ready=sum(pod.serving is not None and pod.serving.ready for pod in routers),
        heard=len(fresh),
        table=table if held and fresh else None,
        in_flight=in_flight,
        load=_load(fresh, found, history) if fresh else None,
        outcomes=_outcomes(found, history.base or {}),
    )


def _load(fresh: list[Heard], found: Counts, history: History) -> Load:
    seconds: dict[int, float] = {}
    for each in fresh:
        for sample in each.stats.samples:
            seconds[sample.second] = seconds.get(sample.second, 0.0) + sample.concurrency
    earlier = history.marks[0][1] if history.marks else {}
    ttft, tpot = Histogram(), Histogram()
    for key, now in found.items():
        before = earlier.get(key)
        ttft = ttft.plus(now.ttft.since(before.ttft) if before else now.ttft)
        tpot = tpot.plus(now.tpot.since(before.tpot) if before else now.tpot)
    return Load(
        concurrency=tuple(sorted(seconds.items())),
        held=sum(each.stats.held for each in fresh),
        in_flight=sum(each.stats.in_flight for each in fresh),
        ttft=ttft.quantile(0.9, LATENCY_BOUNDS),
        tpot=tpot.quantile(0.9, TPOT_BOUNDS),
    )


def _outcomes(found: Counts, base: Counts) -> dict[str, Outcomes]:
    """Per revision, since the counts of ``base``."""
    outcomes: dict[str, Outcomes] = {}
    for key, now in found.items():
        before = base.get(key) or RevisionStats(name=now.name)
        known = outcomes.get(now.name, Outcomes())
        ended = (now.requests - now.cancelled) - (before.requests - before.cancelled)
        outcomes[now.name] = Outcomes(
            requests=known.requests + max(0, ended),
            faults=known.faults + max(0, now.faults - before.faults),
            ttft=known.ttft.plus(now.ttft.since(before.ttft)),
        )
    return outcomes
