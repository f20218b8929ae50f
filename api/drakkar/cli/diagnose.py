"""drakkar diagnose: gather what the cluster says of a job or service, and tell what is wrong."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.text import Text

from drakkar.cli.session import ContextName, Kubeconfig, Namespace, command, connect, console
from drakkar.client import Client, InvalidError, NotFoundError
from drakkar.constants import LABEL_SERVICE
from drakkar.diagnose import Facts, Finding, diagnose

Object = dict[str, Any]
LOG_LINES = 200
"""Of each container that are looked through."""
MOST_PODS = 64
"""Logs of so many pods are read."""


def gather(client: Client, name: str) -> Facts:
    """All about the TrainingJob of this name or, if there is none, the InferenceService."""
    try:
        subject = client.training_jobs.get_raw(name)
        pods = client.pods(name)
    except NotFoundError:
        try:
            subject = client.inference_services.get_raw(name)
        except NotFoundError:
            raise NotFoundError(
                f"There is no TrainingJob and no InferenceService {client.namespace}/{name}.",
                code=404,
            ) from None
        pods = client.pods(name, label=LABEL_SERVICE)
    names = {pod["metadata"]["name"] for pod in pods}
    about = {(subject["kind"], name), *(("Pod", pod) for pod in names)}
    events = [
        event
        for event in client.events()
        if (event["involvedObject"].get("kind"), event["involvedObject"].get("name")) in about
    ]
    logs = {pod["metadata"]["name"]: _log(client, pod) for pod in pods[:MOST_PODS]}
    return Facts(subject, pods, events, logs)


def _log(client: Client, pod: Object) -> list[str]:
    """Last lines of its containers, of those that ended before first."""
    found: list[str] = []
    for each in (pod.get("status") or {}).get("containerStatuses") or ():
        times = (("true",) if each.get("restartCount") else ()) + ("false",)
        for previous in times:
            query = {"container": each["name"], "tailLines": str(LOG_LINES), "previous": previous}
            try:
                found += client.log_lines(pod["metadata"]["name"], **query)
            except (InvalidError, NotFoundError):
                # It has not started yet, or has just gone.
                continue
    return found


def report(facts: Facts, findings: Sequence[Finding]) -> Text:
    """What was found, with its evidence, and what was looked at."""
    text = Text()
    for index, finding in enumerate(findings, 1):
        text.append(f"{index}. {finding.cause}\n", style="bold")
        for line in finding.evidence:
            text.append(f"   {line}\n", style="dim")
        text.append(f"   -> {finding.advice}\n")
    lines = sum(map(len, facts.logs.values()))
    looked = (
        f"Looked at the status with {len(facts.restarts)} restarts, {len(facts.pods)} pods, "
        f"{len(facts.events)} events and {lines} lines of logs."
    )
    if not findings:
        text.append("Nothing that is known to go wrong was found.\n")
    text.append(looked, style="dim")
    return text


@command
def run(
    name: Annotated[str, typer.Argument(help="A TrainingJob or an InferenceService.")],
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
    context: ContextName = None,
) -> None:
    """Say what is wrong with a job or service, how that shows, and what to do."""
    facts = gather(connect(namespace, kubeconfig, context), name)
    meta, kind = facts.subject["metadata"], facts.subject["kind"]
    console.print(escape(f"{kind} {meta['namespace']}/{meta['name']}"), style="bold")
    nodes = sorted({pod["spec"]["nodeName"] for pod in facts.pods if pod["spec"].get("nodeName")})
    if nodes:
        console.print(escape(f"on {', '.join(nodes)}"))
    console.print(report(facts, diagnose(facts)))
