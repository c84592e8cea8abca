"""Formats of strings, of which a grammar knows some. Any other is a remark, as JSON Schema has it, and left out."""

from collections.abc import Mapping
from typing import Any

_KNOWN = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uri", "uuid"})
_VALUES = ("const", "enum", "default", "examples")
_OF_NAMES = ("properties", "patternProperties", "$defs", "definitions")


def with_known_formats(schema: Any) -> Any:
    """A JSON schema without those that no grammar is made of. Raises RecursionError for one that is nested too deep."""
    if isinstance(schema, list):
        return [with_known_formats(inner) for inner in schema]
    if not isinstance(schema, Mapping):
        return schema
    return {
        key: value if key in _VALUES else _named(value) if key in _OF_NAMES else with_known_formats(value)
        for key, value in schema.items()
        if key != "format" or not isinstance(value, str) or value in _KNOWN
    }


def _named(schemas: Any) -> Any:
    if not isinstance(schemas, Mapping):
        return schemas
    return {name: with_known_formats(schema) for name, schema in schemas.items()}
