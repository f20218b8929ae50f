"""Quantities as Kubernetes writes them."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drakkar.quantity import amount, parse, show


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("2", "2"),
        (2, "2"),
        ("1500m", "1.5"),
        ("8Gi", str(8 * 2**30)),
        ("1.5k", "1500"),
        ("0", "0"),
        ("1e3", "1000"),
        ("2E", str(2 * 10**18)),
        (".5", "0.5"),
        ("-1", "-1"),
    ],
)
def test_what_a_quantity_stands_for(text: str | int, number: str) -> None:
    assert parse(text) == Decimal(number)


@pytest.mark.parametrize("text", ["", "Gi", "1 Gi", "1GiB", "x", "1..2", "0x10", "١"])
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(ValueError, match="is not a quantity"):
        parse(text)


@pytest.mark.parametrize(
    ("resource", "text", "units"),
    [("cpu", "1500m", 1500), ("cpu", "1u", 1), ("memory", "1Ki", 1024), ("x.io/gpu", "3", 3)],
)
def test_amounts_are_whole_and_rounded_up(resource: str, text: str, units: int) -> None:
    assert amount(resource, text) == units


@given(st.integers(0, 10**6))
def test_shown_cpu_can_be_read_back(millicores: int) -> None:
    assert amount("cpu", show("cpu", millicores)) == millicores


def test_amounts_are_shown_in_short() -> None:
    assert show("memory", 2 * 2**30) == "2Gi"
    assert show("memory", 1536 * 2**20) == "1.5Gi"
    assert show("nvidia.com/gpu", 8) == "8"
