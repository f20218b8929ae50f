"""`drakkar topology`: where nodes stand on the fabric."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from drakkar.cli.session import ContextName, Kubeconfig, command, connect, console, fail
from drakkar.fabric import cloud, file, infiniband
from drakkar.fabric.infiniband import FabricError
from drakkar.fabric.places import LABELS, Places, label_changes, topology

app = typer.Typer(no_args_is_help=True, help="Where nodes stand on the fabric.")


@app.command()
@command
def discover(
    from_cloud: Annotated[
        bool, typer.Option("--cloud", help="Read labels that AWS, Google or Topograph set.")
    ] = False,
    from_file: Annotated[
        Path | None, typer.Option("--file", help="YAML: node -> zone, block, rack.")
    ] = None,
    ibnetdiscover: Annotated[
        Path | None, typer.Option(help="What the command ibnetdiscover printed.")
    ] = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Label the nodes and make the Topology.")
    ] = False,
    name: Annotated[str, typer.Option(help="Name of the Topology.")] = "cluster",
    kubeconfig: Kubeconfig = None,
    context: ContextName = None,
) -> None:
    """Find the places of nodes; with --apply write them as labels and make a Topology of them."""
    if [from_cloud, from_file is not None, ibnetdiscover is not None].count(True) != 1:
        raise fail("say where from: one of --cloud, --file and --ibnetdiscover")
    client = connect(None, kubeconfig, context)
    nodes = client.nodes.list()
    labels = {
        str(node["metadata"]["name"]): dict(node["metadata"].get("labels") or {}) for node in nodes
    }
    try:
        places = _places(labels, from_file, ibnetdiscover)
    except FabricError as error:
        raise fail(str(error)) from None
    _show(places, labels)
    if not places:
        raise fail("no node of the cluster was found in it; its names must be those of the nodes")
    if not apply:
        console.print("Nothing is changed; --apply writes the labels and the Topology.")
        return
    for node, place in places.items():
        changes = label_changes(labels[node], place)
        if changes:
            client.nodes.label(node, changes)
            labels[node].update(changes)
    client.apply(topology(name, list(labels.values())))
    console.print(f"Topology {name} is applied: drakkar get topologies")


def _places(
    labels: Mapping[str, Mapping[str, str]], from_file: Path | None, ibnetdiscover: Path | None
) -> Places:
    """What a source says of nodes that the cluster has. Raises FabricError."""
    if from_file is not None:
        found = file.load(from_file)
        unknown = sorted(found.keys() - labels.keys())
        if unknown:
            raise FabricError(f"{from_file}: the cluster has no node {unknown[0]!r}")
        return found
    if ibnetdiscover is not None:
        try:
            text = ibnetdiscover.read_text(errors="replace")
        except OSError as error:
            raise FabricError(f"{ibnetdiscover} can't be read: {error.strerror}") from error
        try:
            return infiniband.places(infiniband.parse(text), labels)
        except FabricError as error:
            raise FabricError(f"{ibnetdiscover}: {error}") from error
    return {node: place for node, has in labels.items() if (place := cloud.place(has))}


def _show(places: Places, labels: Mapping[str, Mapping[str, Any]]) -> None:
    table = Table(box=None, pad_edge=False)
    levels: Sequence[str] = [level for level in LABELS if any(level in p for p in places.values())]
    for heading in ("NODE", *(level.upper() for level in levels)):
        table.add_column(heading)
    for node, place in sorted(places.items()):
        table.add_row(node, *(place.get(level, "") for level in levels))
    console.print(table)
    missing = len(labels) - len(places)
    if missing:
        console.print(f"{missing} of {len(labels)} nodes are not in it.")
