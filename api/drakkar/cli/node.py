"""`drakkar node`: is a node as fast as it should be?"""

import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.table import Table

from drakkar import catalogue
from drakkar.check.judge import Expected, Limits, Verdict, judge
from drakkar.check.node import condition, taints
from drakkar.check.pods import Plan, Worker, free_devices
from drakkar.check.run import run
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
from drakkar.client import Client, ClientError
from drakkar.constants import ANNOTATION_DEVICES, CONDITION_CHECK
from drakkar.devices import parse_devices
from drakkar.local.install import NAMESPACE

app = typer.Typer(no_args_is_help=True, help="Nodes and how well they are.")

_RATIO = {"min": 0.01, "max": 1.0}


@app.callback()
def _nodes() -> None:
    """Nodes and how well they are."""


@app.command()
@command
def check(
    names: Annotated[list[str] | None, typer.Argument(metavar="NODE...")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All nodes that are ready.")] = False,
    compute: Annotated[
        float, typer.Option(**_RATIO, help="Part of the fleet's median to compute at.")
    ] = Limits().compute,
    link: Annotated[
        float, typer.Option(**_RATIO, help="Part of the fleet's median to all-reduce at.")
    ] = Limits().link,
    peak: Annotated[
        float, typer.Option(**_RATIO, help="Part of the catalogue's peak to compute at.")
    ] = Limits().peak,
    network: Annotated[
        float, typer.Option(**_RATIO, help="Part of the catalogue's network to all-reduce at.")
    ] = Limits().network,
    rounds: Annotated[int, typer.Option(min=1, max=16, help="Peers to measure with.")] = 3,
    in_turn: Annotated[
        bool, typer.Option("--in-turn", help="One after the other: nodes share a machine.")
    ] = False,
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Leave taints and conditions as they are.")
    ] = False,
    timeout: Annotated[float, typer.Option(min=10, help="Seconds to wait for all.")] = 300,
    image: Annotated[
        str | None, typer.Option(help="By default the operator's for workers.")
    ] = None,
    operator: Annotated[str, typer.Option(help="Namespace of the operator.")] = NAMESPACE,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
    context: ContextName = None,
) -> None:
    """Measure nodes; taint the slow ones, release those that pass. Exit code 1 if one is slow.

    A pod on each node takes all its free accelerators for some seconds: a matrix product on each,
    an all-reduce with some peers. Nodes whose accelerators are all in use are left out.
    """
    if bool(names) == everything:
        raise fail("name the nodes to check, or say --all")
    client = connect(namespace, kubeconfig, context)
    nodes = _chosen(client, names or [])
    free = {name: _free(client, node) for name, node in nodes.items()}
    busy = [name for name, devices in free.items() if devices is None]
    if busy:
        console.print(f"In use, not checked: {', '.join(busy)}")
    plan = Plan(
        name=f"check-{secrets.token_hex(3)}",
        namespace=client.namespace,
        nodes=tuple(name for name in nodes if name not in busy),
        worker=_worker(client, operator, image),
        resources={name: devices for name, devices in free.items() if devices},
        rounds=rounds,
        meet_seconds=timeout * 0.4,
        in_turn=in_turn,
    )
    if not plan.nodes:
        raise fail("no node is left to check")
    results = run(client, plan, seconds=timeout, tell=lambda said: errors.print(f"{said} ..."))
    expected = {name: _expected(nodes[name]) for name in plan.nodes}
    limits = Limits(compute=compute, link=link, peak=peak, network=network)
    verdicts = judge(results, limits, expected)
    _show(verdicts)
    if not report_only:
        for verdict in verdicts:
            _note(client, verdict)
    if not all(verdict.passed for verdict in verdicts):
        raise typer.Exit(1)


def _chosen(client: Client, names: list[str]) -> dict[str, dict[str, Any]]:
    found = {str(node["metadata"]["name"]): node for node in client.nodes.list()}
    for name in names:
        if name not in found:
            raise fail(f"there is no node {name!r}: kubectl get nodes")
    wanted = names or [name for name, node in found.items() if _ready(node)]
    return {name: found[name] for name in dict.fromkeys(wanted)}


def _ready(node: Mapping[str, Any]) -> bool:
    conditions = (node.get("status") or {}).get("conditions") or ()
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)


def _free(client: Client, node: Mapping[str, Any]) -> dict[str, int] | None:
    """Accelerators for the node's pod; empty where it has none, None where all are in use."""
    annotations = node["metadata"].get("annotations") or {}
    told = parse_devices(annotations.get(ANNOTATION_DEVICES))
    if not told:
        return {}
    pods = client.pods_of_nodes.on_node(node["metadata"]["name"])
    offered = node["status"].get("allocatable") or {}
    free = {t.resource: free_devices(offered, t.resource, pods) for t in told}
    free = {resource: count for resource, count in free.items() if count}
    return free or None


def _expected(node: Mapping[str, Any]) -> Expected:
    annotations = node["metadata"].get("annotations") or {}
    told = parse_devices(annotations.get(ANNOTATION_DEVICES))
    if not told:
        return Expected()
    chip = catalogue.find(told[0].model)
    if chip is None:
        return Expected(told[0].model)
    figures = {"teraflops": "tflops.bf16", "gbps": "nic_gbps"}
    doubtful = frozenset(name for name, figure in figures.items() if not chip.confirmed(figure))
    return Expected(told[0].model, chip.tflops.bf16, chip.nic_gbps, doubtful)


def _worker(client: Client, namespace: str, image: str | None) -> Worker:
    """How the operator starts workers, from the environment of its Deployment."""
    environment = client.operator_environment(namespace)
    found = image or environment.get("DRAKKAR_WORKER_IMAGE", "")
    if not found:
        raise fail(
            f"no operator in namespace {namespace} says which image to use: give --image, "
            "or --operator with its namespace"
        )
    return Worker(
        image=found,
        python=environment.get("DRAKKAR_WORKER_PYTHON") or "python",
        runtime_class=environment.get("DRAKKAR_WORKER_RUNTIME_CLASS", ""),
        pull_policy=environment.get("DRAKKAR_WORKER_PULL_POLICY", ""),
    )


def _show(verdicts: list[Verdict]) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in ("NODE", "CHECK", "MEASURED"):
        table.add_column(heading)
    for verdict in verdicts:
        words = "passed" if verdict.passed else ", ".join(f.reason for f in verdict.findings)
        table.add_row(verdict.node, words, verdict.summary)
    console.print(table)
    for verdict in verdicts:
        for finding in verdict.findings:
            console.print(f"{verdict.node}: {finding.message}")


def _note(client: Client, verdict: Verdict) -> None:
    """Write a verdict to its node; the node is read anew, for others write to it, too."""
    now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    for attempt in range(5):
        node = client.nodes.get(verdict.node)
        there = (node.get("status") or {}).get("conditions") or ()
        before = next((c for c in there if c.get("type") == CONDITION_CHECK), None)
        wanted = taints(node, verdict)
        try:
            if wanted is not None:
                client.nodes.set_taints(node, wanted)
        except ClientError:
            if attempt == 4:
                raise
            continue
        client.nodes.set_condition(verdict.node, condition(verdict, now, before))
        return
