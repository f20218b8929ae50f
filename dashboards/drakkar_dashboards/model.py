"""The few parts of Grafana's dashboard model that Drakkar's dashboards are made of.

A dashboard is rows of panels, a panel is queries with a unit. ``grafana.py`` writes it as JSON.
"""

from dataclasses import dataclass
from typing import Literal

Unit = Literal[
    "short",  # a count
    "percentunit",  # 0 to 1
    "s",
    "bytes",
    "Bps",
    "reqps",
    "ops",
    "cps",  # counts per second
    "celsius",
    "watt",
    "hertz",
    "bool_on_off",
    "none",  # a measure without a unit, such as a loss
]
View = Literal["timeseries", "stat", "bargauge", "heatmap", "table", "state-timeline"]
WIDTH = 24
"""Columns of Grafana's grid."""


@dataclass(frozen=True, slots=True)
class Query:
    """A PromQL expression and what its series are called: "{{label}}" or fixed words."""

    expr: str
    legend: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture."""

    title: str
    unit: Unit
    queries: tuple[Query, ...]
    view: View = "timeseries"
    width: int = 8
    height: int = 8
    help: str = ""
    """How to read it."""
    stacked: bool = False
    top: float | None = None
    """Upper end of the axis."""
    warn: float | None = None
    """From here on it is shown in orange ..."""
    alarm: float | None = None
    """... and from here on in red; below ``warn`` it is the other way round: low is bad."""
    buckets: bool = False
    """Heat map of a histogram's buckets; else of one series per row."""


@dataclass(frozen=True, slots=True)
class Row:
    """Panels beside and below each other, under a heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """A choice at the top of the page: the values of a label of a metric."""

    name: str
    label: str
    metric: str
    """May hold selectors with earlier variables."""
    of: str
    """The label whose values are offered."""
    many: bool = True
    """Several or all of them may be chosen at once."""


@dataclass(frozen=True, slots=True)
class Marks:
    """Vertical lines where the expression is above zero."""

    name: str
    expr: str
    text: str
    color: str = "orange"


@dataclass(frozen=True, slots=True)
class Dashboard:
    """One page. ``uid`` is in its address and never changes."""

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]
    variables: tuple[Variable, ...] = ()
    marks: tuple[Marks, ...] = ()

    @property
    def panels(self) -> tuple[Panel, ...]:
        """Of all rows."""
        return tuple(panel for row in self.rows for panel in row.panels)


def q(expr: str, legend: str = "") -> Query:
    """A query; its expression may be written over several lines."""
    return Query(" ".join(expr.split()), legend)
