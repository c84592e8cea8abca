"""From pydantic's findings to one sentence that names the field, its value, and what would be right."""

import json
from collections.abc import Sequence
from typing import Any

from fastapi.exceptions import RequestValidationError

from registry.errors import InvalidRequest

_SHOWN = 60
_PATH_LENGTH = 200


def explain(error: RequestValidationError) -> InvalidRequest:
    """The error to answer with: the first problem, and how many more fields have one."""
    findings = error.errors()
    if isinstance(error.body, bytes):
        return InvalidRequest(
            "the body was not sent as JSON", next_action="send the header `content-type: application/json`"
        )
    paths = [_path(finding, error.body) for finding in findings]
    path = _deepest(paths)
    same = [finding for finding, its_path in zip(findings, paths, strict=True) if its_path == path]
    first = same[0]
    others = len({other for other in paths if other and path and not path.startswith(other)})
    more = f" (and {others} more field{'s' * (others > 1)} with a problem)" if others else ""
    name = path or "the body"
    match first["type"]:
        case "missing" if path is None:
            return InvalidRequest("the body is empty", code="missing_field", next_action="send one JSON object")
        case "missing":
            return InvalidRequest(f"{name} is required{more}", param=path, code="missing_field")
        case "model_attributes_type" | "model_type":
            return InvalidRequest(f"{name} should be a JSON object{more}", param=path, code="invalid_value")
        case "unknown_field":
            context = first["ctx"]
            return InvalidRequest(
                f"{name} is not known here{more}",
                param=path,
                code="unknown_field",
                next_action=context["hint"],
            )
        case "unsupported_field":
            return InvalidRequest(
                f"{name} is not supported here: {first['ctx']['hint']}{more}", param=path, code="unsupported_parameter"
            )
        case _:
            # A field of several types ("a number, or auto") has one finding for each.
            reasons = list(dict.fromkeys(_sentence(finding["msg"]) for finding in same))
            wrong = f"{name} is {shown(first['input'])}: " if path else ""
            return InvalidRequest(wrong + ", or ".join(reasons) + more, param=path, code="invalid_value")


def path_of(parts: Sequence[str | int]) -> str | None:
    """A field's path as a client would write it, such as `messages[0].role`; None for the whole body.

    A client chooses the names in it, and their length: what is too long to read is cut.
    """
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{printable(part)}" for part in parts)
    return cut(path.removeprefix("."), _PATH_LENGTH) or None


def shown(value: Any) -> str:
    """A value as JSON, no more of it than a reader needs."""
    if isinstance(value, str):
        value = value[: _SHOWN + 1]
    text = ""
    for piece in json.JSONEncoder(ensure_ascii=True, default=repr).iterencode(value):
        text += piece[: _SHOWN + 1]
        if len(text) > _SHOWN:  # the rest of a large value is not even encoded
            break
    return cut(text, _SHOWN)


def printable(text: str) -> str:
    """The text without what UTF-8 cannot carry: half a surrogate pair is written as its escape."""
    return text.encode("utf-8", "backslashreplace").decode()


def cut(text: str, length: int) -> str:
    """The text, its end left out if it is longer than this."""
    return text if len(text) <= length else text[: length - 1] + "…"


def _deepest(paths: list[str | None]) -> str | None:
    """The first problem's path; where branches of a union disagree ("text, or texts"), the deepest."""
    path = paths[0]
    while path is not None:
        inner = next((other for other in paths if other and other.startswith((f"{path}.", f"{path}["))), None)
        if inner is None:
            break
        path = inner
    return path


def _path(finding: dict[str, Any], body: Any) -> str | None:
    source, *location = finding["loc"]
    if source != "body":
        parts: Sequence[str | int] = location[:1]
    else:
        parts = _parts_in(body, location, includes_last=finding["type"] == "missing")
    if finding["type"] in ("unknown_field", "unsupported_field"):
        parts = [*parts, finding["ctx"]["field"]]
    return path_of(parts)


def _parts_in(body: Any, location: Sequence[str | int], *, includes_last: bool) -> list[str | int]:
    # A location also names the branch of a union that was tried, which is no field of the body.
    parts: list[str | int] = []
    for part in location:
        try:
            body = body[part]
        except (TypeError, KeyError, IndexError):
            continue
        parts.append(part)
    if includes_last:
        parts.extend(location[len(parts) :][-1:])
    return parts


def _sentence(text: str) -> str:
    text = text.removeprefix("Input ").removeprefix("Value error, ")
    return text[:1].lower() + text[1:]
