"""Snapshots and requests as JSON, to repeat a decision elsewhere.

``python -m drakkar_operator.scheduling.replay FILE`` decides again on what ``dump`` wrote.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from drakkar.v1alpha1.trainingjob import TopologyRequest
from drakkar_operator.model import NodeView, Taint
from drakkar_operator.scheduling.decision import Placed, Unplaced
from drakkar_operator.scheduling.nodes import NodeTable
from drakkar_operator.scheduling.placement import place
from drakkar_operator.scheduling.request import GangRequest, Requirement, Term, Toleration
from drakkar_operator.scheduling.snapshot import Snapshot

VERSION = 1


def dump(snapshot: Snapshot, requests: Sequence[GangRequest] = ()) -> dict[str, Any]:
    """A document of JSON types that ``load`` turns back into the same snapshot and requests."""
    nodes = snapshot.nodes
    return {
        "version": VERSION,
        "levels": [list(level) for level in nodes.tree.levels],
        "resources": list(nodes.resources),
        "nodes": [
            {**asdict(view), "free": row}
            for view, row in zip(nodes.views, snapshot.free.tolist(), strict=True)
        ],
        "ports": [
            {"protocol": protocol, "port": port, "places": sorted(list(p) for p in places)}
            for (protocol, port), places in sorted(snapshot.ports.items())
        ],
        "requests": [_dump_request(request) for request in requests],
    }


def load(document: Mapping[str, Any]) -> tuple[Snapshot, list[GangRequest]]:
    """The snapshot and the requests of a document. Raises ValueError on another version."""
    if document.get("version") != VERSION:
        raise ValueError(
            f"snapshot has version {document.get('version')!r}; this Drakkar reads {VERSION}"
        )
    views = {item["name"]: _node(item) for item in document["nodes"]}
    table = NodeTable.build(views.values(), tuple((n, label) for n, label in document["levels"]))
    columns = [document["resources"].index(resource) for resource in table.resources]
    rows = {item["name"]: item["free"] for item in document["nodes"]}
    free = np.array([rows[name] for name in table.tree.names], dtype=np.int64)
    free = np.asfortranarray(free.reshape(len(table), len(document["resources"]))[:, columns])
    free.setflags(write=False)
    ports = {
        (item["protocol"], item["port"]): frozenset((node, ip) for node, ip in item["places"])
        for item in document["ports"]
    }
    return Snapshot(table, free, ports), [_request(item) for item in document["requests"]]


def _node(item: Mapping[str, Any]) -> NodeView:
    return NodeView(
        name=item["name"],
        labels=item["labels"],
        allocatable=item["allocatable"],
        ready=item["ready"],
        unschedulable=item["unschedulable"],
        taints=tuple(Taint(**taint) for taint in item["taints"]),
    )


def _dump_request(request: GangRequest) -> dict[str, Any]:
    return {
        "key": list(request.key),
        "replicas": request.replicas,
        "requests": dict(request.requests),
        "missing": list(request.missing),
        "fixed": {str(at): node for at, node in request.fixed.items()},
        "hint": {str(at): node for at, node in request.hint.items()},
        "node_selector": dict(request.node_selector),
        "node_affinity": [asdict(term) for term in request.node_affinity],
        "tolerations": [asdict(toleration) for toleration in request.tolerations],
        "host_ports": [list(port) for port in request.host_ports],
        "topology": request.topology.model_dump(),
        "avoid": sorted(request.avoid),
    }


def _request(item: Mapping[str, Any]) -> GangRequest:
    def rules(found: Sequence[Mapping[str, Any]]) -> tuple[Requirement, ...]:
        return tuple(Requirement(r["key"], r["operator"], tuple(r["values"])) for r in found)

    return GangRequest(
        key=(item["key"][0], item["key"][1]),
        replicas=item["replicas"],
        requests=item["requests"],
        missing=tuple(item["missing"]),
        fixed={int(at): node for at, node in item["fixed"].items()},
        hint={int(at): node for at, node in item["hint"].items()},
        node_selector=item["node_selector"],
        node_affinity=tuple(
            Term(rules(t["expressions"]), rules(t["fields"])) for t in item["node_affinity"]
        ),
        tolerations=tuple(Toleration(**t) for t in item["tolerations"]),
        host_ports=tuple((ip, protocol, port) for ip, protocol, port in item["host_ports"]),
        topology=TopologyRequest(**item["topology"]),
        avoid=frozenset(item["avoid"]),
    )


def describe(answer: Placed | Unplaced) -> str:
    """A decision in words."""
    if isinstance(answer, Unplaced):
        return f"waits: {answer.reason}"
    where = ", ".join(f"{at} on {node}" for at, node in answer.nodes.items())
    return f"placed in {answer.level} {answer.domain}: {where}"


def main(arguments: Sequence[str]) -> int:
    """Decide on each request of a file in turn, each by itself, and print the answers."""
    if len(arguments) != 1:
        print("usage: python -m drakkar_operator.scheduling.replay FILE", file=sys.stderr)
        return 64
    snapshot, requests = load(json.loads(Path(arguments[0]).read_text()))
    for request in requests:
        print(f"{'/'.join(request.key)}: {describe(place(snapshot, request))}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
