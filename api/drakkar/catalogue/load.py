"""Read the catalogue's files, and find a chip by the name that a tool prints."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from drakkar.catalogue.chip import Chip, Source

VENDOR_PREFIXES = ("nvidia ", "amd ", "intel ", "huawei ", "moore threads ", "hygon ", "enflame ")
"""Words before the model that one version of a tool prints and the next one leaves out."""


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    vendor: str
    sources: dict[str, Source]
    chips: list[Chip]


def load(text: str, *, name: str = "catalogue") -> tuple[tuple[Chip, ...], dict[str, Source]]:
    """Chips and sources of one vendor's file; keys of sources get the vendor as a prefix.

    Raises ValueError with the file's name if it is malformed or names a source it doesn't list.
    """
    try:
        raw: Any = yaml.safe_load(text)
        for chip in raw["chips"]:
            chip["vendor"] = raw["vendor"]
        parsed = _File.model_validate(raw)
    except (yaml.YAMLError, ValidationError, KeyError, TypeError) as error:
        raise ValueError(f"{name}: {error}") from error
    for entry in parsed.chips:
        missing = {entry.source, *entry.sources.values()} - set(parsed.sources)
        if missing:
            raise ValueError(f"{name}: {entry.name} names sources not listed: {sorted(missing)}")
    prefix = parsed.vendor
    found = tuple(
        entry.model_copy(
            update={
                "source": f"{prefix}/{entry.source}",
                "sources": {key: f"{prefix}/{value}" for key, value in entry.sources.items()},
                "unconfirmed": entry.unconfirmed | _unread(entry, parsed.sources),
            }
        )
        for entry in parsed.chips
    )
    return found, {f"{prefix}/{key}": value for key, value in parsed.sources.items()}


def _unread(chip: Chip, sources: Mapping[str, Source]) -> frozenset[str]:
    """Figures whose source nobody read."""
    return frozenset(
        name for name in chip.figures() if not sources[chip.sources.get(name, chip.source)].read
    )


@lru_cache(maxsize=1)
def _all() -> tuple[tuple[Chip, ...], dict[str, Source]]:
    files = sorted(
        (item for item in resources.files(__package__).iterdir() if item.name.endswith(".yaml")),
        key=lambda item: item.name,
    )
    entries: list[Chip] = []
    named: dict[str, Source] = {}
    for file in files:
        found, listed = load(file.read_text(encoding="utf-8"), name=Path(file.name).name)
        entries += found
        named |= listed
    return tuple(entries), named


def chips() -> tuple[Chip, ...]:
    """All chips, by vendor and then as in the files."""
    return _all()[0]


def sources() -> dict[str, Source]:
    """All sources by key, such as nvidia/h100."""
    return _all()[1]


@lru_cache(maxsize=512)
def find(name: str) -> Chip | None:
    """The chip of a device by the name that its vendor's tool, PyTorch or this catalogue gives it.

    Upper and lower case are the same, and the vendor's name in front may be missing. Of a partition
    ("NVIDIA H100 80GB HBM3 MIG 1g.10gb") it is the whole chip. None if the catalogue lacks it.
    """
    wanted = _plain(name.split(" MIG ")[0])
    best: tuple[int, Chip] | None = None
    for chip in chips():
        for pattern in (chip.name, *chip.match):
            plain = _plain(pattern)
            weight = len(plain.replace("*", ""))
            if fnmatchcase(wanted, plain) and (best is None or weight > best[0]):
                best = weight, chip
    return best[1] if best else None


def _plain(name: str) -> str:
    text = " ".join(name.lower().split())
    for prefix in VENDOR_PREFIXES:
        text = text.removeprefix(prefix)
    return text
