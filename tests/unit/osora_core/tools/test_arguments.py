"""The schema that arguments keep to, and the order that they are written in."""

from typing import Any

import pytest

from osora_core.tools.arguments import NO_ARGUMENTS, closed, ordered

POINT = {"type": "object", "properties": {"x": {"type": "number"}, "y": {"type": "number"}}}
OPEN = {**POINT, "additionalProperties": True}


def test_objects_whose_properties_are_named_have_no_others() -> None:
    schema = {
        "properties": {"at": POINT, "open": OPEN, "any": {"type": "object"}, "many": {"type": "array", "items": POINT}},
        "$defs": {"point": POINT},
    }
    found = closed(schema)
    assert (found["type"], found["additionalProperties"]) == ("object", False)
    assert found["properties"]["at"]["additionalProperties"] is False
    assert found["properties"]["open"]["additionalProperties"] is True
    assert "additionalProperties" not in found["properties"]["any"]
    assert found["properties"]["many"]["items"]["additionalProperties"] is False
    assert found["$defs"]["point"]["additionalProperties"] is False
    assert "additionalProperties" not in schema
    assert closed(NO_ARGUMENTS) == {"type": "object", "properties": {}, "additionalProperties": False}


@pytest.mark.parametrize(
    "schema", [{**POINT, "allOf": [{"required": ["z"]}]}, {**POINT, "patternProperties": {"^z": {}}}]
)
def test_what_says_otherwise_elsewhere_is_left_as_it_is(schema: dict[str, Any]) -> None:
    assert "additionalProperties" not in closed(schema)


@pytest.mark.parametrize(
    ("schema", "value", "order"),
    [
        (POINT, {"y": 1, "x": 2}, ["x", "y"]),
        (POINT, {"z": 0, "y": 1}, ["y", "z"]),
        ({"required": ["b", "a"]}, {"a": 1, "b": 2}, ["b", "a"]),
        ({"$ref": "#/$defs/point", "$defs": {"point": POINT}}, {"y": 1, "x": 2}, ["x", "y"]),
        ({"anyOf": [{"type": "null"}, POINT]}, {"y": 1, "x": 2}, ["x", "y"]),
        ({"anyOf": [{"$ref": "#/$defs/point"}], "$defs": {"point": POINT}}, {"y": 1, "x": 2}, ["x", "y"]),
        ({"$ref": "#"}, {"b": 1, "a": 2}, ["b", "a"]),
        ({"$ref": "#/nowhere"}, {"b": 1, "a": 2}, ["b", "a"]),
        ({"properties": []}, {"b": 1, "a": 2}, ["b", "a"]),
        (True, {"b": 1, "a": 2}, ["b", "a"]),
        (None, {"b": 1, "a": 2}, ["b", "a"]),
    ],
)
def test_properties_are_in_the_order_of_their_schema(schema: Any, value: dict[str, Any], order: list[str]) -> None:
    assert list(ordered(value, schema)) == order
    assert ordered(value, schema) == value
    nested = ordered({"many": [value]}, {"properties": {"many": {"items": schema}}, "$defs": {"point": POINT}})
    assert list(nested["many"][0]) == order or "$ref" in str(schema)
