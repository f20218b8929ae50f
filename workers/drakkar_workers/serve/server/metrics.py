"""Metrics under vLLM's names, so that its dashboards, routers and scalers work unchanged."""

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from drakkar_workers.serve.engine.engine import Stats
from drakkar_workers.serve.engine.wire import Ready

LABELS = ["model_name", "engine"]
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320)
BETWEEN_TOKENS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.2, 0.5, 1, 2, 5)
TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000)


class Metrics:
    """The server's own counts, and the engine's figures at the scrape."""

    def __init__(
        self,
        model: str,
        stats: Callable[[], Stats | None],
        ready: Callable[[], Ready | None],
        max_adapters: int,
    ) -> None:
        self.registry = CollectorRegistry()
        self._values = (model, "0")
        self.registry.register(_EngineCollector(self._values, stats, ready, max_adapters))
        self.first_token = self._histogram(
            "time_to_first_token_seconds", "Arrival to first token.", SECONDS
        )
        self.between = self._histogram(
            "inter_token_latency_seconds", "Between two tokens of a stream.", BETWEEN_TOKENS
        )
        self.whole = self._histogram(
            "e2e_request_latency_seconds", "Arrival to last token.", SECONDS
        )
        self.queue = self._histogram(
            "request_queue_time_seconds", "Arrival to first step.", SECONDS
        )
        self.prefill = self._histogram(
            "request_prefill_time_seconds", "First step to first token.", SECONDS
        )
        self.decode = self._histogram(
            "request_decode_time_seconds", "First to last token.", SECONDS
        )
        self.prompt_size = self._histogram("request_prompt_tokens", "Tokens of prompts.", TOKENS)
        self.output_size = self._histogram(
            "request_generation_tokens", "Tokens of answers.", TOKENS
        )
        self.prompt = self._counter("prompt_tokens", "Prompt tokens of answered requests.")
        self.generated = self._counter("generation_tokens", "Tokens that were generated.")
        self._success = Counter(
            "vllm:request_success",
            "Requests that ended, by reason.",
            [*LABELS, "finished_reason"],
            registry=self.registry,
        )
        self._refused = Counter(
            "drakkar:requests_refused",
            "Requests that were answered with an error, by status.",
            [*LABELS, "status"],
            registry=self.registry,
        )

    def ended(self, reason: str) -> None:
        """A request has ended: stop, length, tool_calls or abort."""
        self._success.labels(*self._values, reason).inc()

    def refused(self, status: int) -> None:
        """A request was answered with an error."""
        self._refused.labels(*self._values, str(status)).inc()

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        made = Histogram(f"vllm:{name}", text, LABELS, buckets=buckets, registry=self.registry)
        return made.labels(*self._values)

    def _counter(self, name: str, text: str) -> Counter:
        made = Counter(f"vllm:{name}", text, LABELS, registry=self.registry)
        return made.labels(*self._values)


class _EngineCollector(Collector):
    def __init__(
        self,
        values: tuple[str, str],
        stats: Callable[[], Stats | None],
        ready: Callable[[], Ready | None],
        max_adapters: int,
    ) -> None:
        self._values = values
        self._stats = stats
        self._ready = ready
        self._max_adapters = max_adapters

    def collect(self) -> Iterable[Metric]:
        stats, ready = self._stats(), self._ready()
        if ready is not None:
            info = InfoMetricFamily("vllm:cache_config", "The paged cache.", labels=LABELS)
            info.add_metric(
                self._values,
                {"num_gpu_blocks": str(ready.blocks), "block_size": str(ready.block_size)},
            )
            yield info
        if stats is None:
            return
        yield self._gauge("num_requests_running", "Requests in the batch.", stats.running)
        yield self._gauge("num_requests_waiting", "Requests in the queue.", stats.waiting)
        yield self._gauge("kv_cache_usage_perc", "Share of blocks held, 0 to 1.", stats.cache_usage)
        for name, text, value in (
            ("prefix_cache_queries", "Prompt tokens looked up.", stats.prefix_queries),
            ("prefix_cache_hits", "Prompt tokens found.", stats.prefix_hits),
            ("num_preemptions", "Sequences that gave up their blocks.", stats.preemptions),
            ("spec_decode_num_draft_tokens", "Tokens that were guessed.", stats.drafted),
            ("spec_decode_num_accepted_tokens", "Guesses that were right.", stats.accepted),
        ):
            family = CounterMetricFamily(f"vllm:{name}", text, labels=LABELS)
            family.add_metric(self._values, value)
            yield family
        labels = [*LABELS, "max_lora", "running_lora_adapters", "waiting_lora_adapters"]
        adapters = GaugeMetricFamily("vllm:lora_requests_info", "Adapters in use.", labels=labels)
        running, waiting = ",".join(stats.running_adapters), ",".join(stats.waiting_adapters)
        adapters.add_metric([*self._values, str(self._max_adapters), running, waiting], 1)
        yield adapters

    def _gauge(self, name: str, text: str, value: float) -> GaugeMetricFamily:
        family = GaugeMetricFamily(f"vllm:{name}", text, labels=LABELS)
        family.add_metric(self._values, value)
        return family
