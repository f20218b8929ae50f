"""Every query of dashboards and rules returns numbers from what the components really tell."""

import re

import pytest
import yaml

from drakkar_dashboards.boards import ALL
from drakkar_dashboards.model import Dashboard, Variable
from support.prometheus import RULES, Prometheus, numbers

CHOSEN = {"$__rate_interval": "1m", "$level": "rack", "$resource": "nvidia.com/gpu"}
SINGLE = {"$namespace": "ml", "$job": "gpt"}
OPEN = re.compile(r"\$\w+")
METRIC = re.compile(r"(?<![\w:])(?:drakkar|vllm)[\w:]+")


def filled(expr: str, board: Dashboard) -> str:
    """An expression as Grafana sends it: every variable chosen, or all of it."""
    many = {f"${each.name}": ".*" for each in board.variables if each.many}
    for name, value in (CHOSEN | SINGLE | many).items():
        expr = expr.replace(name, value)
    assert not OPEN.search(expr), f"unknown variable in {expr}"
    return expr


@pytest.mark.parametrize("board", ALL, ids=lambda board: board.uid)
def test_every_query_of_a_dashboard_returns_numbers(
    board: Dashboard, prometheus: Prometheus
) -> None:
    queries = [
        (panel.title, query.expr, query.legend) for panel in board.panels for query in panel.queries
    ]
    queries += [(marks.name, marks.expr, marks.text) for marks in board.marks]
    silent = []
    for title, expr, legend in queries:
        found = prometheus.query(filled(expr, board))
        if not numbers(found):
            silent.append(f"{title}: {expr}")
            continue
        wanted = set(re.findall(r"{{(\w+)}}", legend))
        told = set.union(*(set(series["metric"]) for series in found))
        assert wanted <= told, f"{title}: the legend names {wanted - told}, series have {told}"
    assert not silent, "no data:\n" + "\n".join(silent)


@pytest.mark.parametrize(
    ("board", "variable"),
    [(board, variable) for board in ALL for variable in board.variables],
    ids=lambda part: part.uid if isinstance(part, Dashboard) else part.name,
)
def test_every_variable_offers_values(
    board: Dashboard, variable: Variable, prometheus: Prometheus
) -> None:
    expr = filled(variable.metric, board)
    assert prometheus.get(f"label/{variable.of}/values", **{"match[]": expr})


def test_every_rule_is_evaluated_and_every_record_has_numbers(prometheus: Prometheus) -> None:
    rules = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
    assert not [rule["lastError"] for rule in rules if rule["health"] != "ok"]
    records = [rule["name"] for rule in rules if rule["type"] == "recording"]
    assert len(records) == 11
    assert not [name for name in records if not numbers(prometheus.query(name))]


def test_every_metric_that_an_alert_reads_is_told(prometheus: Prometheus) -> None:
    """An alert that does not fire has no series, so its parts are asked for."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    alerts = [rule for group in groups for rule in group["rules"] if "alert" in rule]
    names = {name for rule in alerts for name in METRIC.findall(rule["expr"])}
    assert len(alerts) == 12 and len(names) > 12
    assert not [name for name in names if not prometheus.query(name)]
