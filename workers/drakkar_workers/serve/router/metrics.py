"""The router's counts for Prometheus: the same that the operator is told."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from drakkar.routing import LATENCY_BOUNDS, TPOT_BOUNDS, Histogram, RevisionStats, RouterStats

PREFIX = "drakkar:router_"


class RouterCollector(Collector):
    """Reads the counts at the scrape."""

    def __init__(self, stats: Callable[[], RouterStats]) -> None:
        self._stats = stats

    def describe(self) -> list[Metric]:
        """Names are not read when it is registered."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All families."""
        stats = self._stats()
        yield GaugeMetricFamily(f"{PREFIX}requests_in_flight", "At replicas.", stats.in_flight)
        yield GaugeMetricFamily(f"{PREFIX}requests_held", "Waiting for a replica.", stats.held)
        ready = stats.table_version is not None and not stats.draining
        yield GaugeMetricFamily(
            f"{PREFIX}ready", "It has a table and does not drain.", float(ready)
        )
        yield CounterMetricFamily(f"{PREFIX}retries", "Further attempts.", stats.retries)
        refused = CounterMetricFamily(
            f"{PREFIX}refused", "Requests that the router refused.", labels=["code"]
        )
        for code, count in stats.refused.items():
            refused.add_metric([code], count)
        yield refused
        yield from _revisions(stats.revisions)
        yield from _endpoints(stats)


def _revisions(revisions: Sequence[RevisionStats]) -> Iterator[Metric]:
    labels = ["revision"]
    requests = CounterMetricFamily(f"{PREFIX}requests", "Attempts that ended.", labels=labels)
    cancelled = CounterMetricFamily(f"{PREFIX}cancelled", "Clients that left.", labels=labels)
    errors = CounterMetricFamily(
        f"{PREFIX}errors", "Attempts that failed, by class.", labels=["revision", "class"]
    )
    tokens = CounterMetricFamily(f"{PREFIX}tokens", "As answers told.", labels=["revision", "kind"])
    for one in revisions:
        requests.add_metric([one.name], one.requests)
        cancelled.add_metric([one.name], one.cancelled)
        for kind, count in one.errors.items():
            errors.add_metric([one.name, kind], count)
        tokens.add_metric([one.name, "prompt"], one.prompt_tokens)
        tokens.add_metric([one.name, "generation"], one.generation_tokens)
    yield from (requests, cancelled, errors, tokens)
    yield _histogram("time_to_first_token", LATENCY_BOUNDS, {r.name: r.ttft for r in revisions})
    yield _histogram("time_per_output_token", TPOT_BOUNDS, {r.name: r.tpot for r in revisions})
    yield _histogram("request_latency", LATENCY_BOUNDS, {r.name: r.latency for r in revisions})


def _histogram(name: str, bounds: tuple[float, ...], found: Mapping[str, Histogram]) -> Metric:
    family = HistogramMetricFamily(
        f"{PREFIX}{name}_seconds", "From the pick of the replica on.", labels=["revision"]
    )
    for revision, histogram in found.items():
        buckets, total = _buckets(histogram, bounds)
        family.add_metric([revision], buckets, total)
    return family


def _buckets(found: Histogram, bounds: tuple[float, ...]) -> tuple[list[tuple[str, float]], float]:
    total, told = 0, []
    names = [*(str(bound) for bound in bounds), "+Inf"]
    for name, count in zip(names, found.counts, strict=False):
        total += count
        told.append((name, float(total)))
    return told, found.sum


def _endpoints(stats: RouterStats) -> Iterator[Metric]:
    load = GaugeMetricFamily(
        f"{PREFIX}replica_in_flight", "Requests at a replica.", labels=["replica"]
    )
    circuit = GaugeMetricFamily(
        f"{PREFIX}replica_circuit_open", "1 while it gets no requests.", labels=["replica"]
    )
    for one in stats.endpoints:
        load.add_metric([one.name], one.in_flight)
        circuit.add_metric([one.name], float(one.circuit == "open"))
    yield from (load, circuit)
