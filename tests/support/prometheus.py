"""A running Prometheus, asked over HTTP."""

import json
import math
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RULES = Path(__file__).parents[2] / "charts" / "drakkar" / "files" / "rules.yaml"


@dataclass(frozen=True)
class Prometheus:
    """A running one."""

    url: str

    def get(self, path: str, **query: str) -> Any:
        """The data of an answer; fails with Prometheus' own words."""
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=60) as answer:
            told = json.load(answer)
        assert told["status"] == "success", told
        return told["data"]

    def query(self, expr: str) -> list[Any]:
        """The series of an expression, now."""
        found: list[Any] = self.get("query", query=expr)["result"]
        return found


def numbers(found: list[Any]) -> bool:
    """Whether at least one series has a value that can be drawn."""
    return any(not math.isnan(float(series["value"][1])) for series in found)
