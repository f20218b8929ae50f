"""A job in full: what it does or why not, where, what happened; pure functions of its objects."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from drakkar.cli import progress
from drakkar.cli.show import age, duration, line_of, ordinal, table
from drakkar.constants import LABEL_REPLICA
from drakkar.v1alpha1 import TrainingJob
from drakkar.v1alpha1.trainingjob import Restart

Object = dict[str, Any]


def report(
    job: TrainingJob, pods: list[Object], events: list[Object], now: datetime | None = None
) -> RenderableType:
    """Everything about a job, the reason why it waits or failed in front."""
    return Group(*_parts(job, pods, events, now or datetime.now(UTC)))


def _parts(
    job: TrainingJob, pods: list[Object], events: list[Object], now: datetime
) -> Iterator[RenderableType]:
    status, spec = job.status, job.spec
    phase = status.phase or "Pending"
    head = Text.assemble(
        (f"{job.namespace}/{job.name}", "bold"), "  ", (phase, progress.STYLES.get(phase, ""))
    )
    yield head
    if text := progress.reason(job):
        yield Text(text, style="yellow")
    yield Text("")
    yield table(("", ""), _facts(job, now))
    if status.placement:
        yield from section("Placement")
        yield Text(f"{status.placement.level} {status.placement.domain}")
        yield table(("replica", "ranks", "node", "pod", "state"), _replicas(job, pods))
    elif pods:
        yield from section("Pods")
        yield table(("replica", "ranks", "node", "pod", "state"), _replicas(job, pods))
    if status.conditions:
        yield from section("Conditions")
        yield table(
            ("type", "status", "reason", "since", "message"),
            [
                (
                    item.type,
                    item.status,
                    item.reason,
                    age(item.last_transition_time, now),
                    item.message,
                )
                for item in status.conditions
            ],
        )
    if status.restarts:
        yield from section(
            f"Restarts ({status.restart_count} of {spec.fault_tolerance.max_restarts} counted)"
        )
        yield table(
            ("age", "what"),
            [row for item in status.restarts for row in _restart(item, now)],
        )
    if status.checkpoints:
        yield from section("Checkpoints")
        yield table(
            ("step", "age", "path"),
            [(str(item.step), age(item.time, now), item.path) for item in status.checkpoints],
        )
    if status.progress and status.progress.sample:
        yield from section("Sample")
        yield Text(status.progress.sample)
    if events:
        yield from section("Events")
        yield events_table(events, now)


def section(title: str) -> Iterator[RenderableType]:
    """A line of distance and a heading."""
    yield Text("")
    yield Text(title, style="bold")


def _facts(job: TrainingJob, now: datetime) -> Iterator[tuple[str, str]]:
    spec, status = job.spec, job.status
    if status.progress:
        yield "Progress", progress.speed(status.progress)
    if status.goodput:
        yield "Goodput", progress.goodput_line(status.goodput)
    for line in status.stragglers:
        yield "Straggler", line
    each = spec.processes_per_replica
    ranks = f", {job.replicas * each} ranks" if each > 1 else ""
    yield "Replicas", f"{status.ready_replicas or 0} of {job.replicas} ready{ranks}"
    if spec.elastic:
        yield "Elastic", f"{spec.elastic.min} to {spec.elastic.max} replicas"
    for role in spec.roles:
        own = role.accelerators
        with_ = f" with {own.count} x {own.resource} each" if own else ""
        yield f"Role {role.name}", f"{role.replicas} replicas{with_}"
    if spec.recipe:
        yield "Recipe", spec.recipe.name
    if spec.image:
        yield "Image", spec.image
    if spec.accelerators:
        devices = spec.accelerators
        yield "Accelerators", f"{devices.count} x {devices.resource} each"
    for kind, amounts in (spec.resources or {}).items():
        yield kind.capitalize(), ", ".join(f"{name} {value}" for name, value in amounts.items())
    if spec.queue:
        yield "Queue", spec.queue
    if status.queue_position:
        yield "Position", f"{ordinal(status.queue_position)} in {line_of(spec.queue)}"
    if status.expected_start:
        left = (status.expected_start - now).total_seconds()
        when = f"in about {duration(left)}" if left > 0 else "at any moment"
        yield "Room expected", f"{when}, if no other job takes it"
    if spec.priority_class_name:
        yield "Priority class", spec.priority_class_name
    wish = spec.topology
    if wish.required or wish.preferred:
        word = "required" if wish.required else "preferred"
        yield "Topology", f"{wish.required or wish.preferred} {word}"
    if wish.groups:
        yield (
            "Groups",
            ", ".join(f"{each.size} replicas in one {each.level}" for each in wish.groups),
        )
    if storage := spec.checkpoint.storage:
        if claim := storage.persistent_volume_claim:
            where = f"claim {claim.claim_name}, folder {claim.sub_path or job.name}"
        else:
            where = storage.object_store.url if storage.object_store else "?"
        yield (
            "Checkpoints",
            f"every {spec.checkpoint.every_steps} steps to {where}, {spec.checkpoint.keep} kept",
        )
    for word, moment in (
        ("Created", job.metadata.creation_timestamp),
        ("Started", status.start_time),
        ("Finished", status.completion_time),
    ):
        if moment:
            yield word, f"{age(moment, now)} ago"


def _restart(restart: Restart, now: datetime) -> Iterator[tuple[str, str]]:
    """What happened, and below it what shows it."""
    yield age(restart.time, now), progress.restart_line(restart)
    for line in restart.evidence:
        yield "", f"  {line}"


def _replicas(job: TrainingJob, pods: list[Object]) -> Iterator[tuple[str, ...]]:
    found = {int(pod["metadata"]["labels"].get(LABEL_REPLICA, -1)): pod for pod in pods}
    planned = list(job.status.placement.nodes) if job.status.placement else []
    each = job.spec.processes_per_replica
    for index in range(max(len(planned), max(found, default=-1) + 1)):
        pod = found.get(index)
        node = planned[index] if index < len(planned) else ""
        ranks = f"{index * each}-{index * each + each - 1}" if each > 1 else str(index)
        name, state = (pod["metadata"]["name"], pod_state(pod)) if pod else ("", "no pod")
        actual = pod["spec"].get("nodeName") if pod else None
        yield str(index), ranks, str(actual or node), name, state


def pod_state(pod: Object) -> str:
    """One word on a pod, as kubectl has it: Running, ContainerCreating, Terminating, ..."""
    if pod["metadata"].get("deletionTimestamp"):
        return "Terminating"
    status = pod.get("status", {})
    for container in status.get("containerStatuses") or ():
        for state in ("waiting", "terminated"):
            if why := container.get("state", {}).get(state, {}).get("reason"):
                return str(why)
    return str(status.get("reason") or status.get("phase") or "Unknown")


def events_table(events: list[Object], now: datetime) -> RenderableType:
    """What happened, as Kubernetes was told."""
    return table(("age", "type", "reason", "object", "message"), _events(events, now))


def _events(events: list[Object], now: datetime) -> Iterator[tuple[str, ...]]:
    for event in events:
        about = event.get("involvedObject", {})
        moment = (
            event.get("lastTimestamp")
            or event.get("eventTime")
            or event["metadata"].get("creationTimestamp")
        )
        count = event.get("count") or event.get("series", {}).get("count") or 1
        times = f" (x{count})" if count > 1 else ""
        yield (
            age(moment, now),
            str(event.get("type", "")),
            str(event.get("reason", "")) + times,
            f"{about.get('kind', '')}/{about.get('name', '')}".lower(),
            str(event.get("message", "")).strip(),
        )
