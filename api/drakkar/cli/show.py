"""Objects as text and tables: pure functions, no cluster and no terminal."""

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.text import Text

from drakkar.v1alpha1 import Kind
from drakkar.v1alpha1.objects import Column

Object = dict[str, Any]


def duration(seconds: float) -> str:
    """A time span in at most two units: 42s, 3m5s, 2h10m, 4d."""
    whole = max(0, int(seconds))
    days, hours, minutes = whole // 86_400, whole // 3600 % 24, whole // 60 % 60
    if days >= 2:
        return f"{days}d"
    if days or hours:
        return f"{days * 24 + hours}h" + (f"{minutes}m" if minutes else "")
    if minutes >= 10:
        return f"{minutes}m"
    if minutes:
        return f"{minutes}m" + (f"{whole % 60}s" if whole % 60 else "")
    return f"{whole}s"


def age(timestamp: str | datetime | None, now: datetime) -> str:
    """Time since a Kubernetes timestamp, or "" where there is none."""
    if not timestamp:
        return ""
    if isinstance(timestamp, str):
        timestamp = datetime.fromisoformat(timestamp.replace("Z", "+00:00"))
    return duration((now - timestamp).total_seconds())


def number(value: float | None) -> str:
    """A measurement in four significant digits, or "" where there is none."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def value_at(item: Object, path: str) -> Any:
    """The value at a JSON path such as .spec.levels[*].name; [*] gives a comma-separated list."""
    found: Any = item
    parts = re.findall(r"[^.\[\]]+|\[\*\]", path)
    for index, part in enumerate(parts):
        if part == "[*]":
            rest = "".join(f".{name}" for name in parts[index + 1 :])
            return ",".join(str(value_at(entry, rest)) for entry in found or ())
        if not isinstance(found, dict):
            return None
        found = found.get(part)
    return found


def cell(item: Object, column: Column, now: datetime) -> str:
    """The text of one column of an object."""
    value = value_at(item, column.path)
    if value is None:
        return ""
    if column.type == "date":
        return age(str(value), now)
    if column.type == "number":
        return number(float(value))
    return str(int(value)) if column.type == "integer" else str(value)


def columns(kind: Kind, *, wide: bool) -> list[Column]:
    """The columns that are shown."""
    return [column for column in kind.columns if wide or not column.wide]


def rows(
    items: Iterable[Object],
    shown: Sequence[Column],
    *,
    namespaces: bool = False,
    now: datetime | None = None,
) -> list[list[str]]:
    """Name (and namespace) and the columns of each object."""
    moment = now or datetime.now(UTC)
    return [
        [
            *([item["metadata"].get("namespace", "")] if namespaces else []),
            item["metadata"]["name"],
            *(cell(item, column, moment) for column in shown),
        ]
        for item in items
    ]


def table(headers: Sequence[str], lines: Iterable[Sequence[str]]) -> Text:
    """Cells in columns, three spaces apart, never cut; no heading if all headers are empty."""
    body = [list(line) for line in lines]
    grid = [[header.upper() for header in headers], *body] if any(headers) else body
    widths = [max(map(len, cells)) for cells in zip(*grid, strict=True)]
    drawn = Text(no_wrap=True, overflow="ignore")
    for index, line in enumerate(grid):
        style = "bold" if index == 0 and any(headers) else ""
        drawn.append(aligned(line, widths) + ("\n" if index < len(grid) - 1 else ""), style=style)
    return drawn


def aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    """The cells of one line, each padded to its column's width."""
    padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
    return "   ".join(padded).rstrip()


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th, ..., 11th, ..., 21st."""
    ending = "th" if number // 10 % 10 == 1 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def line_of(queue: str | None) -> str:
    """The line in which a job waits, in words."""
    return f"queue {queue}" if queue else "the line of jobs without a queue"
