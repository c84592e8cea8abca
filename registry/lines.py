"""Errors that name a line of training data and a field in it."""

import json
from typing import Any, NoReturn

from registry.errors import InvalidFile


class Line:
    """Raises errors that name a line."""

    def __init__(self, number: int) -> None:
        self.number = number

    def reject(self, field: str | None, problem: str, next_action: str) -> NoReturn:
        """Raises `InvalidFile`."""
        subject = f"`{field}` " if field else ""
        raise InvalidFile(subject + problem, line=self.number, field=field, next_action=next_action)

    def only(self, row: dict[str, Any], prefix: str, known: tuple[str, ...]) -> None:
        """Raises where there are other keys, and names all of them: nobody has to try again for each."""
        unknown = [key for key in row if key not in known]
        old = next((key for key in unknown if key in ("functions", "function_call")), None)
        if old is not None:
            self.refuse_old(prefix + old)
        if not unknown:
            return
        first, *others = unknown
        more = f" (and {len(others)} more: {short(', '.join(others))})" if others else ""
        them = "them" if others else "it"
        self.reject(prefix + short(first), f"is not known here{more}", f"remove {them}; known are {', '.join(known)}")

    def refuse_old(self, field: str) -> NoReturn:
        """Raises for OpenAI's older form of tools."""
        self.reject(
            field,
            "belongs to the older form of OpenAI's format for tools, which is not read here",
            "write `functions` as `tools`, `function_call` as `tool_calls`, and results as messages of the role `tool`",
        )

    def text(self, row: dict[str, Any], prefix: str, key: str, what: str) -> str:
        """The string that a row has under this key."""
        if key not in row:
            self.reject(prefix + key, "is missing", f"add {what}")
        value = row[key]
        if not isinstance(value, str):
            self.reject(prefix + key, f"must be a string, not {kind(value)}", f"write {what} as a JSON string")
        if not is_unicode(value):
            self.reject(
                prefix + key,
                "has half of a surrogate pair (\\ud800 to \\udfff)",
                "write the character itself",
            )
        return value


def is_unicode(text: str) -> bool:
    """Whether a text has nothing but characters."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


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
        case _:
            return "an object"


def quoted(value: Any) -> str:
    """A value as JSON, no more of it than a reader needs."""
    return short(json.dumps(value))


def short(text: str) -> str:
    """No more of a text than a reader needs."""
    printable = text.encode("utf-8", "replace").decode("utf-8")
    return printable if len(printable) <= 60 else printable[:57] + "…"
