"""What commands share: the options that choose a cluster, output, and errors without tracebacks."""

import functools
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.markup import escape

from drakkar.cli.manifests import ManifestError
from drakkar.client import Client, ClientError
from drakkar.planning import OPERATOR_NAMESPACE, OPERATOR_SERVICE

console = Console(highlight=False, soft_wrap=True)
errors = Console(stderr=True, highlight=False, soft_wrap=True)

Namespace = Annotated[
    str | None,
    typer.Option("--namespace", "-n", help="Namespace; the kubeconfig's unless set."),
]
Kubeconfig = Annotated[
    str | None, typer.Option("--kubeconfig", help="File that says where the cluster is.")
]
ContextName = Annotated[str | None, typer.Option("--context", help="Context of the kubeconfig.")]

OperatorName = Annotated[
    str,
    typer.Option(
        "--operator",
        envvar="DRAKKAR_OPERATOR",
        metavar="NAMESPACE/SERVICE",
        help="Where Drakkar's operator is installed.",
    ),
]
OPERATOR = f"{OPERATOR_NAMESPACE}/{OPERATOR_SERVICE}"
"""Where the chart installs it by default."""

Command = TypeVar("Command", bound=Callable[..., Any])


def fail(message: str) -> typer.Exit:
    """Print an error; raise what this returns."""
    errors.print(f"[bold red]error:[/] {escape(message)}")
    return typer.Exit(1)


def command(function: Command) -> Command:
    """Turn expected errors into one line and exit code 1, Ctrl-C into exit code 130."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except (ClientError, ManifestError) as error:
            raise fail(str(error)) from None
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        except BrokenPipeError:
            # The reader, such as head, has seen enough; Python must not flush into it at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None

    return wrapped  # type: ignore[return-value]


def connect(
    namespace: str | None = None, kubeconfig: str | None = None, context: str | None = None
) -> Client:
    """The client that the options ask for."""
    return Client.connect(kubeconfig, context=context, namespace=namespace)


def service_of(operator: str) -> tuple[str, str]:
    """(name, namespace) of NAMESPACE/SERVICE."""
    namespace, _, name = operator.partition("/")
    if not (namespace and name) or "/" in name:
        raise fail(f"--operator: write NAMESPACE/SERVICE, such as {OPERATOR} (found {operator!r})")
    return name, namespace
