"""``drakkar get``: tables of objects, once or as they change."""

import json
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import yaml
from rich.live import Live
from rich.markup import escape

from drakkar.cli import show
from drakkar.cli.session import console
from drakkar.client import Client, NotFoundError, ResourceClient
from drakkar.v1alpha1 import KINDS, Kind

Object = dict[str, Any]


class Output(StrEnum):
    """Forms of output."""

    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"


def kind_of(word: str) -> Kind:
    """The kind that a user names, by kind, plural or short name. Raises NotFoundError."""
    for model in KINDS:
        kind = model.KIND
        if word.lower() in {kind.name.lower(), kind.plural, kind.resource, *kind.short_names}:
            return kind
    known = ", ".join(f"{model.KIND.plural} ({model.KIND.short_names[0]})" for model in KINDS)
    raise NotFoundError(f"There is no kind '{word}'; there are {known}.")


def resource(client: Client, kind: Kind) -> ResourceClient[Any]:
    """The client's part for a kind."""
    clients: dict[str, ResourceClient[Any]] = {
        "TrainingJob": client.training_jobs,
        "InferenceService": client.inference_services,
        "Queue": client.queues,
        "Topology": client.topologies,
    }
    return clients[kind.name]


def once(
    client: Client, kind: Kind, name: str | None, output: Output | None, *, everywhere: bool
) -> None:
    """Print the objects of a kind, or the one named."""
    objects = resource(client, kind)
    found: Object
    if name:
        found = objects.get_raw(name)
        items = [found]
    else:
        found = objects.list_raw(all_namespaces=everywhere)
        items = found["items"]
    for item in items:
        item["metadata"].pop("managedFields", None)
    if output is Output.JSON:
        print(json.dumps(found, indent=2))
    elif output is Output.YAML:
        print(yaml.safe_dump(found, sort_keys=False, allow_unicode=True), end="")
    elif not items:
        where = "" if everywhere or not kind.namespaced else f" in namespace {client.namespace}"
        console.print(f"There are no {kind.plural}{where}.", style="dim")
    else:
        console.print(_table(items, kind, output, everywhere))


def watch(
    client: Client, kind: Kind, name: str | None, output: Output | None, *, everywhere: bool
) -> None:
    """Print objects as they change, until interrupted: a table on a terminal, else lines."""
    events = resource(client, kind).watch(name=name, all_namespaces=everywhere)
    if output in (Output.JSON, Output.YAML):
        for event in events:
            text = json.dumps(event.raw)
            print(
                text if output is Output.JSON else f"---\n{yaml.safe_dump(event.raw)}", flush=True
            )
        return
    if not console.is_terminal:
        _watch_lines(events, kind, output, everywhere)
        return
    current: dict[tuple[str, str], Object] = {}

    def draw() -> Any:
        return _table([item for _, item in sorted(current.items())], kind, output, everywhere)

    # Ages go on while nothing changes.
    with Live(console=console, refresh_per_second=2, get_renderable=draw):
        for event in events:
            key = (event.object.metadata.namespace or "", event.object.name)
            if event.type == "DELETED":
                current.pop(key, None)
            else:
                current[key] = event.raw


def _watch_lines(events: Any, kind: Kind, output: Output | None, everywhere: bool) -> None:
    shown = show.columns(kind, wide=output is Output.WIDE)
    headers = _headers(kind, shown, everywhere)
    widths = [max(len(header), 8) for header in headers]
    console.print(show.aligned(headers, widths), style="bold")
    for event in events:
        (cells,) = show.rows([event.raw], shown, namespaces=everywhere and kind.namespaced)
        mark = "  deleted" if event.type == "DELETED" else ""
        console.print(escape(show.aligned(cells, widths) + mark))


def _headers(kind: Kind, shown: Sequence[Any], everywhere: bool) -> list[str]:
    first = ["NAMESPACE"] if everywhere and kind.namespaced else []
    return [*first, "NAME", *(column.name.upper() for column in shown)]


def _table(items: list[Object], kind: Kind, output: Output | None, everywhere: bool) -> Any:
    shown = show.columns(kind, wide=output is Output.WIDE)
    lines = show.rows(items, shown, namespaces=everywhere and kind.namespaced)
    return show.table(_headers(kind, shown, everywhere), lines)
