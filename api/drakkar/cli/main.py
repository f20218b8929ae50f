"""The command ``drakkar``."""

import importlib.metadata
from typing import Annotated, Any

import typer
from rich.markup import escape

from drakkar.cli import (
    cluster,
    dashboard,
    data,
    debug,
    demo,
    follow,
    install,
    live,
    manifests,
    node,
    plan,
    progress,
    serving,
    topology,
    usage,
)
from drakkar.cli import describe as describing
from drakkar.cli import describe_service as describing_service
from drakkar.cli import diagnose as diagnosing
from drakkar.cli import get as getting
from drakkar.cli.logs import LogReader, replica_of
from drakkar.cli.session import (
    ContextName,
    Kubeconfig,
    Namespace,
    command,
    connect,
    console,
    errors,
)
from drakkar.client import Client, ClientError, NotFoundError
from drakkar.constants import LABEL_SERVICE
from drakkar.v1alpha1 import TrainingJob

app = typer.Typer(
    name="drakkar",
    help="Train on Kubernetes: gangs of pods that start together and survive losses.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

JobName = Annotated[str, typer.Argument(metavar="JOB", help="Name of a TrainingJob.")]
_RANK_COLORS = ("cyan", "green", "yellow", "magenta", "blue", "red")


@app.command()
@command
def run(
    file: Annotated[str, typer.Argument(metavar="FILE", help="YAML manifests, or - for stdin.")],
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Show the jobs until they end.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Let the cluster judge them, but change nothing.")
    ] = False,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
    context: ContextName = None,
) -> None:
    """Check the manifests of FILE, then apply them; with --watch exit 0 if all jobs complete."""
    objects = manifests.read_valid(file)
    client = connect(namespace, kubeconfig, context)
    done = "would be accepted" if dry_run else "applied"
    jobs: list[TrainingJob] = []
    for item in objects:
        applied = client.apply(item, namespace, dry_run=dry_run)
        meta = applied["metadata"]
        where = f"{meta['namespace']}/" if meta.get("namespace") else ""
        console.print(escape(f"{applied['kind']} {where}{meta['name']} {done}"))
        if applied["kind"] == "TrainingJob":
            jobs.append(TrainingJob.model_validate(applied))
    if watch and not dry_run:
        _follow_all(client, jobs)


def _follow_all(client: Client, jobs: list[TrainingJob]) -> None:
    code = 0
    for job in jobs:
        try:
            ended = follow.until_finished(client, job.namespace, job.name, console)
        except KeyboardInterrupt:
            errors.print(
                escape(f"{job.name} goes on without you: drakkar get tj {job.name} -w"), style="dim"
            )
            raise
        code = max(code, progress.exit_code(ended))
        if code:
            errors.print(
                f"[bold red]{escape(job.name)} failed:[/] {escape(progress.reason(ended))}"
            )
        elif ended.status.progress and ended.status.progress.sample:
            console.print(f"\n[bold]Sample[/]\n{escape(ended.status.progress.sample)}")
    raise typer.Exit(code)


@app.command()
@command
def get(
    kind: Annotated[
        str, typer.Argument(help="trainingjobs (tj), queues (dq) or topologies (topo).")
    ] = "trainingjobs",
    name: Annotated[str | None, typer.Argument(help="Only this object.")] = None,
    output: Annotated[getting.Output | None, typer.Option("--output", "-o")] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on with every change.")] = False,
    everywhere: Annotated[bool, typer.Option("--all-namespaces", "-A")] = False,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
    context: ContextName = None,
) -> None:
    """Show objects in a table, or as JSON or YAML."""
    found = getting.kind_of(kind)
    client = connect(namespace, kubeconfig, context)
    show = getting.watch if watch else getting.once
    show(client, found, name, output, everywhere=everywhere)


@app.command()
@command
def describe(
    job: Annotated[
        str, typer.Argument(metavar="NAME", help="A TrainingJob or an InferenceService.")
    ],
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
    context: ContextName = None,
) -> None:
    """Show all about a job, or a service: what it does or why not, where, what happened."""
    client = connect(namespace, kubeconfig, context)
    try:
        found = client.training_jobs.get(job)
    except NotFoundError as error:
        try:
            service = client.inference_services.get(job)
        except ClientError:
            raise error from None
        pods = client.pods(job, label=LABEL_SERVICE)
        events = _events_of(client, "InferenceService", job, pods)
        console.print(describing_service.report(service, pods, events))
        return
    pods = client.pods(job)
    console.print(describing.report(found, pods, _events_of(client, "TrainingJob", job, pods)))


def _events_of(
    client: Client, kind: str, name: str, pods: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Events of an object, and what went wrong with its pods."""
    own = client.events(involvedObject__kind=kind, involvedObject__name=name)
    names = {pod["metadata"]["name"] for pod in pods}
    warnings = [
        event
        for event in client.events(involvedObject__kind="Pod", type="Warning")
        if event["involvedObject"].get("name") in names
    ]
    return [*own, *warnings]


@app.command()
@command
def logs(
    job: JobName,
    rank: Annotated[int | None, typer.Option(help="Only the pod of this rank.")] = None,
    follow_: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines come.")] = False,
    tail: Annotated[int | None, typer.Option(min=0, help="Last lines of each pod only.")] = None,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
    context: ContextName = None,
) -> None:
    """Print the logs of all replicas, or of one rank's, also of pods that replace others."""
    client = connect(namespace, kubeconfig, context)
    found = client.training_jobs.get(job)
    each = found.spec.processes_per_replica
    replica = None if rank is None else replica_of(rank, found.replicas, each)
    reader = LogReader(client, job, client.namespace, replica, tail)
    for line in reader.follow() if follow_ else reader.so_far():
        if replica is not None:
            print(line.text, flush=follow_)
        else:
            color = _RANK_COLORS[line.replica % len(_RANK_COLORS)]
            console.print(f"[{color}]\\[{line.replica}][/] {escape(line.text)}")


@app.command()
@command
def delete(
    job: JobName,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
    context: ContextName = None,
) -> None:
    """Delete a job and its pods; its checkpoints stay."""
    connect(namespace, kubeconfig, context).training_jobs.delete(job)
    console.print(escape(f"TrainingJob {job} deleted"))


@app.command()
@command
def suspend(
    job: JobName,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
    context: ContextName = None,
) -> None:
    """Save a job's state and give up its pods until it is resumed."""
    client = connect(namespace, kubeconfig, context)
    client.training_jobs.patch(job, {"spec": {"suspend": True}})
    console.print(escape(f"TrainingJob {job} is being suspended; go on with: drakkar resume {job}"))


@app.command()
@command
def resume(
    job: JobName,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
    context: ContextName = None,
) -> None:
    """Let a suspended job go on from its last checkpoint."""
    client = connect(namespace, kubeconfig, context)
    client.training_jobs.patch(job, {"spec": {"suspend": False}})
    console.print(escape(f"TrainingJob {job} resumes as soon as there is room"))


@app.command()
@command
def version(kubeconfig: Kubeconfig = None, context: ContextName = None) -> None:
    """Show the versions of this command and of the cluster."""
    console.print(f"drakkar {importlib.metadata.version('drakkar')}")
    try:
        console.print(f"Kubernetes {connect(None, kubeconfig, context).server_version()}")
    except ClientError as error:
        errors.print(escape(str(error)), style="dim")


app.command()(plan.plan)
app.command("diagnose")(diagnosing.run)
app.command("submit")(run)
app.command()(live.events)
app.command()(live.top)
app.command()(live.queue)
app.command()(usage.usage)
app.command()(serving.serve)
app.command()(serving.chat)
app.command()(install.install)
app.command()(dashboard.dashboard)
app.add_typer(topology.app, name="topology")
app.add_typer(node.app, name="node")
app.command()(demo.demo)
app.add_typer(cluster.app, name="cluster")
app.add_typer(data.app, name="data")
app.add_typer(debug.app, name="debug")


def main() -> None:
    """Entry point of the command ``drakkar``."""
    app()
