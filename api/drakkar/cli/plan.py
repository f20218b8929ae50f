"""``drakkar plan FILE``: what would happen to its jobs if they were submitted now."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from drakkar.cli import manifests
from drakkar.cli.progress import spots
from drakkar.cli.session import (
    OPERATOR,
    ContextName,
    Kubeconfig,
    Namespace,
    OperatorName,
    command,
    connect,
    console,
    errors,
    fail,
    service_of,
)
from drakkar.cli.show import duration, line_of, ordinal
from drakkar.planning import MOST_JOBS, PLAN_PORT, JobPlan, PlanAnswer, PlanRequest

_HEADS = {
    "starts": ("would start now", "bold green"),
    "waits": ("would wait", "bold yellow"),
    "fails": ("would fail", "bold red"),
    "suspended": ("is suspended: it asks for nothing", "magenta"),
    "runs": ("runs already", "green"),
    "ended": ("has ended already: delete it to run it again", "bold yellow"),
}


class Output(StrEnum):
    """Forms of output."""

    JSON = "json"


@command
def plan(
    file: Annotated[str, typer.Argument(metavar="FILE", help="YAML manifests, or - for stdin.")],
    output: Annotated[
        Output | None, typer.Option("--output", "-o", help="json: for programs.")
    ] = None,
    operator: OperatorName = OPERATOR,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
    context: ContextName = None,
) -> None:
    """Show where the jobs of FILE would run, or what they would wait for; change nothing.

    The operator answers by the code that would decide it, on what it sees of the cluster now.
    """
    objects = manifests.read_valid(file)
    jobs = [item for item in objects if item["kind"] == "TrainingJob"]
    if not jobs:
        raise fail(f"{file} holds no TrainingJob: there is nothing to plan")
    if len(jobs) > MOST_JOBS:
        raise fail(f"{file} holds {len(jobs)} jobs; {MOST_JOBS} can be planned at once")
    if (others := len(objects) - len(jobs)) and output is None:
        errors.print(f"{others} other objects of {file} are left out of account", style="dim")
    name, where = service_of(operator)
    client = connect(namespace, kubeconfig, context)
    # As the API server would store them: with defaults, and after admission.
    stored = [client.apply(item, namespace, dry_run=True) for item in jobs]
    raw = client.service(
        name, where, PLAN_PORT, "/plan", method="POST", body=PlanRequest(jobs=stored).wire()
    )
    if output is Output.JSON:
        print(json.dumps(raw, indent=2))
        return
    console.print(report(PlanAnswer.model_validate(raw), datetime.now(UTC)))


def report(answer: PlanAnswer, now: datetime) -> RenderableType:
    """The answer for people."""
    parts = [part for job in answer.jobs for part in _job(job, now)]
    if answer.held_up:
        parts.append(Text(f"held up by this: {', '.join(answer.held_up)}", style="yellow"))
    return Group(*parts)


def _job(job: JobPlan, now: datetime) -> Iterator[RenderableType]:
    words, style = _HEADS[job.outcome]
    head = Text.assemble((f"{job.namespace}/{job.name}", "bold"), "  ", (words, style))
    if job.outcome == "waits" and job.position:
        head.append(f", {ordinal(job.position)} in {line_of(job.queue)}")
    if job.placement:
        head.append(f" in {job.placement.level} {job.placement.domain}")
    yield head
    if job.placement:
        yield from (
            Text(f"  {node}: replicas {replicas}") for node, replicas in spots(job.placement)
        )
    if job.reason:
        yield Text(f"  {job.reason}")
    if job.expected_start:
        left = (job.expected_start - now).total_seconds()
        when = f"in about {duration(left)}" if left > 0 else "at any moment"
        yield Text(f"  room is expected {when}, if no other job takes it")
    for item in job.evictions:
        yield Text(f"  {item.namespace}/{item.name} would be stopped: {item.message}", "yellow")
