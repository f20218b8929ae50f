"""The page of all metrics says what the components tell."""

import re

import yaml

from drakkar_dashboards.__main__ import FOLDER
from drakkar_dashboards.boards import ALL
from support.exposition import components
from support.metrics_page import PAGE, page


def test_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run make generate"


def test_every_metric_is_explained_and_named_as_prometheus_wants_it() -> None:
    for part in components():
        part.step()
        for family in part.registry.collect():
            assert family.documentation.strip().endswith("."), family.name
            assert re.fullmatch(r"(drakkar|vllm)[_:][a-z0-9_]+", family.name), family.name


def test_every_metric_that_is_drawn_or_alerted_on_is_on_the_page() -> None:
    rules = (FOLDER.parent / "rules.yaml").read_text()
    records = {
        rule["record"]
        for group in yaml.safe_load(rules)["groups"]
        for rule in group["rules"]
        if "record" in rule
    }
    text = page()
    read = {
        name
        for board in ALL
        for panel in board.panels
        for query in panel.queries
        for name in re.findall(r"(?<![\w:])(?:drakkar|vllm)[_:][\w:]+", query.expr)
    }
    for name in read - records:
        assert re.sub(r"_(bucket|sum|count)$", "", name) + "`" in text, name
