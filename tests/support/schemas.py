"""JSON schemas for kubeconform, from what an API server says of its kinds and from CRDs.

kubeconform fetches those of Kubernetes from the network; these are the ones of the very version that runs.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

Object = dict[str, Any]

LOCATION = "{{ .ResourceKind }}{{ .KindSuffix }}.json"
"""How kubeconform finds them in a folder: deployment-apps-v1.json."""

# Written as numbers as well as texts, whatever the type that OpenAPI 2 can tell.
_NUMBERS_TOO = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity",
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString",
}

_DEFINITIONS = "#/definitions/"


def write(folder: Path, openapi: Object, definitions: Iterable[Object]) -> None:
    """A file for each kind of an API server's OpenAPI (v2) and of CustomResourceDefinitions.

    Fields that a schema does not name are errors, as for an API server that validates strictly.
    """
    known = {name: _strict(each) for name, each in openapi["definitions"].items()}
    for name in _NUMBERS_TOO & known.keys():
        known[name] = {"type": ["string", "number"]}
    for name, each in openapi["definitions"].items():
        for kind in each.get("x-kubernetes-group-version-kind", ()):
            schema = {"$ref": _DEFINITIONS + name, "definitions": _reached(known, name)}
            path = _file(folder, kind["kind"], kind["group"], kind["version"])
            path.write_text(json.dumps(schema))
    for crd in definitions:
        spec = crd["spec"]
        for version in spec["versions"]:
            schema = _strict(version["schema"]["openAPIV3Schema"])
            path = _file(folder, spec["names"]["kind"], spec["group"], version["name"])
            path.write_text(json.dumps(schema))


def _file(folder: Path, kind: str, group: str, version: str) -> Path:
    parts = [kind.lower(), *([group.partition(".")[0]] if group else []), version]
    return folder / f"{'-'.join(parts)}.json"


def _reached(known: Object, name: str) -> Object:
    """A definition and all that it refers to."""
    found: Object = {}
    waiting = [name]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = known[name]
            waiting += _references(known[name])
    return found


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, list):
        for each in schema:
            yield from _references(each)
    elif isinstance(schema, dict):
        for key, value in schema.items():
            if key == "$ref" and isinstance(value, str):
                yield value.removeprefix(_DEFINITIONS)
            else:
                yield from _references(value)


def _strict(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: _strict(value) for key, value in schema.items()}
    if schema.get("x-kubernetes-int-or-string"):
        found.pop("type", None)
    loose = "additionalProperties" in schema or schema.get("x-kubernetes-preserve-unknown-fields")
    if isinstance(schema.get("properties"), dict) and not loose:
        # Every object may say what it is.
        if "metadata" in schema["properties"]:
            found["properties"] = {"apiVersion": {}, "kind": {}, **found["properties"]}
        found["additionalProperties"] = False
    return found
