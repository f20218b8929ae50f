"""`drakkar cluster`: a real Kubernetes on this machine, and the faults to try it with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from drakkar.local import Cluster, ClusterError, Topology, default_topology, load_topology
from drakkar.local.build import PACKAGES, ensure_programs
from drakkar.local.paths import DEFAULT_NAME
from drakkar.local.progress import show_progress
from drakkar.local.providers import Status
from drakkar.local.topology import RACK_LABEL, ZONE_LABEL

app = typer.Typer(no_args_is_help=True, help="A real Kubernetes cluster on this machine.")
node_app = typer.Typer(no_args_is_help=True, help="Switch nodes off and on, cut their network.")
apiserver_app = typer.Typer(no_args_is_help=True, help="Stop and start the API server.")
app.add_typer(node_app, name="node")
device_app = typer.Typer(no_args_is_help=True, help="Break simulated accelerators, repair them.")
app.add_typer(apiserver_app, name="apiserver")
app.add_typer(device_app, name="device")


class ProviderChoice(StrEnum):
    """Where a cluster comes from."""

    UPSTREAM = "upstream"
    KIND = "kind"
    EXISTING = "existing"


class SeverityChoice(StrEnum):
    """What a fault means for the device and for the pods that hold it."""

    WARNING = "warning"
    UNHEALTHY = "unhealthy"
    FATAL = "fatal"


NameOption = Annotated[
    str, typer.Option("--name", help="Which cluster.", envvar="DRAKKAR_CLUSTER", metavar="NAME")
]
NodeArgument = Annotated[str, typer.Argument(metavar="NODE", help="A node, such as node-2.")]


@contextmanager
def _cluster(name: str, provider: ProviderChoice | None = None) -> Iterator[Cluster]:
    """The named cluster with progress shown; what goes wrong ends the command in a sentence."""
    try:
        with show_progress() as progress:
            yield Cluster(name, provider=provider.value if provider else None, progress=progress)
    except ClusterError as error:
        Console(stderr=True, soft_wrap=True).print(f"[red]Error:[/] {error}", highlight=False)
        raise typer.Exit(1) from None


@app.command()
def up(
    name: NameOption = DEFAULT_NAME,
    nodes: Annotated[int | None, typer.Option(help="How many nodes; 4 at first.")] = None,
    topology: Annotated[
        Path | None, typer.Option(help="A YAML file which describes the nodes.")
    ] = None,
    provider: Annotated[
        ProviderChoice | None, typer.Option(help="Where the cluster comes from.")
    ] = None,
    fake_nodes: Annotated[
        int | None, typer.Option(help="How many nodes to pretend besides (KWOK).")
    ] = None,
) -> None:
    """Bring the cluster up, heal it, or change its nodes. Safe to repeat."""
    with _cluster(name, provider) as cluster:
        cluster.up(topology=_wanted(nodes, topology), fake_nodes=fake_nodes)
        typer.echo(f"export KUBECONFIG={cluster.kubeconfig}")


def _wanted(nodes: int | None, topology: Path | None) -> Topology | None:
    if nodes is not None and topology is not None:
        raise ClusterError("Give either --nodes or --topology, not both.")
    if topology is not None:
        return load_topology(topology)
    return None if nodes is None else default_topology(nodes)


@app.command()
def down(name: NameOption = DEFAULT_NAME) -> None:
    """Remove the cluster and everything that was made for it."""
    with _cluster(name) as cluster:
        cluster.down()


@app.command()
def status(name: NameOption = DEFAULT_NAME) -> None:
    """Show the cluster's nodes and processes."""
    with _cluster(name) as cluster:
        found = cluster.status()
    _show(found)


def _show(found: Status) -> None:
    console = Console()
    console.print(f"API server: {found.server} (provider {found.provider})", highlight=False)
    if found.nodes:
        table = Table(box=None, pad_edge=False)
        for heading in ("NODE", "STATE", "VERSION", "ZONE", "RACK"):
            table.add_column(heading)
        for node in found.nodes:
            places = (node.labels.get(label, "") for label in (ZONE_LABEL, RACK_LABEL))
            table.add_row(node.name, node.state, node.version, *places)
        console.print(table)
    dead = [name for name, pid in found.processes.items() if pid is None]
    if dead:
        console.print(f"Not running: {', '.join(dead)}. 'drakkar cluster up' heals it.")


@app.command()
def kubeconfig(name: NameOption = DEFAULT_NAME) -> None:
    """Print the path of the cluster's kubeconfig."""
    with _cluster(name) as cluster:
        if not cluster.kubeconfig.exists():
            raise ClusterError(f"There is no cluster {name}: 'drakkar cluster up' makes one.")
        typer.echo(str(cluster.kubeconfig))


@app.command()
def load(
    archive: Annotated[Path, typer.Argument(metavar="IMAGE.tar", help="A Docker or OCI archive.")],
    name: NameOption = DEFAULT_NAME,
) -> None:
    """Put the images of an archive on every node."""
    with _cluster(name) as cluster:
        passed_over = cluster.load_image(archive)
        if passed_over:
            typer.echo(f"Not running, so they get it as they start: {', '.join(passed_over)}")


@app.command("fake-nodes")
def fake_nodes(
    count: Annotated[int, typer.Argument(min=0, max=10000, help="How many there shall be.")],
    gpus: Annotated[int, typer.Option(min=0, max=64, help="nvidia.com/gpu of each.")] = 8,
    name: NameOption = DEFAULT_NAME,
) -> None:
    """Have so many fake nodes by KWOK; 0 removes them."""
    with _cluster(name) as cluster:
        cluster.set_fake_nodes(count, gpus=gpus)


@app.command()
def build() -> None:
    """Build every program a cluster and its tools may need, helm and kwok included."""
    try:
        with show_progress() as progress:
            typer.echo(str(ensure_programs(progress, PACKAGES).folder))
    except ClusterError as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from None


@node_app.command("stop")
def node_stop(node: NodeArgument, name: NameOption = DEFAULT_NAME) -> None:
    """Cut a node's power: all its processes are gone at once."""
    with _cluster(name) as cluster:
        cluster.node(node).stop()


@node_app.command("start")
def node_start(node: NodeArgument, name: NameOption = DEFAULT_NAME) -> None:
    """Switch a node on and wait until it is ready."""
    with _cluster(name) as cluster:
        cluster.node(node).start()


@node_app.command("cut")
def node_cut(node: NodeArgument, name: NameOption = DEFAULT_NAME) -> None:
    """Pull out a node's network cable; its processes go on."""
    with _cluster(name) as cluster:
        cluster.node(node).cut()


@node_app.command("mend")
def node_mend(node: NodeArgument, name: NameOption = DEFAULT_NAME) -> None:
    """Put a node's network cable in again."""
    with _cluster(name) as cluster:
        cluster.node(node).mend()


@device_app.command("fault")
def device_fault(
    node: NodeArgument,
    device: Annotated[str, typer.Argument(metavar="DEVICE", help="Its index or id.")],
    code: Annotated[str, typer.Argument(metavar="CODE", help="xid-79, thermal, link-down, ...")],
    message: Annotated[str, typer.Option(help="The evidence, in a vendor's words.")] = "",
    severity: Annotated[
        SeverityChoice | None, typer.Option(help="What it means; by default what the code does.")
    ] = None,
    name: NameOption = DEFAULT_NAME,
) -> None:
    """Break a simulated accelerator."""
    with _cluster(name) as cluster:
        chosen = severity.value if severity else None
        cluster.node(node).break_device(device, code, message=message, severity=chosen)


@device_app.command("clear")
def device_clear(
    node: NodeArgument,
    device: Annotated[str | None, typer.Argument(metavar="DEVICE", help="All by default.")] = None,
    name: NameOption = DEFAULT_NAME,
) -> None:
    """Repair the simulated accelerators of a node."""
    with _cluster(name) as cluster:
        count = cluster.node(node).repair_devices(device)
        typer.echo(f"{count} faults are gone from {node}.")


@device_app.command("list")
def device_list(node: NodeArgument, name: NameOption = DEFAULT_NAME) -> None:
    """Show what is broken."""
    with _cluster(name) as cluster:
        for fault in cluster.node(node).broken_devices():
            typer.echo(f"{fault['device']}  {fault['code']}  {fault['message']}")


@apiserver_app.command("stop")
def apiserver_stop(name: NameOption = DEFAULT_NAME) -> None:
    """Stop the API server."""
    with _cluster(name) as cluster:
        cluster.apiserver.stop()


@apiserver_app.command("start")
def apiserver_start(name: NameOption = DEFAULT_NAME) -> None:
    """Start the API server and wait until it answers."""
    with _cluster(name) as cluster:
        cluster.apiserver.start()


@apiserver_app.command("restart")
def apiserver_restart(name: NameOption = DEFAULT_NAME) -> None:
    """Stop the API server, start it, and wait until it answers."""
    with _cluster(name) as cluster:
        cluster.apiserver.restart()
