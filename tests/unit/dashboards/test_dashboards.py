"""Dashboards are committed as generated, and are what Grafana's schema asks for."""

import json
import re
from itertools import combinations
from typing import Any

import pytest

from drakkar_dashboards.__main__ import FOLDER, files
from drakkar_dashboards.boards import ALL
from drakkar_dashboards.grafana import render
from drakkar_dashboards.model import WIDTH, Dashboard

FILES = files()
PLUGINS = {"row", "timeseries", "stat", "bargauge", "heatmap", "table", "state-timeline"}
BUILT_IN = {"datasource", "__rate_interval"}
MIB = 1 << 20


@pytest.mark.parametrize("name", sorted(FILES))
def test_file_is_up_to_date(name: str) -> None:
    assert (FOLDER / name).read_text(encoding="utf-8") == FILES[name], (
        f"{name} is not what the code says: run make generate"
    )
    assert len(FILES[name]) < MIB / 4, "a ConfigMap holds 1 MiB"


def test_no_file_is_left_of_a_dashboard_that_is_gone() -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(FILES)


def test_addresses_are_unique_and_short_enough() -> None:
    assert len({board.uid for board in ALL}) == len({board.title for board in ALL}) == len(ALL)
    assert all(re.fullmatch(r"[a-z0-9-]{1,40}", board.uid) for board in ALL)


@pytest.mark.parametrize("board", ALL, ids=lambda board: board.uid)
def test_panels_have_places_of_their_own(board: Dashboard) -> None:
    panels = render(board)["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [panel["gridPos"] for panel in panels]
    assert all(at["x"] >= 0 and at["x"] + at["w"] <= WIDTH for at in places)
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        apart = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or apart, (one, other)


@pytest.mark.parametrize("board", ALL, ids=lambda board: board.uid)
def test_panels_are_what_the_schema_asks_for(board: Dashboard) -> None:
    for panel in render(board)["panels"]:
        assert panel["type"] in PLUGINS and panel["title"]
        if panel["type"] == "row":
            assert panel["panels"] == [] and panel["collapsed"] is False
            continue
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["fieldConfig"]["overrides"] == []
        letters = [target["refId"] for target in panel["targets"]]
        assert letters == sorted(set(letters)) and letters
        steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
        bounds = [step["value"] for step in steps]
        assert bounds[0] is None and bounds[1:] == sorted(bounds[1:])


@pytest.mark.parametrize("board", ALL, ids=lambda board: board.uid)
def test_every_variable_is_declared_before_it_is_used(board: Dashboard) -> None:
    told: dict[str, Any] = render(board)
    known = set(BUILT_IN)
    for variable in told["templating"]["list"]:
        used = set(re.findall(r"\$\{?(\w+)", str(variable["query"])))
        assert used <= known, variable["name"]
        known.add(variable["name"])
    text = json.dumps({"panels": told["panels"], "annotations": told["annotations"]})
    assert set(re.findall(r"\$\{?(\w+)", text)) <= known


@pytest.mark.parametrize("board", ALL, ids=lambda board: board.uid)
def test_every_series_has_a_name_and_every_time_and_share_its_unit(board: Dashboard) -> None:
    for panel in board.panels:
        for query in panel.queries:
            assert query.legend, panel.title
            counted = re.search(r"\b(count|increase|rate|histogram_quantile)\(|/", query.expr)
            names = re.findall(r"(?:drakkar|vllm)[\w:]+", query.expr)
            if counted or not names:
                continue
            unit = {"seconds": "s", "ratio": "percentunit", "bytes": "bytes", "watts": "watt"}
            last = names[0].rsplit("_", 1)[-1]
            if last in unit and not names[0].startswith("drakkar:"):
                assert panel.unit == unit[last], (panel.title, names[0])


def test_links_lead_to_all_other_dashboards() -> None:
    for board in ALL:
        (link,) = render(board)["links"]
        assert link["includeVars"] and link["keepTime"]
        assert set(link["tags"]) <= set(render(board)["tags"])
