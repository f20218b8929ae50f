"""The metrics of all components, told by their own classes, of a small cluster at work.

Each look is a moment later than the one before: counters grow, times pass.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric

from drakkar.protocol import LedgerState
from drakkar.routing import LATENCY_BOUNDS, TPOT_BOUNDS, EndpointStats, RevisionStats, RouterStats
from drakkar.routing import Histogram as Counts
from drakkar.v1alpha1.trainingjob import TrainingJobSpec, TrainingJobStatus
from drakkar_gpu.cluster import Api
from drakkar_gpu.devices.base import Device, Fault, Sample, Severity
from drakkar_gpu.exporter import METRICS, Exporter, Reading
from drakkar_gpu.health import Health
from drakkar_gpu.jobs import Use
from drakkar_operator.fleet import Fleet, FleetCollector
from drakkar_operator.metrics import Metrics as OperatorMetrics
from drakkar_operator.model import JobView, NodeView, PodView
from drakkar_operator.scheduling.usage import QueueUse
from drakkar_operator.scheduling.usage import Use as Amounts
from drakkar_server.metrics import Metrics as WebMetrics
from drakkar_workers.agent.metrics import Figures
from drakkar_workers.agent.metrics import registry as agent_registry
from drakkar_workers.channel import StepMessage
from drakkar_workers.serve.engine.engine import Stats
from drakkar_workers.serve.engine.wire import Ready
from drakkar_workers.serve.router.metrics import RouterCollector
from drakkar_workers.serve.server.metrics import Metrics as ServerMetrics

GPU = "nvidia.com/gpu"
SAMPLE_LABELS = {"clock": "sm", "kind": "uncorrected", "reason": "thermal"}


@dataclass
class Component:
    """One process that Prometheus scrapes."""

    name: str
    registry: CollectorRegistry
    step: Callable[[], None]
    """A moment passes."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """What the chart's monitors add to each series."""


def components() -> list[Component]:
    """One of each kind."""
    return [_operator(), _agent(), _devices(), _server(), _router(), _web()]


def _operator() -> Component:
    metrics = OperatorMetrics()
    metrics.registry.register(FleetCollector(fleet))
    metrics.leader.set(1)
    metrics.queue_depth.set(2)

    def step() -> None:
        metrics.reconciles.labels("ok").inc()
        metrics.reconcile_seconds.observe(0.004)
        for verb, code in (("GET", 200), ("PATCH", 200), ("WATCH", 200), ("POST", 0)):
            metrics.observe_request(verb, code, 0.01)
        metrics.relists.labels("pods").inc()
        metrics.watches.labels("pods").inc()
        metrics.scheduling_seconds.observe(0.002)
        for outcome in ("placed", "unplaced", "evicted"):
            metrics.decisions.labels(outcome).inc()
        metrics.queue_wait.labels("research").observe(70)
        metrics.restarts.labels("pod", "NodeLost").inc()
        metrics.pods_created.inc()
        metrics.pods_deleted.inc()
        metrics.reports.labels("ok").inc()
        metrics.events_dropped.inc()

    return Component("operator", metrics.registry, step)


def fleet() -> Fleet:
    """Two racks of two nodes, a job that runs there and one that waits."""
    status = {
        "phase": "Running",
        "startTime": "2026-01-01T00:00:00Z",
        "placement": {"level": "rack", "domain": "r0", "nodes": ["n0", "n1"]},
        "goodput": {
            "ratio": 0.8,
            "wallSeconds": 100,
            "productiveSeconds": 80,
            "queueSeconds": 20,
            "booksSince": 0,
            "earlier": {},
        },
        "checkpoints": [{"step": 50, "path": "gpt/50", "time": "2026-01-01T01:00:00Z"}],
        "stragglers": ["rank 3 takes 1.4 times the median"],
        "restarts": [
            {
                "id": "1",
                "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "scope": "pod",
                "reason": "NodeLost",
                "node": "n3",
            }
        ],
    }
    storage = {"persistentVolumeClaim": {"claimName": "runs"}}
    spec = {"queue": "research", "checkpoint": {"storage": storage}}
    jobs = [
        JobView(
            *("ml", "gpt", "u1", 1, time.time() - 100),
            spec=TrainingJobSpec.model_validate(spec),
            status=TrainingJobStatus.model_validate(status),
        ),
        JobView(
            *("ml", "next", "u2", 1, time.time() - 50),
            spec=TrainingJobSpec.model_validate({"queue": "research"}),
            status=TrainingJobStatus(),
        ),
    ]
    use = QueueUse(Amounts({GPU: 16}, {GPU: 4}, {GPU: 2}), {}, 1, 1, 0.5, 0.6, None)
    return Fleet(
        now=time.time(),
        jobs=jobs,
        nodes=[
            NodeView(
                f"n{index}",
                {"topology.drakkar.dev/rack": f"r{index // 2}"},
                {GPU: 8, "cpu": 64_000},
            )
            for index in range(4)
        ],
        pods=[PodView("ml", f"gpt-{i}", f"p{i}", f"n{i}", "Running", {GPU: 8}) for i in (0, 1)],
        queues={"research": use},
        quotas={"research": {GPU: 12}},
        levels=(("rack", "topology.drakkar.dev/rack"), ("host", "kubernetes.io/hostname")),
        unusable=4.0,
    )


def _agent() -> Component:
    steps = 0

    def message(rank: int) -> StepMessage:
        return StepMessage(
            rank=rank,
            step=steps,
            total_steps=1000,
            loss=5.0,
            tokens_per_second=1e5,
            mfu=0.4,
            step_seconds=1.0 + rank / 10,
        )

    def figures() -> Figures:
        return Figures(
            epoch=1 + steps // 2,
            starts=steps,
            processes=2,
            ready=True,
            coordinator_silence=0.1,
            steps={rank: message(rank) for rank in (0, 1)},
            eval_loss=5.1,
            exits={"failed": steps},
            restarts={"ProcessCrashed": steps},
            longest_silence=0.2,
            goodput=0.8,
            seconds=LedgerState(since=0, at=100, productive_seconds=80, start_seconds=20),
            memory_bytes=1 << 30,
            copied_bytes=steps << 20,
        )

    def step() -> None:
        nonlocal steps
        steps += 1

    labels = {"namespace": "ml", "job": "gpt", "pod": "gpt-0", "replica": "0", "queue": "research"}
    return Component("agent", agent_registry(figures), step, labels)


def _devices() -> Component:
    count = 0.0
    device = Device("GPU-0", 0, "NVIDIA H100 80GB HBM3", 80 << 30)
    broken = Device("GPU-1", 1, "NVIDIA H100 80GB HBM3", 80 << 30)
    fault = Fault("GPU-1", "xid-79", Severity.FATAL, "GPU has fallen off the bus")
    use = Use("ml", "gpt-0", "trainer", "gpt", "research", "0", "0")

    class AsRead(Exporter):
        """An exporter that has read what there is."""

        def collect(self) -> Iterable[Metric]:
            samples = [
                Sample(device.id, name, count, {label: SAMPLE_LABELS[label] for label in labels})
                for name, (_, labels) in METRICS.items()
            ]
            health = Health(devices=(device, broken), faults={broken.id: fault})
            self._readings = [Reading("nvidia", health, samples, {device.id: use}, True)]
            self._read_at = self._clock() - 1
            return super().collect()

    def step() -> None:
        nonlocal count
        count += 1

    registry = CollectorRegistry()
    api = Api(httpx.AsyncClient())
    registry.register(AsRead("n0", [], api=api, pod_resources=Path("none"), driver="gpu"))
    return Component("devices", registry, step)


def _service(pod: str) -> dict[str, str]:
    return {"namespace": "ml", "pod": pod, "service": "chat"}


def _server() -> Component:
    count = 0

    def stats() -> Stats:
        return Stats(
            running=3,
            waiting=1,
            cache_usage=0.5,
            steps=count,
            prefix_queries=10 * count,
            prefix_hits=4 * count,
            preemptions=count,
            drafted=5 * count,
            accepted=3 * count,
            running_adapters=["sql"],
            waiting_adapters=[],
        )

    ready = Ready(
        max_length=2048,
        vocab=49152,
        blocks=512,
        block_size=16,
        backend="native",
        dtype="bfloat16",
        load_seconds=1.0,
    )
    metrics = ServerMetrics("smollm", stats, lambda: ready, 4)

    def step() -> None:
        nonlocal count
        count += 1
        for timed in (metrics.first_token, metrics.between, metrics.whole):
            timed.observe(0.2)
        for timed in (metrics.queue, metrics.prefill, metrics.decode):
            timed.observe(0.05)
        metrics.prompt_size.observe(100)
        metrics.output_size.observe(20)
        metrics.prompt.inc(100)
        metrics.generated.inc(20)
        metrics.ended("stop")
        metrics.refused(429)

    return Component("server", metrics.registry, step, _service("chat-0"))


def _router() -> Component:
    count = 0

    def counts(bounds: tuple[float, ...]) -> Counts:
        return Counts(counts=[count] * (len(bounds) + 1), sum=count)

    def stats() -> RouterStats:
        revision = RevisionStats(
            name="chat-1",
            requests=10 * count,
            errors={"server": count},
            cancelled=count,
            ttft=counts(LATENCY_BOUNDS),
            tpot=counts(TPOT_BOUNDS),
            latency=counts(LATENCY_BOUNDS),
            prompt_tokens=count,
            generation_tokens=count,
        )
        return RouterStats(
            uid="u",
            instance="i",
            version=count,
            table_version=1,
            in_flight=2,
            held=1,
            retries=count,
            revisions=[revision],
            endpoints=[EndpointStats(name="chat-0", in_flight=2)],
            refused={"queue_full": count},
        )

    def step() -> None:
        nonlocal count
        count += 1

    registry = CollectorRegistry()
    registry.register(RouterCollector(stats))
    return Component("router", registry, step, _service("chat-router-0"))


def _web() -> Component:
    metrics = WebMetrics()
    metrics.streams.set(3)
    metrics.history_up.set(1)
    metrics.history_waiting.set(5)

    def step() -> None:
        metrics.requests.labels("/api/v1/jobs", "200").inc()
        metrics.request_seconds.labels("/api/v1/jobs").observe(0.01)
        metrics.observe_request("GET", 200, 0.01)
        metrics.relists.labels("pods").inc()
        metrics.watches.labels("pods").inc()
        metrics.rows.labels("points").inc()
        metrics.history_lost.inc()

    return Component("web", metrics.registry, step)
