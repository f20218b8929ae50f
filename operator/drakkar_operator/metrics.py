"""What the operator tells Prometheus about itself."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)

# Each would double the number of series and nobody asks for them.
disable_created_metrics()  # type: ignore[no-untyped-call]

_LATENCY = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

_WAIT = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 10_800.0, 43_200.0, 172_800.0)


class Metrics:
    """All metrics, in a registry of their own so that tests can have many."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        r = self.registry
        self.reconcile_seconds = Histogram(
            "drakkar_operator_reconcile_duration_seconds",
            "Time of one reconcile, writes included.",
            buckets=_LATENCY,
            registry=r,
        )
        self.reconciles = Counter(
            "drakkar_operator_reconcile_total", "Reconciles.", ["result"], registry=r
        )
        self.queue_depth = Gauge(
            "drakkar_operator_workqueue_depth", "Keys that are due and wait.", registry=r
        )
        self.requests = Counter(
            "drakkar_operator_api_requests_total",
            "Requests to the API server; code 0: no answer.",
            ["verb", "code"],
            registry=r,
        )
        self.request_seconds = Histogram(
            "drakkar_operator_api_request_duration_seconds",
            "Time of requests to the API server, watches left out.",
            ["verb"],
            buckets=_LATENCY,
            registry=r,
        )
        self.relists = Counter(
            "drakkar_operator_informer_relists_total", "Full lists.", ["resource"], registry=r
        )
        self.watches = Counter(
            "drakkar_operator_informer_watches_total",
            "Watch streams opened.",
            ["resource"],
            registry=r,
        )
        self.queue_wait = Histogram(
            "drakkar_queue_wait_seconds",
            "How long jobs waited that got a place.",
            ["queue"],
            buckets=_WAIT,
            registry=r,
        )
        self.restarts = Counter(
            "drakkar_operator_restarts_total",
            "Interruptions of jobs, by what restarted and why.",
            ["scope", "reason"],
            registry=r,
        )
        self.scheduling_seconds = Histogram(
            "drakkar_operator_scheduling_cycle_seconds",
            "Time to decide on all waiting gangs, without writing.",
            buckets=_LATENCY,
            registry=r,
        )
        self.decisions = Counter(
            "drakkar_operator_scheduling_decisions_total",
            "Gangs judged by the scheduler.",
            ["outcome"],
            registry=r,
        )
        self.pods_created = Counter(
            "drakkar_operator_pods_created_total", "Pods created.", registry=r
        )
        self.pods_deleted = Counter(
            "drakkar_operator_pods_deleted_total", "Pods deleted.", registry=r
        )
        self.reports = Counter(
            "drakkar_operator_reports_total",
            "Answers of coordinators to polls.",
            ["result"],
            registry=r,
        )
        self.events_dropped = Counter(
            "drakkar_operator_events_dropped_total",
            "Events that were not written because the buffer was full.",
            registry=r,
        )
        self.leader = Gauge("drakkar_operator_leader", "1 while this process leads.", registry=r)

    def observe_request(self, verb: str, code: int, seconds: float) -> None:
        """Count a request to the API server."""
        self.requests.labels(verb, str(code)).inc()
        if verb != "WATCH":
            self.request_seconds.labels(verb).observe(seconds)
