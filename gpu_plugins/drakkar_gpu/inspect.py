"""Show what accelerators this machine has: ``python -m drakkar_gpu list|links|faults|metrics``.

Vendors are looked for in the order nvidia, amd, ascend, cambricon, enflame, moorethreads, hygon,
gaudi, tpu, neuron; ``--vendor`` asks one of them without looking, also ``simulated``.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from drakkar import catalogue, quantity
from drakkar_gpu.devices import detect
from drakkar_gpu.devices.base import LinkKind, Severity, Vendor, VendorError
from drakkar_gpu.devices.simulated import Simulated, SimulatedSpec

Row = dict[str, Any]
COMMANDS = ("list", "links", "faults", "metrics")
WIDTH = 400
"""Columns of a table: a line too long for the terminal is broken there, not within its cells."""
NOTHING = 3
"""Exit status if there is no accelerator here; 1 if a vendor can't be read."""
COLOURS = {Severity.WARNING: "yellow", Severity.UNHEALTHY: "red", Severity.FATAL: "bold red"}
WIRES = {
    LinkKind.FABRIC: "fabric",
    LinkKind.SWITCH: "PCIe switch",
    LinkKind.BRIDGE: "host bridge",
    LinkKind.NUMA: "NUMA node",
    LinkKind.SYSTEM: "system",
}


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """What the command line says."""
    names = [*detect.VENDORS, "simulated"]
    parser = argparse.ArgumentParser(prog="drakkar_gpu", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument(
        "--vendor",
        choices=names,
        action="append",
        default=[],
        help="ask this vendor without looking for its hardware (may be repeated)",
    )
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table")
    parser.add_argument(
        "--timeout", type=float, default=30.0, help="seconds that a vendor may take to answer"
    )
    return parser.parse_args(argv)


def chosen(names: Sequence[str], seconds: float) -> list[Vendor]:
    """The vendors to ask."""
    real = [name for name in names if name != "simulated"]
    found = detect.make(real, seconds=seconds) if names else detect.present(seconds=seconds)
    if "simulated" in names:
        found.append(Simulated(SimulatedSpec(), node="this"))
    return found


def _list(vendor: Vendor) -> list[Row]:
    ill: dict[str, str] = {}
    for fault in vendor.faults():
        if fault.severity is not Severity.WARNING:
            ill.setdefault(fault.device, fault.code)
    return [
        {**asdict(device), "vendor": vendor.name, "fault": ill.get(device.id)}
        for device in vendor.devices()
    ]


def _links(vendor: Vendor) -> list[Row]:
    return [{"vendor": vendor.name, **asdict(link)} for link in vendor.links()]


def _faults(vendor: Vendor) -> list[Row]:
    return [{"vendor": vendor.name, **asdict(fault)} for fault in vendor.faults()]


def _metrics(vendor: Vendor) -> list[Row]:
    return [{"vendor": vendor.name, **asdict(sample)} for sample in vendor.metrics()]


GATHER: Mapping[str, Callable[[Vendor], list[Row]]] = {
    "list": _list,
    "links": _links,
    "faults": _faults,
    "metrics": _metrics,
}


def gather(command: str, vendors: Sequence[Vendor]) -> tuple[list[Row], list[str]]:
    """Rows of all vendors that answer, and what those say that don't."""
    rows: list[Row] = []
    errors: list[str] = []
    for vendor in vendors:
        try:
            rows += GATHER[command](vendor)
        except VendorError as error:
            errors.append(str(error))
    return rows, errors


def table(command: str, rows: Sequence[Row]) -> Table:
    """Rows as people read them."""
    shown = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    columns, line = TABLES[command]
    for column in columns:
        shown.add_column(column, no_wrap=True)
    for row in rows:
        shown.add_row(*line(row))
    return shown


def _list_line(row: Row) -> list[str]:
    numa = row["numa_node"]
    return [
        row["vendor"],
        str(row["index"]) + (f" {row['profile']}" if row["profile"] else ""),
        escape(row["model"]),
        quantity.show("memory", row["memory_bytes"]),
        _peak(row["model"]),
        "-" if numa is None else str(numa),
        row["pci_address"] or "-",
        row["domain"] or "-",
        "[green]ok[/]" if row["fault"] is None else f"[red]{row['fault']}[/]",
        escape(row["id"]),
    ]


def _peak(model: str) -> str:
    """TFLOP/s of bf16 by the catalogue; one that is unconfirmed there has a question mark."""
    chip = catalogue.find(model)
    if chip is None or chip.tflops.bf16 is None:
        return "-"
    return f"{chip.tflops.bf16:g}{'' if chip.confirmed('tflops.bf16') else '?'}"


def _links_line(row: Row) -> list[str]:
    gbps = row["gbps"]
    return [
        escape(row["a"]),
        escape(row["b"]),
        WIRES[row["kind"]],
        "-" if gbps is None else f"{gbps:g}",
    ]


def _faults_line(row: Row) -> list[str]:
    severity = Severity(row["severity"])
    word = f"[{COLOURS[severity]}]{severity}[/]"
    return [escape(row["device"]), row["code"], word, escape(row["message"])]


def _metrics_line(row: Row) -> list[str]:
    labels = ", ".join(f"{name}={value}" for name, value in row["labels"].items())
    return [escape(row["device"]), row["name"], labels, f"{row['value']:g}"]


TABLES: Mapping[str, tuple[Sequence[str], Callable[[Row], list[str]]]] = {
    "list": (
        ("VENDOR", "INDEX", "MODEL", "MEMORY", "BF16 TFLOP/S", "NUMA", "PCI", "FABRIC", "STATE", "ID"),
        _list_line,
    ),
    "links": (("DEVICE", "DEVICE", "OVER", "GBIT/S"), _links_line),
    "faults": (("DEVICE", "CODE", "SEVERITY", "EVIDENCE"), _faults_line),
    "metrics": (("DEVICE", "METRIC", "LABELS", "VALUE"), _metrics_line),
}  # fmt: skip
EMPTY = {
    "list": "No accelerator answers.",
    "links": "No links: fewer than two devices, or none nearer than across the sockets.",
    "faults": "No faults.",
    "metrics": "No metrics.",
}


def nothing() -> str:
    """Why there is nothing to ask."""
    return (
        "no accelerator is seen here: no PCI device and no tool of "
        f"{', '.join(detect.VENDORS)}. Ask one all the same with --vendor NAME."
    )


def main(argv: Sequence[str], console: Console | None = None) -> int:
    """Print what was asked for; returns the exit status."""
    given = arguments(argv)
    console = console or Console(width=WIDTH)
    vendors = chosen(given.vendor, given.timeout)
    if not vendors:
        print(f"error: {nothing()}", file=sys.stderr)
        return NOTHING
    rows, errors = gather(given.command, vendors)
    if given.output == "json":
        console.out(json.dumps(rows, indent=2), highlight=False)
    elif rows:
        console.print(table(given.command, rows))
    elif not errors:
        console.print(EMPTY[given.command])
    for error in errors:
        print(f"error: {error}", file=sys.stderr)
    return 1 if errors else 0
