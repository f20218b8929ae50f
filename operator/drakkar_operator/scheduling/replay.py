"""Cases as JSON, to repeat the decisions of a cycle elsewhere.

``drakkar debug snapshot`` gets such a document from the operator, ``drakkar debug replay FILE``
decides on it again and compares. The document holds what the operator's cycle was given, so that
equal code decides equally; it names nodes, jobs and queues, and holds nothing of pods but their sums.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from drakkar_operator.model import NodeView, QueueView
from drakkar_operator.scheduling.case import Case
from drakkar_operator.scheduling.decision import Decision, Hold, Placed, Unplaced
from drakkar_operator.scheduling.mix import Mix
from drakkar_operator.scheduling.nodes import NodeTable
from drakkar_operator.scheduling.request import Role
from drakkar_operator.scheduling.snapshot import Snapshot
from drakkar_operator.scheduling.workload import Pending, Running

VERSION = 2

Document = dict[str, Any]

_NODE = TypeAdapter(NodeView)
_PENDING = TypeAdapter(tuple[Pending, ...])
_RUNNING = TypeAdapter(tuple[Running, ...])
_QUEUES = TypeAdapter(dict[str, QueueView])
_MIX = TypeAdapter(tuple[tuple[Role, float], ...])
_HOLDS = TypeAdapter(tuple[Hold, ...])
_UNPLACED = TypeAdapter(Unplaced)
_RECENT = TypeAdapter(dict[str, dict[str, float]])
_DECISION = TypeAdapter(Decision)


class ReplayError(ValueError):
    """The document is not one that can be decided on."""


def dump(case: Case, decisions: Sequence[Decision] = ()) -> Document:
    """A document of JSON types that ``load`` turns back into the same case.

    ``decisions`` are kept beside it, to be compared with those of a replay.
    """
    return {
        "version": VERSION,
        "now": case.now,
        "moves": case.moves,
        **_dump_snapshot(case.snapshot),
        "queues": _QUEUES.dump_python(dict(case.queues), mode="json"),
        "running": _RUNNING.dump_python(case.running, mode="json"),
        "holds": _HOLDS.dump_python(case.holds, mode="json"),
        "known": [
            {"key": key, "verdict": _UNPLACED.dump_python(verdict, mode="json")}
            for key, verdict in sorted(case.known.items())
        ],
        "recent": {queue: dict(amounts) for queue, amounts in sorted(case.recent.items())},
        "pending": _PENDING.dump_python(case.pending, mode="json"),
        "decisions": [outcome(decision) for decision in decisions],
    }


def load(document: Mapping[str, Any]) -> Case:
    """The case of a document. Raises ReplayError that says what is wrong with it."""
    if document.get("version") != VERSION:
        raise ReplayError(
            f"the snapshot has version {document.get('version')!r}; this Drakkar reads {VERSION}"
        )
    try:
        return Case(
            snapshot=_load_snapshot(document),
            pending=_PENDING.validate_python(document["pending"]),
            running=_RUNNING.validate_python(document["running"]),
            queues=_QUEUES.validate_python(document["queues"]),
            holds=_HOLDS.validate_python(document["holds"]),
            known={
                (item["key"][0], item["key"][1]): _UNPLACED.validate_python(item["verdict"])
                for item in document["known"]
            },
            recent=_RECENT.validate_python(document["recent"]),
            now=float(document["now"]),
            moves=bool(document["moves"]),
        )
    except KeyError as error:
        raise ReplayError(f"the snapshot has no field {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ReplayError(f"the snapshot can't be read: {where}: {first['msg']}") from None
    except (TypeError, ValueError, IndexError) as error:
        raise ReplayError(f"the snapshot can't be read: {error}") from None


def outcome(decision: Decision) -> Document:
    """A decision in JSON types, without the request that it answers."""
    found: Document = _DECISION.dump_python(
        decision,
        mode="json",
        exclude={"placed": {"request"}, "evictions": {"__all__": {"to": {"request"}}}},
        exclude_none=True,
    )
    return found


def _dump_snapshot(snapshot: Snapshot) -> Document:
    nodes = snapshot.nodes
    return {
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
        "devices": {name: free.tolist() for name, free in sorted(snapshot.devices.items())},
        "mix": _MIX.dump_python(snapshot.mix.roles, mode="json"),
    }


def _load_snapshot(document: Mapping[str, Any]) -> Snapshot:
    rows = {item["name"]: item["free"] for item in document["nodes"]}
    views = [
        _NODE.validate_python({key: value for key, value in item.items() if key != "free"})
        for item in document["nodes"]
    ]
    table = NodeTable.build(views, tuple((name, label) for name, label in document["levels"]))
    columns = [document["resources"].index(resource) for resource in table.resources]
    free = np.array([rows[name] for name in table.tree.names], dtype=np.int64)
    free = np.asfortranarray(free.reshape(len(table), len(document["resources"]))[:, columns])
    free.setflags(write=False)
    ports = {
        (item["protocol"], item["port"]): frozenset((node, ip) for node, ip in item["places"])
        for item in document["ports"]
    }
    order = [table.tree.index[item["name"]] for item in document["nodes"]]
    devices = {name: empty.copy() for name, empty in table.devices.items()}
    for name, own in devices.items():
        own[order] = document["devices"][name]
    mix = Mix(_MIX.validate_python(document["mix"]))
    return Snapshot(table, free, ports, devices, mix)


def describe(answer: Placed | Unplaced) -> str:
    """A verdict in words."""
    if isinstance(answer, Unplaced):
        return f"waits: {answer.reason}"
    where = ", ".join(f"{at} on {node}" for at, node in answer.nodes.items())
    return f"placed in {answer.level} {answer.domain}: {where}"


def _line(decision: Decision) -> str:
    words = describe(decision.placed) if decision.placed else f"waits: {decision.reason}"
    return f"{'/'.join(decision.key)}: {words}"


def replay(document: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """(the decisions in words, how they differ from those in the document). Raises ReplayError."""
    decisions = load(document).decide()
    lines = [_line(decision) for decision in decisions]
    if not document.get("decisions"):
        return lines, []
    before = {"/".join(item["key"]): item for item in document["decisions"]}
    # Through JSON, as the recorded ones went: its keys are strings.
    after = {"/".join(d.key): json.loads(json.dumps(outcome(d))) for d in decisions}
    return lines, [
        f"{key}: was {before.get(key)}, is {after.get(key)}"
        for key in sorted({*before, *after})
        if before.get(key) != after.get(key)
    ]


def main(arguments: Sequence[str]) -> int:
    """Decide again on a file's case and print the decisions; 1 if they are others than recorded."""
    if len(arguments) != 1:
        print("usage: drakkar debug replay FILE", file=sys.stderr)
        return 64
    try:
        text = sys.stdin.read() if arguments[0] == "-" else Path(arguments[0]).read_text()
        lines, differences = replay(json.loads(text))
    except (OSError, ReplayError, json.JSONDecodeError) as error:
        print(f"error: {arguments[0]}: {error}", file=sys.stderr)
        return 1
    print("\n".join(lines) or "nothing waits in this snapshot")
    for line in differences:
        print(f"differs: {line}", file=sys.stderr)
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
