"""JSON as its standard has it: Python's own reader takes more, and says nothing of what it drops."""

import json
from typing import Any, NoReturn


class DuplicateKeyError(ValueError):
    """An object has a key twice."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


class ConstantError(ValueError):
    """NaN or an infinity, which Python's reader takes and JSON does not have."""


def loads(text: str, *, repeats: bool = False) -> Any:
    """The value. With `repeats`, an object may have a key twice, and its last value counts.

    Raises DuplicateKeyError, ConstantError, and what `json.loads` raises.
    """
    read = None if repeats else _refuse_duplicates
    return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=read)


def _refuse_constant(name: str) -> NoReturn:
    raise ConstantError(name)


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise DuplicateKeyError(key)
            seen.add(key)
    return row
