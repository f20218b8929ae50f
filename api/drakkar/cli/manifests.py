"""Manifests from files, and what can be said about them without a cluster."""

import sys
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from drakkar.constants import GROUP
from drakkar.v1alpha1 import KINDS, TrainingJob
from drakkar.v1alpha1.meta import PATTERN_MESSAGE
from drakkar.v1alpha1.recipes import usable_sizes

Object = dict[str, Any]

_MODELS = {model.KIND.name: model for model in KINDS}


class ManifestError(Exception):
    """A file that can't be applied; the message names file, object and field."""


def read(path: str) -> list[Object]:
    """The objects of a YAML file, or of standard input for "-"; ManifestError if there is none."""
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ManifestError(f"{path} can't be read: {reason}.") from None
    try:
        found = [item for item in yaml.safe_load_all(text) if item is not None]
    except yaml.YAMLError as error:
        raise ManifestError(f"{path} is not YAML: {' '.join(str(error).split())}.") from None
    if not found:
        raise ManifestError(f"{path} holds no object.")
    objects: list[Object] = []
    for item in found:
        objects.extend(_items(item, path))
    return objects


def read_valid(path: str) -> list[Object]:
    """As ``read``, and ManifestError too if anything is wrong that shows without a cluster."""
    objects = read(path)
    found = [
        f"{item['kind']} {item['metadata']['name']}: {line}"
        for item in objects
        for line in problems(item)
    ]
    if found:
        raise ManifestError(f"{path} has mistakes:" + "".join(f"\n  - {line}" for line in found))
    return objects


def _items(item: Any, path: str) -> list[Object]:
    if not isinstance(item, dict) or not {"apiVersion", "kind"} <= item.keys():
        raise ManifestError(f"{path}: every object needs apiVersion and kind.")
    if item["kind"] == "List":
        return [inner for part in item.get("items") or () for inner in _items(part, path)]
    if not isinstance(item.get("metadata"), dict) or not item["metadata"].get("name"):
        raise ManifestError(f"{path}: {item['kind']} needs metadata.name.")
    return [item]


def problems(manifest: Object) -> list[str]:
    """What is wrong with an object of Drakkar's kinds, one line each: field, finding, allowed."""
    group = str(manifest["apiVersion"]).split("/")[0]
    if group != GROUP:
        return []
    kind = str(manifest["kind"])
    if kind not in _MODELS:
        return [f"kind: {kind!r} is unknown; known: {', '.join(sorted(_MODELS))}"]
    if "spec" not in manifest:
        return ["spec: missing"]
    try:
        item = _MODELS[kind].model_validate(
            {key: manifest[key] for key in manifest if key != "status"}
        )
    except ValidationError as error:
        advice = _advice(_MODELS[kind].model_json_schema())
        return [_sentence(item, advice) for item in error.errors()]
    if isinstance(item, TrainingJob):
        try:
            usable_sizes(item.spec)
        except ValueError as error:
            return str(error).split("; ")
    return []


def _sentence(item: Any, advice: dict[str, str]) -> str:
    path = ".".join(str(part) for part in item["loc"])
    found = "" if isinstance(item["input"], dict | list) else f" (found {item['input']!r})"
    pattern = item.get("ctx", {}).get("pattern")
    message = advice.get(pattern) or item["msg"].removeprefix("Value error, ")
    return f"{path}: {message}{found}"


def _advice(schema: Any) -> dict[str, str]:
    """Pattern -> what to write instead, of all fields of a JSON schema."""
    parts = schema.values() if isinstance(schema, dict) else schema
    found: dict[str, str] = {}
    if isinstance(schema, dict) and PATTERN_MESSAGE in schema:
        # The pattern of "str | None" is inside anyOf, what belongs to the field beside it.
        options = [schema, *schema.get("anyOf", ())]
        found |= {item["pattern"]: schema[PATTERN_MESSAGE] for item in options if "pattern" in item}
    for part in parts:
        if isinstance(part, dict | list):
            found |= _advice(part)
    return found
