"""`drakkar install`: the kinds and the operator, in the cluster of a kubeconfig."""

from pathlib import Path
from typing import Annotated

import typer

from drakkar.cli import dashboard
from drakkar.cli.session import Kubeconfig, command, console, fail
from drakkar.client import Client
from drakkar.client.kubeconfig import find_kubeconfig
from drakkar.local import ClusterError
from drakkar.local.install import NAMESPACE
from drakkar.local.install import install as install_chart
from drakkar.local.progress import show_progress


@command
def install(
    values: Annotated[
        list[Path] | None, typer.Option("--values", "-f", help="Further values of the chart.")
    ] = None,
    server: Annotated[
        bool | None,
        typer.Option(
            "--server/--no-server",
            help="With the web pages, or without; by default the local cluster has them.",
            show_default=False,
        ),
    ] = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Install Drakkar into the cluster with Helm, or upgrade it. Safe to repeat."""
    found = find_kubeconfig(kubeconfig)
    if found is None:
        raise fail("no cluster: bring one up with 'drakkar cluster up' or set KUBECONFIG")
    try:
        with show_progress() as shown:
            install_chart(Path(found), values=values or (), server=server, progress=shown)
    except ClusterError as error:
        raise fail(str(error)) from None
    console.print(f"Drakkar is ready: kubectl get pods -n {NAMESPACE}", highlight=False)
    if hint := dashboard.hint(Client.connect(found)):
        console.print(hint, highlight=False)
