"""What the server tells Prometheus about itself."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

# Each would double the number of series and nobody asks for them.
disable_created_metrics()  # type: ignore[no-untyped-call]

_LATENCY = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """All metrics, in a registry of their own so that tests can have many."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        r = self.registry
        self.requests = Counter(
            "drakkar_server_requests_total", "Requests answered.", ["route", "code"], registry=r
        )
        self.request_seconds = Histogram(
            "drakkar_server_request_duration_seconds",
            "Time to answer, streams left out.",
            ["route"],
            buckets=_LATENCY,
            registry=r,
        )
        self.streams = Gauge("drakkar_server_streams", "Open event and log streams.", registry=r)
        self.api_requests = Counter(
            "drakkar_server_api_requests_total",
            "Requests to the API server; code 0: no answer.",
            ["verb", "code"],
            registry=r,
        )
        self.api_seconds = Histogram(
            "drakkar_server_api_request_duration_seconds",
            "Time of requests to the API server, watches left out.",
            ["verb"],
            buckets=_LATENCY,
            registry=r,
        )
        self.relists = Counter(
            "drakkar_server_informer_relists_total", "Full lists.", ["resource"], registry=r
        )
        self.watches = Counter(
            "drakkar_server_informer_watches_total", "Watches opened.", ["resource"], registry=r
        )
        self.rows = Counter(
            "drakkar_server_history_rows_total",
            "Rows written to the database.",
            ["table"],
            registry=r,
        )
        self.history_up = Gauge(
            "drakkar_server_history_up", "1 while the database takes writes.", registry=r
        )
        self.history_waiting = Gauge(
            "drakkar_server_history_waiting", "Rows that wait for the database.", registry=r
        )
        self.history_lost = Counter(
            "drakkar_server_history_lost_total",
            "Points of metrics dropped because the database was away for too long.",
            registry=r,
        )

    def observe_request(self, verb: str, code: int, seconds: float) -> None:
        """Count a request to the API server."""
        self.api_requests.labels(verb, str(code)).inc()
        if verb != "WATCH":
            self.api_seconds.labels(verb).observe(seconds)
