"""What the operator tells Prometheus about the jobs, queues and nodes that it looks after.

Gathered at the scrape from what is in memory, so that nothing is kept twice. Ended jobs have no
series. Nodes are named only while something is wrong with them.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from drakkar_operator.model import JobView, NodeView, PodView
from drakkar_operator.reconcile import conditions as cond
from drakkar_operator.scheduling.usage import QueueUse

PHASES = ("Pending", "Starting", "Running", "Recovering", "Suspended", "Complete", "Failed")
BOOKS = ("productive", "queue", "start", "compile", "checkpoint", "lost", "recovery", "other")
NO_QUEUE = "none"
"""Label of jobs that name no queue."""
BLAME_SECONDS = 3600.0
"""A restart that names a node speaks against it so long."""
CAUSES = frozenset(
    {
        # Of the reconciler and the scheduler.
        *("DeviceFault", "NodeLost", "PodDeleted", "PodEvicted", "PodFailed", "Refused"),
        *("Moved", "Preempted", "Reclaimed"),
        # Of agents.
        *("DeviceOutOfMemory", "ForkServerLost", "OOMKilled", "PeerLost", "PodLost"),
        *("ProcessCrashed", "ProcessHung", "ProcessKilled", "ProcessLeft", "ProcessStuck"),
        "SpawnFailed",
    }
)
"""Reasons of restarts that are labels; any other is the class of a script's own exception."""
OTHER = "Exception"


def cause(reason: str) -> str:
    """A restart's reason as one of few labels."""
    return reason if reason in CAUSES else OTHER


def fresh_restarts(old: JobView | None, new: JobView | None) -> list[tuple[str, str]]:
    """(scope, cause) of each restart that the newer state of a job tells and the older does not."""
    if old is None or new is None:
        return []
    known = {each.id for each in old.status.restarts}
    return [
        (each.scope, cause(each.reason)) for each in new.status.restarts if each.id not in known
    ]


@dataclass(frozen=True, slots=True)
class Fleet:
    """What is told about, as of now; times are seconds since the epoch."""

    now: float
    jobs: Collection[JobView]
    nodes: Collection[NodeView]
    pods: Collection[PodView]
    queues: Mapping[str, QueueUse]
    quotas: Mapping[str, Mapping[str, int]]
    """Queue -> resource -> amount."""
    levels: Sequence[tuple[str, str]]
    """(level, node label), widest first."""
    unusable: float
    """Free devices that the jobs which are asked for could not use."""


class FleetCollector(Collector):
    """Reads the fleet at the scrape; None: another process tells of it."""

    def __init__(self, fleet: Callable[[], Fleet | None]) -> None:
        self._fleet = fleet

    def describe(self) -> list[Metric]:
        """Names are not read when it is registered."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All families."""
        fleet = self._fleet()
        if fleet is None:
            return
        yield from _jobs(fleet)
        yield from _queues(fleet)
        yield from _nodes(fleet)
        yield from _room(fleet)


def waits_since(job: JobView) -> float:
    """Since when it is told that it waits; before that, since it was created."""
    admitted = cond.find(job.status.conditions, cond.ADMITTED)
    if admitted is None or admitted.status == "True":
        return job.created
    return admitted.last_transition_time.timestamp()


def _jobs(fleet: Fleet) -> Iterator[Metric]:
    names = ("namespace", "job")
    phases: Counter[str] = Counter(job.status.phase or "Pending" for job in fleet.jobs)
    yield _family(
        "drakkar_operator_trainingjobs",
        "TrainingJobs by phase.",
        ("phase",),
        (((phase,), phases[phase]) for phase in PHASES),
    )
    alive = [job for job in fleet.jobs if not cond.finished(job.status.conditions)]
    yield _family(
        "drakkar_job_info",
        "1 for each job that has not ended, with its phase and queue.",
        (*names, "phase", "queue"),
        (((*job.key, job.status.phase or "Pending", _queue(job)), 1) for job in alive),
    )
    yield _family(
        "drakkar_job_seconds",
        "Where the job's time went since it was created, the queue included.",
        (*names, "book"),
        (
            ((*job.key, book), getattr(job.status.goodput, f"{book}_seconds"))
            for job in alive
            if job.status.goodput
            for book in BOOKS
        ),
    )
    yield _family(
        "drakkar_job_stragglers",
        "Ranks that are slow by now.",
        names,
        ((job.key, len(job.status.stragglers)) for job in alive),
    )
    yield _family(
        "drakkar_job_safe_timestamp_seconds",
        "When the newest checkpoint on storage was published, or the job started if there is none.",
        names,
        ((job.key, at) for job in alive if (at := _safe(job)) is not None),
    )


def _safe(job: JobView) -> float | None:
    if job.spec.checkpoint.storage is None or job.status.start_time is None:
        return None
    moments = [job.status.start_time, *(each.time for each in job.status.checkpoints)]
    return max(moment.timestamp() for moment in moments)


def _queues(fleet: Fleet) -> Iterator[Metric]:
    oldest: dict[str, float] = {NO_QUEUE: 0.0, **dict.fromkeys(fleet.queues, 0.0)}
    for job in fleet.jobs:
        if waiting(job) and _queue(job) in oldest:
            wait = fleet.now - waits_since(job)
            oldest[_queue(job)] = max(oldest[_queue(job)], wait)
    yield _family(
        "drakkar_queue_oldest_wait_seconds",
        "Since when the job of this queue waits that has waited longest; 0: none waits.",
        ("queue",),
        (((queue,), seconds) for queue, seconds in oldest.items()),
    )
    found = fleet.queues.items()
    yield _family(
        "drakkar_queue_jobs",
        "Jobs of the queue and of those below it, by whether they hold a place.",
        ("queue", "state"),
        (
            ((name, state), count)
            for name, use in found
            for state, count in (("admitted", use.admitted), ("pending", use.pending))
        ),
    )
    yield _family(
        "drakkar_queue_share_ratio",
        "The queue's part of the cluster: of the resource of which it uses most.",
        ("queue",),
        (((name,), use.share) for name, use in found),
    )
    yield _family(
        "drakkar_queue_fair_share_ratio",
        "The part that its weight gives it among the queues that have jobs.",
        ("queue",),
        (((name,), use.fair_share) for name, use in found),
    )
    amounts = {
        "used": ("What the admitted jobs request.", {n: u.use.used for n, u in found}),
        "borrowed": ("What of it is above the quota.", {n: u.use.borrowed for n, u in found}),
        "lent": ("What of its quota other queues use.", {n: u.use.lent for n, u in found}),
        "quota": ("What the queue can count on.", fleet.quotas),
    }
    for name, (text, by_queue) in amounts.items():
        yield _family(
            f"drakkar_queue_{name}",
            f"{text} CPU in cores, memory in bytes, devices.",
            ("queue", "resource"),
            (
                ((queue, resource), in_units(resource, amount))
                for queue, each in by_queue.items()
                for resource, amount in each.items()
            ),
        )


def waiting(job: JobView) -> bool:
    """Whether it has no place and wants one."""
    ended = cond.finished(job.status.conditions)
    return job.status.placement is None and not ended and not job.spec.suspend


def _nodes(fleet: Fleet) -> Iterator[Metric]:
    states = Counter(_state(node) for node in fleet.nodes)
    yield _family(
        "drakkar_nodes",
        "Nodes by state; faulty: ready, but some device is not well.",
        ("state",),
        (((state,), states[state]) for state in ("ready", "faulty", "cordoned", "lost")),
    )
    blamed: Counter[str] = Counter()
    for job in fleet.jobs:
        for each in job.status.restarts:
            if each.node and each.counted and fleet.now - each.time.timestamp() < BLAME_SECONDS:
                blamed[each.node] += 1
    yield _family(
        "drakkar_node_blamed_restarts",
        "Counted restarts of the last hour whose cause was on this node, over all jobs.",
        ("node",),
        (((node,), count) for node, count in blamed.items()),
    )


def _state(node: NodeView) -> str:
    if not node.ready:
        return "lost"
    if node.unschedulable:
        return "cordoned"
    return "faulty" if node.faults else "ready"


def _room(fleet: Fleet) -> Iterator[Metric]:
    """Per domain of all levels but single nodes, and of the whole cluster."""
    usable = {node.name: node for node in fleet.nodes if node.ready and not node.unschedulable}
    free = {name: Counter(node.allocatable) for name, node in usable.items()}
    for pod in fleet.pods:
        if pod.node in free and not pod.finished:
            free[pod.node].subtract(pod.requests)
    room: dict[tuple[str, str, str], list[int]] = defaultdict(lambda: [0, 0])
    for name, node in usable.items():
        for level, domain in _domains(node, fleet.levels):
            for resource, amount in node.allocatable.items():
                if resource == "cpu" or "/" in resource:
                    cell = room[level, domain, resource]
                    cell[0] += max(0, free[name][resource])
                    cell[1] += amount
    labels = ("level", "domain", "resource")
    for index, (name, text) in enumerate(
        (("free", "no pod requests"), ("allocatable", "pods may request"))
    ):
        yield _family(
            f"drakkar_domain_{name}",
            f"What {text} of a domain's usable nodes: devices, CPU in cores.",
            labels,
            ((key, in_units(key[2], cell[index])) for key, cell in room.items()),
        )
    yield _family(
        "drakkar_cluster_unusable_devices",
        "Free devices that the jobs which were asked for of late could not use (expectation).",
        (),
        [((), fleet.unusable)],
    )


def _domains(node: NodeView, levels: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    yield "cluster", "cluster"
    path: list[str] = []
    for level, label in levels[:-1]:
        path.append(node.labels.get(label, ""))
        if path[-1]:
            yield level, "/".join(part for part in path if part)


def in_units(resource: str, amount: int) -> float:
    """An amount of the model in Prometheus' base units: millicores become cores."""
    return amount / 1000 if resource == "cpu" else float(amount)


def _queue(job: JobView) -> str:
    return job.spec.queue or NO_QUEUE


def _family(
    name: str,
    text: str,
    labels: Sequence[str],
    samples: Iterable[tuple[Sequence[str], float]],
) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family
