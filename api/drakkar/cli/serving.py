"""``drakkar serve`` and ``drakkar chat``: a service of a job's checkpoint, and a conversation with one."""

import json
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer
import yaml
from rich.markup import escape

from drakkar.cli.live import Output, OutputOption
from drakkar.cli.session import (
    ContextName,
    Kubeconfig,
    Namespace,
    command,
    connect,
    console,
    errors,
    fail,
)
from drakkar.client import Client
from drakkar.serve_job import NothingToServeError, service_of_job


@command
def serve(
    job: Annotated[str, typer.Argument(metavar="JOB", help="TrainingJob with checkpoints.")],
    name: Annotated[str | None, typer.Option(help="Of the service; the job's unless set.")] = None,
    step: Annotated[
        int | None, typer.Option(min=0, help="Checkpoint of this step; else the newest.")
    ] = None,
    replicas: Annotated[int, typer.Option(min=0, help="Replicas, without --max.")] = 1,
    fewest: Annotated[int, typer.Option("--min", min=0, help="Fewest replicas, with --max.")] = 1,
    most: Annotated[
        int | None, typer.Option("--max", min=1, help="Let the operator scale up to this.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Let the cluster judge it, but change nothing.")
    ] = False,
    output: OutputOption = None,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
    context: ContextName = None,
) -> None:
    """Make an InferenceService of a job's checkpoint; with --dry-run -o yaml only show it."""
    client = connect(namespace, kubeconfig, context)
    scaling = None if most is None else (fewest, most)
    try:
        manifest = service_of_job(
            client.training_jobs.get_raw(job), name=name, step=step, replicas=replicas, scaling=scaling
        )  # fmt: skip
    except NothingToServeError as error:
        raise fail(str(error)) from None
    made = client.create(manifest, dry_run=dry_run)
    if output is Output.JSON:
        print(json.dumps(manifest, indent=2))
    elif output is Output.YAML:
        print(yaml.safe_dump(manifest, sort_keys=False, allow_unicode=True), end="")
    elif dry_run:
        console.print(escape(f"InferenceService {made['metadata']['name']} would be accepted"))
    else:
        service = made["metadata"]["name"]
        console.print(escape(f"InferenceService {service} created"))
        console.print(escape(f"See it come up: drakkar get isvc {service} -w"), style="dim")


@command
def chat(
    service: Annotated[str, typer.Argument(metavar="SERVICE", help="An InferenceService.")],
    message: Annotated[
        str | None, typer.Option("--message", "-m", help="Ask this only; else a conversation.")
    ] = None,
    complete: Annotated[
        bool,
        typer.Option("--complete", help="Let the model go on with the text, without a template."),
    ] = False,
    max_tokens: Annotated[int, typer.Option(min=1, help="Of an answer.")] = 256,
    temperature: Annotated[float, typer.Option(min=0, max=2)] = 0.7,
    output: OutputOption = None,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
    context: ContextName = None,
) -> None:
    """Speak to a service by way of the API server; end a conversation with Ctrl-D."""
    client = connect(namespace, kubeconfig, context)
    found = client.inference_services.get(service)
    settings = {
        "model": found.spec.model.name or service,
        "max_tokens": max_tokens,
        "temperature": temperature,
    }
    turns: list[dict[str, str]] = []
    for text in _said() if message is None else iter([message]):
        turns = [] if complete else turns
        turns.append({"role": "user", "content": text})
        answer, usage = _ask(client, service, settings, turns, complete)
        turns.append({"role": "assistant", "content": answer})
        record = {"service": service, "answer": answer, "usage": usage}
        if output is Output.JSON:
            print(json.dumps(record))
        elif output is Output.YAML:
            print(yaml.safe_dump(record, sort_keys=False, allow_unicode=True), end="", flush=True)
        else:
            console.print(escape(answer))
            counts = (usage.get("prompt_tokens", "?"), usage.get("completion_tokens", "?"))
            errors.print(f"{counts[0]} tokens in, {counts[1]} out", style="dim")


def _said() -> Iterator[str]:
    """What the user writes, line by line."""
    asks = sys.stdin.isatty()
    while True:
        if asks:
            errors.print("[bold]you>[/] ", end="")
        line = sys.stdin.readline()
        if not line:
            return
        if line.strip():
            yield line.strip()


def _ask(
    client: Client,
    service: str,
    settings: dict[str, Any],
    turns: list[dict[str, str]],
    complete: bool,
) -> tuple[str, dict[str, Any]]:
    """(answer, usage). Raises ClientError."""
    path = "/v1/completions" if complete else "/v1/chat/completions"
    asked = {"prompt": turns[-1]["content"]} if complete else {"messages": turns}
    raw = client.ask_service(service, path, {**settings, **asked})
    try:
        (choice,) = raw["choices"]
        text = choice["text"] if complete else choice["message"]["content"]
    except (KeyError, TypeError, ValueError):
        raise fail(
            f"service {service} answered something that is no answer of OpenAI's API"
        ) from None
    return str(text or ""), raw.get("usage") or {}
