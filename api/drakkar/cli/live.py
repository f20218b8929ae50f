"""``drakkar events``, ``top`` and ``queue``: what happens now, in tables or for programs."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

import typer
import yaml

from drakkar.cli import show
from drakkar.cli.session import (
    ContextName,
    Kubeconfig,
    Namespace,
    command,
    connect,
    console,
)
from drakkar.v1alpha1 import Queue, TrainingJob

Everywhere = Annotated[bool, typer.Option("--all-namespaces", "-A")]


class Output(StrEnum):
    """Forms of output."""

    JSON = "json"
    YAML = "yaml"


OutputOption = Annotated[Output | None, typer.Option("--output", "-o", help="For programs.")]


def write(
    records: Sequence[dict[str, Any]], headers: dict[str, str], output: Output | None, empty: str
) -> None:
    """Print records, as a table of the named fields unless a program asks.

    headers: field -> heading; a field that is None shows as '-'.
    """
    if output is Output.JSON:
        print(json.dumps(records, indent=2))
    elif output is Output.YAML:
        print(yaml.safe_dump(list(records), sort_keys=False, allow_unicode=True), end="")
    elif not records:
        console.print(empty, style="dim")
    else:
        lines = [[_cell(record.get(field)) for field in headers] for record in records]
        console.print(show.table(list(headers.values()), lines))


def _cell(value: Any) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, dict):
        return ",".join(f"{key.rsplit('/', 1)[-1]}={part}" for key, part in value.items()) or "-"
    return show.number(value) if isinstance(value, float) else str(value)


@command
def events(
    job: Annotated[str | None, typer.Argument(metavar="[JOB]", help="Only of this job.")] = None,
    output: OutputOption = None,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
    context: ContextName = None,
) -> None:
    """Show what the operator told of jobs, oldest first."""
    client = connect(namespace, kubeconfig, context)
    fields = {"involvedObject__kind": "TrainingJob"}
    if job:
        fields["involvedObject__name"] = job
    now = datetime.now(UTC)
    records = [
        {
            "age": show.age(_time(event), now),
            "time": _time(event),
            "type": event.get("type"),
            "job": event["involvedObject"].get("name"),
            "reason": event.get("reason"),
            "message": event.get("message"),
        }
        for event in client.events(**fields)
    ]
    headers = {"age": "AGE", "type": "TYPE", "job": "JOB", "reason": "REASON", "message": "MESSAGE"}
    write(records, headers, output, "There are no events; Kubernetes keeps them for an hour.")


def _time(event: dict[str, Any]) -> str:
    series = event.get("series") or {}
    times = (
        event.get("lastTimestamp"),
        series.get("lastObservedTime"),
        event.get("eventTime"),
        event["metadata"].get("creationTimestamp"),
    )
    return str(next(filter(None, times), ""))


@command
def top(
    everywhere: Everywhere = False,
    output: OutputOption = None,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
    context: ContextName = None,
) -> None:
    """Show the jobs that hold a place: what they take and how they get on, largest first."""
    client = connect(namespace, kubeconfig, context)
    jobs = client.training_jobs.list(all_namespaces=everywhere)
    records = [_line(job) for job in jobs if job.status.placement and not _ended(job)]
    records.sort(key=lambda record: (-record["devices"], -record["replicas"], record["job"]))
    headers = {
        "namespace": "NAMESPACE", "job": "JOB", "phase": "PHASE", "replicas": "REPLICAS",
        "devices": "DEVICES", "nodes": "NODES", "step": "STEP", "tokensPerSecond": "TOKENS/S",
        "goodput": "GOODPUT", "restarts": "RESTARTS",
    }  # fmt: skip
    write(records, headers, output, "No job holds a place.")


def _ended(job: TrainingJob) -> bool:
    return job.is_true("Complete") or job.is_true("Failed")


def _line(job: TrainingJob) -> dict[str, Any]:
    spec, status, progress = job.spec, job.status, job.status.progress
    if spec.roles:
        devices = sum(r.replicas * r.accelerators.count for r in spec.roles if r.accelerators)
    else:
        devices = job.replicas * (spec.accelerators.count if spec.accelerators else 0)
    return {
        "namespace": job.namespace,
        "job": job.name,
        "phase": status.phase,
        "replicas": job.replicas,
        "devices": devices,
        "nodes": len(set(status.placement.nodes)) if status.placement else 0,
        "step": progress.step if progress else None,
        "tokensPerSecond": progress.tokens_per_second if progress else None,
        "goodput": status.goodput.ratio if status.goodput else None,
        "restarts": status.restart_count,
    }


@command
def queue(
    name: Annotated[str | None, typer.Argument(metavar="[QUEUE]", help="Who is in it.")] = None,
    output: OutputOption = None,
    kubeconfig: Kubeconfig = None,
    context: ContextName = None,
) -> None:
    """Show the queues with their books or, with a name, the jobs of one in their order."""
    client = connect(None, kubeconfig, context)
    if name is None:
        headers = {
            "queue": "QUEUE", "quota": "QUOTA", "used": "USED", "borrowed": "BORROWED",
            "admitted": "ADMITTED", "pending": "PENDING", "share": "SHARE", "fairShare": "FAIR",
        }  # fmt: skip
        write(
            [_books(item) for item in client.queues.list()], headers, output, "There are no queues."
        )
        return
    client.queues.get(name)
    jobs = [
        job
        for job in client.training_jobs.list(all_namespaces=True)
        if job.spec.queue == name and not _ended(job)
    ]
    jobs.sort(
        key=lambda job: (job.status.placement is None, job.status.queue_position or 0, job.name)
    )
    records = [
        {
            "namespace": job.namespace,
            "job": job.name,
            "phase": job.status.phase or "Pending",
            "position": job.status.queue_position,
            "reason": job.status.pending_reason,
        }
        for job in jobs
    ]
    headers = {
        "namespace": "NAMESPACE", "job": "JOB", "phase": "PHASE", "position": "POSITION",
        "reason": "REASON",
    }  # fmt: skip
    write(records, headers, output, f"No job is in queue {name}.")


def _books(item: Queue) -> dict[str, Any]:
    status = item.status
    return {
        "queue": item.name,
        "quota": item.spec.wire().get("quota", {}),
        "used": status.used,
        "borrowed": status.borrowed,
        "admitted": status.admitted,
        "pending": status.pending,
        "share": status.share,
        "fairShare": status.fair_share,
    }
