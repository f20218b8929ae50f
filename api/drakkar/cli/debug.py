"""``drakkar debug``: the scheduler's decisions, to take away and repeat."""

import json
from typing import Annotated

import typer

from drakkar.cli.components import component
from drakkar.cli.session import (
    OPERATOR,
    ContextName,
    Kubeconfig,
    Namespace,
    OperatorName,
    command,
    connect,
    service_of,
)
from drakkar.planning import DEBUG_PORT

GROUP = "drakkar.debug"
"""Entry points of components that bring commands which need their code."""

app = typer.Typer(
    help="Take a snapshot of what the scheduler sees, and repeat its decisions.",
    no_args_is_help=True,
)


@app.command()
@command
def snapshot(
    job: Annotated[
        str | None,
        typer.Option(help="The cycle that placed this job, or judged it last; else: now."),
    ] = None,
    operator: OperatorName = OPERATOR,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
    context: ContextName = None,
) -> None:
    """Print what the scheduler decides on, and its decisions, as JSON.

    It names nodes, jobs and queues of the whole cluster.
    """
    name, where = service_of(operator)
    client = connect(namespace, kubeconfig, context)
    query = {"job": f"{client.namespace}/{job}"} if job else None
    print(json.dumps(client.service(name, where, DEBUG_PORT, "/snapshot", query=query)))


@app.command()
@command
def replay(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="What debug snapshot printed, or - for stdin.")
    ],
) -> None:
    """Decide again on a snapshot; exit 1 if a decision differs from the one in it."""
    raise typer.Exit(component(GROUP, "replay", "operator")([file]))
