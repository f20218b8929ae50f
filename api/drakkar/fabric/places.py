"""Places of nodes as labels, and the Topology that they make."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from drakkar.constants import API_VERSION, DEFAULT_LEVELS, LABEL_FABRIC, LEVEL_HOST

Places = Mapping[str, Mapping[str, str]]
"""Node name -> level name (zone, block, rack) -> the domain's name."""

LABELS = {name: label for name, label in DEFAULT_LEVELS if label != LEVEL_HOST}
"""Node label of each level."""


def label_value(text: str) -> str:
    """The text as a label's value: at most 63 letters, digits, dots, dashes and underscores."""
    return re.sub(r"[^A-Za-z0-9_.]+", "-", text)[:63].strip("-_.")


def label_changes(labels: Mapping[str, str], place: Mapping[str, str]) -> dict[str, str]:
    """Labels that a node lacks or has otherwise."""
    wanted = {LABELS[level]: label_value(name) for level, name in place.items()}
    return {key: value for key, value in wanted.items() if value and labels.get(key) != value}


def topology(name: str, nodes: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """A Topology of the levels that the nodes' labels tell apart, widest first.

    A level that no node has a label for is left out. The fabric of the accelerators (NVLink between
    nodes) is the level above the host where there is one.
    """
    levels = [
        (level, label)
        for level, label in (
            *((n, key) for n, key in DEFAULT_LEVELS if key != LEVEL_HOST),
            ("fabric", LABEL_FABRIC),
        )
        if any(label in labels for labels in nodes)
    ]
    return {
        "apiVersion": API_VERSION,
        "kind": "Topology",
        "metadata": {"name": name},
        "spec": {
            "levels": [
                {"name": level, "nodeLabel": label}
                for level, label in (*levels, ("host", LEVEL_HOST))
            ]
        },
    }
