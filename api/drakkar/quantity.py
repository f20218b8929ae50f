"""Kubernetes resource quantities as integers (apimachinery's ``resource.Quantity`` grammar)."""

import re
from decimal import ROUND_CEILING, Decimal
from functools import lru_cache
from typing import Final

_SUFFIX: Final = {
    "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "": Decimal(1),
    "k": Decimal("1e3"), "M": Decimal("1e6"), "G": Decimal("1e9"), "T": Decimal("1e12"),
    "P": Decimal("1e15"), "E": Decimal("1e18"),
    "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30), "Ti": Decimal(2**40),
    "Pi": Decimal(2**50), "Ei": Decimal(2**60),
}  # fmt: skip
_PATTERN: Final = re.compile(
    r"^([+-]?(?:\d+\.?\d*|\.\d+))(?:([eE][+-]?\d+)|([numkMGTPE]|[KMGTPE]i)?)$", re.ASCII
)


def parse(quantity: int | float | str) -> Decimal:
    """The value of a quantity: "500m" is 0.5, "1Ki" is 1024. Raises ValueError if malformed."""
    match = _PATTERN.match(str(quantity).strip())
    if match is None:
        raise ValueError(f"{quantity!r} is not a quantity; write for example 2, 500m or 16Gi")
    number, exponent, suffix = match.groups()
    return Decimal(number + (exponent or "")) * _SUFFIX[suffix or ""]


@lru_cache(maxsize=8192)
def amount(resource: str, quantity: int | float | str) -> int:
    """The quantity in whole units, rounded up: millicores for cpu, else bytes or counts."""
    value = parse(quantity) * (1000 if resource == "cpu" else 1)
    return int(value.to_integral_value(ROUND_CEILING))


def show(resource: str, value: int) -> str:
    """An amount in the short form people write: 1500 of cpu is "1500m", 2 GiB of memory "2Gi"."""
    if resource == "cpu":
        return f"{value}m" if value % 1000 else str(value // 1000)
    if resource in ("memory", "ephemeral-storage") or resource.startswith("hugepages-"):
        for unit, size in (("Ti", 2**40), ("Gi", 2**30), ("Mi", 2**20), ("Ki", 2**10)):
            if value >= size:
                return f"{value / size:.4g}{unit}"
    return str(value)
