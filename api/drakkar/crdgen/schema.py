"""pydantic models -> structural OpenAPI v3 schemas, as CustomResourceDefinitions want them.

A structural schema (KEP-1979) has no $ref, a type at every level and no ``anyOf`` but for
int-or-string. Every string, list and map must have a bound: the API server estimates the cost of
CEL rules from them and refuses a CRD whose rules could be too dear.
"""

from typing import Any, Final

from pydantic import BaseModel

from drakkar.v1alpha1.meta import PATTERN_MESSAGE, VALIDATIONS

Schema = dict[str, Any]

_KEEP: Final = (
    "description", "format", "enum", "default", "pattern", "minLength", "maxLength", "minItems",
    "maxItems", "minProperties", "maxProperties", "minimum", "maximum", "nullable",
    "x-kubernetes-preserve-unknown-fields", "x-kubernetes-int-or-string",
    "x-kubernetes-list-type", "x-kubernetes-list-map-keys", VALIDATIONS,
)  # fmt: skip


class SchemaError(Exception):
    """A model that has no structural schema; the message names the field and what to add."""


def structural_schema(model: type[BaseModel], *, defaults: bool = True) -> Schema:
    """The structural schema of a model.

    defaults: keep default values; without them the schema fits a status, which the API server
    must not fill in. Raises SchemaError at an unbounded or untyped field.
    """
    source = model.model_json_schema(by_alias=True)
    return _convert(source, source.get("$defs", {}), model.__name__, defaults)


def _resolve(node: Schema, definitions: Schema) -> Schema:
    """Inline $ref, and X for anyOf [X, null]; keys beside them win."""
    if "$ref" in node:
        target = _resolve(definitions[node["$ref"].rsplit("/", 1)[1]], definitions)
        return target | {key: value for key, value in node.items() if key != "$ref"}
    options = [item for item in node.get("anyOf", ()) if item.get("type") != "null"]
    if len(options) == 1:
        rest = {key: value for key, value in node.items() if key != "anyOf"}
        return _resolve(options[0], definitions) | rest
    return node


def _convert(node: Schema, definitions: Schema, path: str, defaults: bool) -> Schema:
    node = _resolve(node, definitions)
    result: Schema = {key: node[key] for key in _KEEP if key in node}
    if "description" in result:
        result["description"] = result["description"].replace("``", "`")
    if "const" in node:
        result["enum"] = [node["const"]]
    if not defaults or result.get("default", ...) is None:
        result.pop("default", None)
    if node.get("x-kubernetes-int-or-string"):
        result["anyOf"] = [{"type": "integer"}, {"type": "string"}]
        return _with_pattern_message(node, result)
    kind = node.get("type")
    if not isinstance(kind, str):
        raise SchemaError(f"{path} has no single type: {sorted(node)}")
    result["type"] = kind
    for bound, flag in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if bound in node:
            result[flag], result[bound] = node[bound], True
    if kind == "object":
        _convert_object(node, result, definitions, path, defaults)
    elif kind == "array":
        _need(node, "maxItems", path)
        result["items"] = _convert(node["items"], definitions, f"{path}[]", defaults)
    elif kind == "string" and not {"enum", "const", "format"} & node.keys():
        _need(node, "maxLength", path)
    elif kind == "integer":
        result["format"] = "int64"
    return _with_pattern_message(node, result)


def _convert_object(
    node: Schema, result: Schema, definitions: Schema, path: str, defaults: bool
) -> None:
    values = node.get("additionalProperties")
    keys = node.get("propertyNames", {}).get("enum")
    if node.get("x-kubernetes-preserve-unknown-fields"):
        # Such parts are written by hand in the model, already structural.
        if "properties" in node:
            result["properties"] = node["properties"]
    elif isinstance(values, dict) and keys:
        result["properties"] = {
            key: _convert(values, definitions, f"{path}.{key}", defaults) for key in keys
        }
    elif isinstance(values, dict):
        _need(node, "maxProperties", path)
        result["additionalProperties"] = _convert(values, definitions, f"{path}[]", defaults)
    else:
        properties = node.get("properties", {})
        result["properties"] = {
            name: _convert(child, definitions, f"{path}.{name}", defaults)
            for name, child in properties.items()
        }
        if node.get("required"):
            result["required"] = list(node["required"])
        if isinstance(result.get("default"), dict):
            _empty_default(result)


def _empty_default(result: Schema) -> None:
    """An object's default is {}, which its fields' own defaults then fill, or nothing at all."""
    if any("default" in child for child in result["properties"].values()):
        result["default"] = {}
    else:
        del result["default"]


def _with_pattern_message(node: Schema, result: Schema) -> Schema:
    """Turn a pattern that has a message into a CEL rule: a bare pattern only cites itself."""
    if PATTERN_MESSAGE in node:
        pattern = result.pop("pattern").replace("\\", "\\\\").replace("'", "\\'")
        rule = {"rule": f"self.matches('{pattern}')", "message": node[PATTERN_MESSAGE]}
        result[VALIDATIONS] = [*result.get(VALIDATIONS, ()), rule]
    return result


def _need(node: Schema, bound: str, path: str) -> None:
    if bound not in node:
        raise SchemaError(f"{path} has no bound: give the field a {bound}")
