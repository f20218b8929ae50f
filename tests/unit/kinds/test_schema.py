"""The generator: pydantic models to structural schemas."""

from datetime import datetime
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from drakkar.crdgen.schema import SchemaError, structural_schema
from drakkar.v1alpha1 import KINDS
from drakkar.v1alpha1.meta import PATTERN_MESSAGE, VALIDATIONS, Condition, Model, Opaque, Quantity

Text = Annotated[str, Field(max_length=10)]


class Inner(Model):
    size: int = Field(default=3, ge=1, lt=9)


class Plain(Model):
    word: Text


def field(annotation: Any, default: Any = ...) -> dict[str, Any]:
    """The schema of a field of that type."""
    model = type(
        "Sample",
        (Model,),
        {
            "__annotations__": {"the_field": annotation},
            "the_field": Field() if default is ... else Field(default=default),
            "__module__": __name__,
        },
    )
    return structural_schema(model)["properties"]["theField"]


@pytest.mark.parametrize(
    ("annotation", "default", "expected"),
    [
        (int, ..., {"type": "integer", "format": "int64"}),
        (int | None, None, {"type": "integer", "format": "int64"}),
        (bool, False, {"type": "boolean", "default": False}),
        (Text | None, None, {"type": "string", "maxLength": 10}),
        (datetime, ..., {"type": "string", "format": "date-time"}),
        (Literal["a"], ..., {"type": "string", "enum": ["a"]}),
        (Literal["a", "b"], "b", {"type": "string", "enum": ["a", "b"], "default": "b"}),
        (
            Annotated[float, Field(gt=0, le=1)],
            ...,
            {"type": "number", "minimum": 0, "exclusiveMinimum": True, "maximum": 1},
        ),
        (
            Opaque,
            ...,
            {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        ),
        (
            Annotated[list[Text], Field(max_length=4)],
            ...,
            {"type": "array", "maxItems": 4, "items": {"type": "string", "maxLength": 10}},
        ),
        (
            Annotated[dict[str, Text], Field(max_length=4)],
            ...,
            {
                "type": "object",
                "maxProperties": 4,
                "additionalProperties": {"type": "string", "maxLength": 10},
            },
        ),
        (
            dict[Literal["low", "high"], Text],
            ...,
            {
                "type": "object",
                "properties": {
                    "low": {"type": "string", "maxLength": 10},
                    "high": {"type": "string", "maxLength": 10},
                },
            },
        ),
    ],
)
def test_field(annotation: Any, default: Any, expected: dict[str, Any]) -> None:
    assert field(annotation, default) == expected


def test_quantity_is_int_or_string() -> None:
    schema = field(Quantity)
    assert schema["x-kubernetes-int-or-string"] is True
    assert schema["anyOf"] == [{"type": "integer"}, {"type": "string"}]
    assert "type" not in schema


def test_default_of_an_object_is_empty_where_its_fields_have_defaults() -> None:
    schema = field(Inner, Inner())
    assert schema["default"] == {}
    assert schema["properties"]["size"]["default"] == 3
    assert "default" not in field(Plain, Plain(word="x"))


def test_status_schemas_have_no_defaults() -> None:
    schema = structural_schema(Inner, defaults=False)
    assert "default" not in schema["properties"]["size"]


def test_pattern_with_a_message_becomes_a_rule() -> None:
    extra: Any = {PATTERN_MESSAGE: "write digits"}
    name = Annotated[str, Field(max_length=5, pattern=r"^\d'+$", json_schema_extra=extra)]
    schema = field(name)
    assert "pattern" not in schema
    assert schema[VALIDATIONS] == [{"rule": r"self.matches('^\\d\'+$')", "message": "write digits"}]


def test_conditions_are_a_map_by_type() -> None:
    listed: Any = {
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
    }
    schema = field(Annotated[list[Condition], Field(max_length=16, json_schema_extra=listed)])
    assert schema["x-kubernetes-list-map-keys"] == ["type"]
    assert "type" in schema["items"]["required"]


@pytest.mark.parametrize(
    ("annotation", "bound"),
    [
        (str, "maxLength"),
        (list[int], "maxItems"),
        (dict[str, int], "maxProperties"),
        (Annotated[list[str], Field(max_length=3)], "maxLength"),
    ],
)
def test_unbounded_field_is_an_error_that_names_it(annotation: Any, bound: str) -> None:
    with pytest.raises(SchemaError, match=rf"Sample\.theField.*{bound}"):
        field(annotation)


def test_union_has_no_structural_schema() -> None:
    with pytest.raises(SchemaError, match="theField"):
        field(int | Text)


@pytest.mark.parametrize("model", KINDS, ids=lambda model: model.KIND.name)
def test_schemas_are_structural(model: Any) -> None:
    for part in ("spec", "status"):
        schema = structural_schema(model.model_fields[part].annotation)
        for path, node in walk(schema, part):
            assert not {"$ref", "title", "allOf", "oneOf"} & node.keys(), path
            assert "type" in node or node.get("x-kubernetes-int-or-string"), path
            if "anyOf" in node:
                assert node.get("x-kubernetes-int-or-string"), path


def walk(node: dict[str, Any], path: str) -> Any:
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from walk(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            yield from walk(node[key], f"{path}[]")
