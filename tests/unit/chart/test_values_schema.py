"""Wrong values are refused by helm before anything is installed."""

from collections.abc import Callable
from typing import Any

import pytest

BAD = {
    "unknown value": ({"replica": 2}, "replica"),
    "misspelt worker value": ({"worker": {"img": "x"}}, "img"),
    "too many replicas": ({"replicas": 100}, "replicas"),
    "replicas as text": ({"replicas": "two"}, "replicas"),
    "privileged port": ({"port": 80}, "port"),
    "unknown log level": ({"logLevel": "loud"}, "logLevel"),
    "unknown pull policy": (
        {"image": {"repository": "x", "pullPolicy": "Sometimes"}},
        "pullPolicy",
    ),
    "malformed digest": ({"image": {"repository": "x", "digest": "sha256:12"}}, "digest"),
    "malformed namespace": ({"watchNamespaces": ["Team A"]}, "watchNamespaces"),
    "namespace twice": ({"watchNamespaces": ["a", "a"]}, "watchNamespaces"),
    "image with space": ({"worker": {"image": "a b"}}, "image"),
    "empty python": ({"python": ""}, "python"),
    "runbooks with a slash at the end": (
        {"prometheusRule": {"runbooks": "https://docs.example/"}},
        "runbooks",
    ),
    "peer that is none": ({"networkPolicy": {"users": [{"cidr": "10.0.0.0/8"}]}}, "users"),
    "interval without unit": ({"serviceMonitor": {"interval": "30"}}, "interval"),
}


@pytest.mark.parametrize(("values", "named"), BAD.values(), ids=BAD.keys())
def test_refused_with_the_values_name(
    attempt: Callable[..., Any], values: dict[str, Any], named: str
) -> None:
    answer = attempt(values)
    assert answer.returncode != 0
    assert named in answer.stderr
