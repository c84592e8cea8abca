"""How calls of tools and their results belong together in a conversation: asked about, or a line of training data."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from osora_data import strict_json
from osora_data.strict_json import ConstantError, DuplicateKeyError, is_unicode
from osora_data.words import kind, quoted

_DEEPEST = 64


@dataclass(frozen=True)
class Flaw:
    """What is wrong with a conversation, where, and what would be right."""

    field: str
    problem: str
    next_action: str


def find_flaw(
    messages: Sequence[Mapping[str, Any]], path: str, *, known: Collection[str] | None, is_asked: bool
) -> Flaw | None:
    """The first flaw of messages that are well formed each by itself.

    `known`: the names of the tools that may be called; None: any. `is_asked`: an answer is to follow, so that all calls
    have to have their results; of a key that arguments have twice, as a model may write them, the last counts.
    """
    pending: dict[str, str] = {}
    for index, message in enumerate(messages):
        place = f"{path}[{index}]"
        if message["role"] == "tool":
            flaw = _result_flaw(message, pending, place)
        else:
            flaw = _open_flaw(pending, place) or _calls_flaw(message, pending, place, known, repeats=is_asked)
        if flaw is not None:
            return flaw
    return _open_flaw(pending, path, "ends") if is_asked else None


def _result_flaw(message: Mapping[str, Any], pending: dict[str, str], place: str) -> Flaw | None:
    id_ = message.get("tool_call_id")
    if id_ is None and not pending:
        return None  # a result that is mere text, of a call that is
    if id_ is None:
        return Flaw(
            f"{place}.tool_call_id", "is missing", f"name the call that this is the result of: {_list(pending)}"
        )
    if id_ not in pending:
        waiting = f"name one that waits for its result: {_list(pending)}" if pending else "put it behind the call"
        return Flaw(f"{place}.tool_call_id", f"is {quoted(id_)}, and no call before it waits for that result", waiting)
    del pending[id_]
    return None


def _open_flaw(pending: Mapping[str, str], place: str, does: str = "comes") -> Flaw | None:
    if not pending:
        return None
    return Flaw(
        place,
        f"{does} before the results of the calls {_list(pending)}",
        "put a message of the role `tool` behind the calls for each of them, with its `tool_call_id`",
    )


def _calls_flaw(
    message: Mapping[str, Any], pending: dict[str, str], place: str, known: Collection[str] | None, *, repeats: bool
) -> Flaw | None:
    for index, call in enumerate(message.get("tool_calls") or ()):
        at = f"{place}.tool_calls[{index}]"
        name = call["function"]["name"]
        if call["id"] in pending:
            return Flaw(f"{at}.id", f"is {quoted(call['id'])}, like another call's", "give each call an id of its own")
        if known is not None and name not in known:
            return Flaw(
                f"{at}.function.name",
                f"is {quoted(name)}, which is none of the line's tools",
                f"add it to `tools`, where there are {_list(known)}" if known else "add it to `tools`",
            )
        if (problem := _arguments_problem(call["function"]["arguments"], repeats=repeats)) is not None:
            return Flaw(f"{at}.function.arguments", problem, 'write the JSON text of an object, such as "{}"')
        pending[call["id"]] = name
    return None


def _arguments_problem(text: str, *, repeats: bool) -> str | None:
    try:
        value = strict_json.loads(text, repeats=repeats)
    except DuplicateKeyError:
        return "is not JSON: it has a key twice"
    except ConstantError as error:
        return f"is not JSON: {error} is not a JSON value"
    except (ValueError, RecursionError):
        return "is not JSON"
    if not isinstance(value, dict):
        return "is not the JSON of an object"
    return tree_problem(value)


def tree_problem(value: Any) -> str | None:
    """Why a JSON value cannot be shown to a model: it is nested too deep, or has what is no character."""
    waiting = [(value, 1)]
    while waiting:
        inner, depth = waiting.pop()
        if depth > _DEEPEST:
            return f"is nested more than {_DEEPEST} levels deep"
        if isinstance(inner, str) and not is_unicode(inner):
            return "has half of a surrogate pair (\\ud800 to \\udfff)"
        if isinstance(inner, dict):
            waiting.extend((item, depth + 1) for pair in inner.items() for item in pair)
        elif isinstance(inner, list):
            waiting.extend((item, depth + 1) for item in inner)
        elif isinstance(inner, float) and not math.isfinite(inner):
            return f"has {inner}, which is not a JSON value"
        elif not isinstance(inner, str | dict | int | float | None):
            return f"has {kind(inner)}, which JSON does not have"  # a table may
    return None


def _list(names: Collection[str]) -> str:
    shown = [quoted(name) for name in list(names)[:5]]
    return ", ".join([*shown, *(["…"] if len(names) > len(shown) else [])])
