"""Take apart what vendors' tools print. All functions raise VendorError, and nothing else."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from drakkar_gpu.devices.base import VendorError

_NUMBER = re.compile(r"[-+]?\d{1,18}(?:\.\d{1,18})?(?![\d.]|[eE][-+]?\d)", re.ASCII)
_LARGEST = 1e18
_PCI = re.compile(r"(?:([0-9a-fA-F]{4,8}):)?([0-9a-fA-F]{2}):([0-9a-fA-F]{2})\.([0-7])", re.ASCII)
_ABSENT = frozenset({"", "-", "--", "na", "n/a", "[n/a]", "none", "null", "unknown", "unsupported"})


def absent(text: object) -> bool:
    """Whether a tool says that it has no such value."""
    return str(text).strip().lower() in _ABSENT


def number(text: object, what: str) -> float | None:
    """The number that a value begins with, units behind it are ignored ("226 W" is 226); None if
    the tool has no value. ``what`` names the value in the error."""
    if isinstance(text, int | float):
        if not abs(text) <= _LARGEST:
            raise VendorError(f"{what}: {_short(text)} is not a number that can be")
        return float(text)
    if absent(text):
        return None
    match = _NUMBER.match(str(text).strip())
    if match is None:
        raise VendorError(f"{what}: {_short(text)} is not a number")
    return float(match.group())


def needed(text: object, what: str) -> float:
    """``number``, where the tool always has a value."""
    value = number(text, what)
    if value is None:
        raise VendorError(f"{what}: no value")
    return value


def count(text: object, what: str, *, most: int = 4096) -> int:
    """A whole number from 0 to ``most``."""
    value = needed(text, what)
    if value != int(value) or not 0 <= value <= most:
        raise VendorError(f"{what}: {_short(text)} is not a whole number from 0 to {most}")
    return int(value)


def mebibytes(text: object, what: str) -> int:
    """Bytes of a value in MiB."""
    value = needed(text, what)
    if not 0 <= value < 1 << 26:
        raise VendorError(f"{what}: {_short(text)} is no size of a device's memory in MiB")
    return int(value) << 20


def pci(text: object, what: str) -> str:
    """A PCI address as the kernel writes it: 0000:c1:00.0."""
    match = _PCI.fullmatch(str(text).strip())
    if match is None:
        raise VendorError(f"{what}: {_short(text)} is not a PCI address")
    domain, bus, device, function = match.groups()
    return f"{int(domain or '0', 16):04x}:{bus}:{device}.{function}".lower()


def field(record: Mapping[str, str], key: str, what: str) -> str:
    """A value that must be there."""
    try:
        return record[key]
    except KeyError:
        raise VendorError(f"{what}: it says no {key!r}") from None


def outline(text: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """(headings and key, value) of each line of an indented report::

    Card 0
        Power            :
            Usage        : 44 W      -> ("Card 0", "Power", "Usage"), "44 W"
    """
    stack: list[tuple[int, str]] = []
    for line in text.splitlines():
        plain = line.expandtabs(8).rstrip()
        if not plain.strip(" -=+*"):
            continue
        depth = len(plain) - len(plain.lstrip())
        key, _, value = plain.strip().partition(":")
        while stack and stack[-1][0] >= depth:
            stack.pop()
        stack.append((depth, " ".join(key.split())))
        yield tuple(name for _, name in stack), value.strip()


def reports(text: str, heading: str) -> dict[int, dict[tuple[str, ...], str]]:
    """The reports of an outline by the number of their heading ("Card 0", "DEV ID 0"), each with
    its values by (headings and key) below that heading."""
    found: dict[int, dict[tuple[str, ...], str]] = {}
    pattern = re.compile(rf"{re.escape(heading)} (\d{{1,4}})", re.ASCII)
    for path, value in outline(text):
        match = pattern.fullmatch(path[0])
        if match:
            report = found.setdefault(int(match.group(1)), {})
            if len(path) > 1:
                report.setdefault(path[1:], value)
    return found


def cells(line: str) -> list[str]:
    """The cells of a line of a table that is drawn with |."""
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def matrix(text: str, prefix: str) -> dict[tuple[int, int], str]:
    """The words of a matrix of links such as ``nvidia-smi topo -m`` and its likes print, by the
    numbers of row and column, for rows and columns that begin with ``prefix`` (NPU0, GPU0)."""
    name = re.compile(rf"{re.escape(prefix)}(\d{{1,4}})", re.ASCII)
    columns: list[int] | None = None
    found: dict[tuple[int, int], str] = {}
    for line in text.splitlines():
        words = line.split()
        matches = [name.fullmatch(word) for word in words]
        if not words or matches[0] is None:
            continue
        if columns is None:
            columns = [int(match.group(1)) for match in matches if match]
            continue
        row = int(matches[0].group(1))
        if len(words) - 1 < len(columns):
            raise VendorError(f"row {prefix}{row} of the matrix of links has too few columns")
        found |= {(row, column): words[1 + at] for at, column in enumerate(columns)}
    if columns is None or not found:
        raise VendorError(f"there is no matrix of links between {prefix}0, {prefix}1, ...")
    return found


def from_json(text: str, what: str) -> Any:
    """JSON that a tool prints, behind lines of warnings if there are any."""
    start = min((at for at in (text.find("["), text.find("{")) if at >= 0), default=-1)
    try:
        return json.loads(text[start:] if start >= 0 else text)
    except (ValueError, RecursionError) as error:
        raise VendorError(f"{what} is not JSON: {_short(error)}") from error


def _short(value: object) -> str:
    # Not str(): of an integer of thousands of digits Python makes no string.
    try:
        text = str(value)
    except ValueError:
        text = "a number of thousands of digits"
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
