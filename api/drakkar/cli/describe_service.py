"""A service in full: what answers or why not, where, what happened; pure functions of its objects."""

from collections.abc import Iterator
from datetime import UTC, datetime

from rich.console import Group, RenderableType
from rich.text import Text

from drakkar.cli.describe import Object, events_table, pod_state, section
from drakkar.cli.show import age, table
from drakkar.constants import LABEL_MEMBER
from drakkar.v1alpha1 import InferenceService


def report(
    service: InferenceService,
    pods: list[Object],
    events: list[Object],
    now: datetime | None = None,
) -> RenderableType:
    """Everything about a service, the reason why it does not answer in front."""
    return Group(*_parts(service, pods, events, now or datetime.now(UTC)))


def _parts(
    service: InferenceService, pods: list[Object], events: list[Object], now: datetime
) -> Iterator[RenderableType]:
    status = service.status
    ready, stalled = service.condition("Ready"), service.condition("Stalled")
    up = ready is not None and ready.status == "True"
    yield Text.assemble(
        (f"{service.namespace}/{service.name}", "bold"),
        "  ",
        ("Ready", "green") if up else ("Not ready", "yellow"),
    )
    for condition in (stalled, ready):
        wanted = "True" if condition is stalled else "False"
        if condition is not None and condition.status == wanted and condition.message:
            yield Text(condition.message, style="yellow")
    yield Text("")
    yield table(("", ""), _facts(service, now))
    if status.traffic:
        yield from section("Traffic")
        yield table(
            ("revision", "percent", "ready", "replicas"),
            [
                (one.revision, str(one.weight), str(one.ready_replicas), str(one.replicas))
                for one in status.traffic
            ],
        )
    if status.members:
        yield from section("Replicas")
        yield table(
            ("replica", "state", "since", "revision", "nodes", "pods"),
            list(_members(service, pods, now)),
        )
    if status.restarts:
        yield from section(f"Restarts ({status.restart_count} in all)")
        yield table(("age", "what"), [(age(r.time, now), r.message) for r in status.restarts])
    if events:
        yield from section("Events")
        yield events_table(events, now)


def _facts(service: InferenceService, now: datetime) -> Iterator[tuple[str, str]]:
    spec, status = service.spec, service.status
    if status.url:
        yield "URL", status.url
    yield "Model", spec.model.name or service.name
    yield "Runtime", spec.runtime.name
    yield "Replicas", f"{status.ready_replicas or 0} of {status.desired_replicas or 0} ready"
    if spec.scaling:
        yield "Scaling", f"{spec.scaling.min} to {spec.scaling.max} by {spec.scaling.metric}"
    if status.canary:
        said = f": {status.canary.message}" if status.canary.message else ""
        yield "Canary", f"{status.canary.revision} {status.canary.state}{said}"
    if spec.queue:
        yield "Queue", spec.queue
    if service.metadata.creation_timestamp:
        yield "Created", f"{age(service.metadata.creation_timestamp, now)} ago"


def _members(
    service: InferenceService, pods: list[Object], now: datetime
) -> Iterator[tuple[str, ...]]:
    for member in service.status.members:
        own = [p for p in pods if p["metadata"]["labels"].get(LABEL_MEMBER) == member.name]
        where = ", ".join(member.placement.nodes) if member.placement else member.pending_reason
        shown = ", ".join(f"{pod['metadata']['name']} {pod_state(pod)}" for pod in own)
        yield (
            member.name,
            member.state,
            age(member.since, now),
            member.revision,
            where or "",
            shown or "no pod",
        )
