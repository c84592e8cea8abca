"""JSON values in words, no more of them than a reader needs."""

import json
from typing import Any

_SHOWN = 60


def kind(value: Any) -> str:
    """What a JSON value is, in words."""
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case []:
            return "an empty list"
        case list():
            return "a list"
        case dict():
            return "an object"
        case _:
            return f"a value of the type {type(value).__name__}"


def quoted(value: Any) -> str:
    """A value as JSON, cut."""
    if isinstance(value, str):  # what is cut off needs no escapes
        return short(json.dumps(value[: 2 * _SHOWN]))
    return short(json.dumps(value, default=str))


def short(text: str) -> str:
    """A text, cut; what is no character is shown as a question mark."""
    printable = text.encode("utf-8", "replace").decode("utf-8")
    return printable if len(printable) <= _SHOWN else printable[: _SHOWN - 3] + "…"
