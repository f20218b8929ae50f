"""A dashboard as the JSON that Grafana imports (schema version 39: Grafana 10.4 and later)."""

from collections.abc import Iterator
from typing import Any

from drakkar_dashboards.model import WIDTH, Dashboard, Marks, Panel, Query, Row, Variable

SCHEMA_VERSION = 39
TAG = "drakkar"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
Object = dict[str, Any]


def render(board: Dashboard) -> Object:
    """The whole dashboard."""
    return {
        "uid": board.uid,
        "title": board.title,
        "description": board.description,
        "tags": [TAG],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "timezone": "browser",
        "time": {"from": "now-3h", "to": "now"},
        "refresh": "30s",
        "links": [_links()],
        "annotations": {"list": [_annotation(marks) for marks in board.marks]},
        "templating": {"list": [_source(), *map(_variable, board.variables)]},
        "panels": list(_panels(board.rows)),
    }


def _links() -> Object:
    """A menu of the other dashboards, which keep the time and the choices made here."""
    return {
        "type": "dashboards",
        "title": "Drakkar",
        "tags": [TAG],
        "asDropdown": True,
        "includeVars": True,
        "keepTime": True,
        "targetBlank": False,
        "icon": "external link",
        "tooltip": "",
        "url": "",
    }


def _source() -> Object:
    return {
        "type": "datasource",
        "name": "datasource",
        "label": "Prometheus",
        "query": "prometheus",
        "hide": 0,
        "multi": False,
        "includeAll": False,
        "refresh": 1,
        "regex": "",
        "options": [],
        "current": {},
    }


def _variable(variable: Variable) -> Object:
    query = f"label_values({variable.metric}, {variable.of})"
    every = {"text": ["All"], "value": ["$__all"], "selected": True}
    return {
        "type": "query",
        "name": variable.name,
        "label": variable.label,
        "datasource": SOURCE,
        "definition": query,
        "query": {"query": query, "refId": "StandardVariableQuery"},
        "refresh": 2,
        "sort": 1,
        "hide": 0,
        "multi": variable.many,
        "includeAll": variable.many,
        "allValue": ".*" if variable.many else None,
        "regex": "",
        "options": [],
        "current": every if variable.many else {},
    }


def _annotation(marks: Marks) -> Object:
    return {
        "name": marks.name,
        "datasource": SOURCE,
        "enable": True,
        "hide": False,
        "iconColor": marks.color,
        "expr": marks.expr,
        "titleFormat": marks.name,
        "textFormat": marks.text,
        "step": "30s",
        "useValueForTime": False,
    }


def _panels(rows: tuple[Row, ...]) -> Iterator[Object]:
    """Panels from left to right, in lines as high as their highest."""
    number, top = 1, 0
    for row in rows:
        head = {"h": 1, "w": WIDTH, "x": 0, "y": top}
        yield {
            "id": number,
            "type": "row",
            "title": row.title,
            "collapsed": False,
            "gridPos": head,
            "panels": [],
        }
        number, top = number + 1, top + 1
        left = highest = 0
        for panel in row.panels:
            if left + panel.width > WIDTH:
                left, top, highest = 0, top + highest, 0
            place = {"h": panel.height, "w": panel.width, "x": left, "y": top}
            yield _panel(panel, number, place)
            number, left = number + 1, left + panel.width
            highest = max(highest, panel.height)
        top += highest


def _panel(panel: Panel, number: int, place: Object) -> Object:
    return {
        "id": number,
        "type": panel.view,
        "title": panel.title,
        "description": panel.help,
        "datasource": SOURCE,
        "gridPos": place,
        "targets": [_target(panel, query, index) for index, query in enumerate(panel.queries)],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": _options(panel),
        "transformations": [{"id": "merge", "options": {}}] if panel.view == "table" else [],
    }


def _target(panel: Panel, query: Query, index: int) -> Object:
    table = panel.view == "table"
    return {
        "refId": chr(ord("A") + index),
        "datasource": SOURCE,
        "editorMode": "code",
        "expr": query.expr,
        "legendFormat": query.legend or "__auto",
        "format": "heatmap" if panel.buckets else "table" if table else "time_series",
        "instant": table,
        "range": not table,
    }


def _defaults(panel: Panel) -> Object:
    found: Object = {
        "unit": panel.unit,
        "min": 0 if panel.unit != "none" else None,
        "max": panel.top,
        "color": {"mode": "palette-classic" if panel.warn is None else "thresholds"},
        "thresholds": {"mode": "absolute", "steps": _thresholds(panel)},
        "custom": {},
    }
    if panel.view == "timeseries":
        found["color"] = {"mode": "palette-classic"}
        found["custom"] = {
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 60 if panel.stacked else 8,
            "showPoints": "never",
            "spanNulls": False,
            "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
        }
    return found


def _thresholds(panel: Panel) -> list[Object]:
    if panel.warn is None or panel.alarm is None:
        return [{"color": "green", "value": None}]
    steps = (("green", None), ("orange", panel.warn), ("red", panel.alarm))
    if panel.alarm < panel.warn:
        steps = (("red", None), ("orange", panel.alarm), ("green", panel.warn))
    return [{"color": color, "value": value} for color, value in steps]


def _options(panel: Panel) -> Object:
    reduced = {"calcs": ["lastNotNull"], "fields": "", "values": False}
    legend = {"displayMode": "list", "placement": "bottom", "showLegend": True}
    if panel.view == "timeseries":
        return {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}
    if panel.view == "stat":
        return {"reduceOptions": reduced, "graphMode": "area", "colorMode": "value"}
    if panel.view == "bargauge":
        return {"reduceOptions": reduced, "orientation": "horizontal", "displayMode": "lcd"}
    if panel.view == "heatmap":
        return {
            "calculate": False,
            "yAxis": {"axisPlacement": "left", "unit": panel.unit if panel.buckets else "none"},
            "rowsFrame": {"layout": "auto"},
            "color": {"mode": "scheme", "scheme": "Turbo", "steps": 64},
            "cellValues": {"unit": "cps" if panel.buckets else panel.unit},
            "cellGap": 1,
            "legend": {"show": True},
            "tooltip": {"mode": "single", "yHistogram": False},
        }
    if panel.view == "state-timeline":
        return {"legend": legend, "mergeValues": True, "showValue": "never", "rowHeight": 0.9}
    return {"showHeader": True, "cellHeight": "sm", "footer": {"show": False}}
