"""JSON merge patches (RFC 7386). Pure."""

from collections.abc import Mapping
from typing import Any


def merge_patch(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The patch that turns ``old`` into ``new``; empty if they are equal. Lists are replaced."""
    patch: dict[str, Any] = {name: None for name in old if name not in new}
    for name, value in new.items():
        if name not in old:
            patch[name] = value
        elif isinstance(value, Mapping) and isinstance(old[name], Mapping):
            if inner := merge_patch(old[name], value):
                patch[name] = inner
        elif old[name] != value:
            patch[name] = value
    return patch
