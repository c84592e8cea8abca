"""The arguments of a call: the schema that they keep to, and the order that they are written in."""

from collections.abc import Mapping, Sequence
from typing import Any

NO_ARGUMENTS: dict[str, Any] = {"type": "object", "properties": {}}
_SAYS_WHAT_ELSE = ("additionalProperties", "patternProperties", "unevaluatedProperties", "allOf", "$ref")
_BRANCHES = ("anyOf", "oneOf")


def closed(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of an object that has no properties but those that the schema names, where it does not say otherwise.

    JSON Schema allows any others by default, and a model that is not sure goes on to invent some.
    """
    found: dict[str, Any] = _closed({"type": "object", **parameters})
    return found


def _closed(schema: Any) -> Any:
    if not isinstance(schema, Mapping):
        return schema
    found = dict(schema)
    for key in ("properties", "$defs", "definitions"):
        if isinstance(found.get(key), Mapping):
            found[key] = {name: _closed(inner) for name, inner in found[key].items()}
    for key in ("items", "additionalProperties"):
        found |= {key: _closed(found[key])} if key in found else {}
    for key in (*_BRANCHES, "prefixItems"):
        if isinstance(found.get(key), list):
            found[key] = [_closed(inner) for inner in found[key]]
    if "properties" in found and not any(key in found for key in _SAYS_WHAT_ELSE):
        found["additionalProperties"] = False
    return found


def ordered(value: Any, schema: Any) -> Any:
    """Arguments with their properties in the schema's order, which is the one that they are generated in."""
    return _ordered(value, schema, schema)


def _ordered(value: Any, schema: Any, root: Any) -> Any:
    schema = _resolved(value, schema, root)
    if isinstance(value, Mapping):
        inner = schema.get("properties")
        inner = inner if isinstance(inner, Mapping) else {}
        required = schema.get("required")
        first = [*inner, *(required if isinstance(required, list) else ())]
        names = dict.fromkeys([*(name for name in first if name in value), *value])
        return {name: _ordered(value[name], inner.get(name), root) for name in names}
    if isinstance(value, list):
        return [_ordered(item, schema.get("items"), root) for item in value]
    return value


def _resolved(value: Any, schema: Any, root: Any) -> Mapping[str, Any]:
    """The schema that a value is of: of branches the first object that knows all of its names."""
    for _ in range(16):  # references may go in circles
        if not isinstance(schema, Mapping):
            return {}
        if isinstance(schema.get("$ref"), str):
            schema = _referred(schema["$ref"], root)
        elif branches := [branch for key in _BRANCHES for branch in _list(schema.get(key))]:
            fitting = (branch for branch in branches if _fits(value, _resolved(None, branch, root)))
            schema = next(fitting, None)
        else:
            return schema
    return {}


def _referred(reference: str, root: Any) -> Any:
    found = root
    for part in reference.removeprefix("#").strip("/").split("/"):
        found = found.get(part) if part and isinstance(found, Mapping) else found
    return found


def _fits(value: Any, schema: Mapping[str, Any]) -> bool:
    if isinstance(value, Mapping):
        properties = schema.get("properties")
        return isinstance(properties, Mapping) and value.keys() <= properties.keys()
    return isinstance(value, list) and "items" in schema


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else ()
