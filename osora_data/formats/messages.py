"""Messages of a conversation, as OpenAI writes them, in the shapes of several years."""

from dataclasses import dataclass, field
from typing import Any

from osora_data.formats.row_check import RowCheck
from osora_data.formats.tools import call_of, check_together, read_calls
from osora_data.words import kind, quoted

ROLES = frozenset(("system", "user", "assistant", "tool"))
_KNOWN = frozenset(("role", "content", "tool_calls", "tool_call_id", "weight", "name", "function_call", "refusal"))
_TEXT_PARTS = ("text", "input_text", "output_text")


@dataclass(slots=True)
class Conversation:
    """Messages in canonical shape; whether there is something to learn in them; whether they call tools."""

    messages: list[dict[str, Any]] = field(default_factory=list)
    learns: bool = False
    calls: bool = False

    def check_calls(self, check: RowCheck, path: str, tools: set[str]) -> None:
        """Rejects calls of other tools, and results that belong to no call."""
        if self.calls:
            check_together(check, self.messages, path, tools)


def read_messages(check: RowCheck, messages: Any, path: str, example: str) -> Conversation:
    """The messages of a list, each well formed by itself."""
    if not isinstance(messages, list) or not messages:
        check.reject(path, f"must be a list with a message in it, not {kind(messages)}", example)
    conversation = Conversation()
    add = conversation.messages.append
    waiting: list[dict[str, Any]] = []
    for index, message in enumerate(messages):
        if type(message) is dict and len(message) == 2:  # what most are, and need no more checks
            role, content = message.get("role"), message.get("content")
            if type(content) is str and type(role) is str and role in ROLES:
                if role == "assistant" and content:
                    conversation.learns = True
                if role != "tool":
                    waiting.clear()
                add(message)
                continue
        _read_other(check, message, f"{path}[{index}]", example, conversation, waiting)
    return conversation


def _read_other(
    check: RowCheck,
    message: Any,
    place: str,
    example: str,
    conversation: Conversation,
    waiting: list[dict[str, Any]],
) -> None:
    """`waiting` are calls in the older form, whose results do not name them by an id."""
    if not isinstance(message, dict):
        check.reject(place, f"must be an object with `role` and `content`, not {kind(message)}", example, message)
    role = _role(check, message, place)
    check.ignore_others(message, f"{place}.", _KNOWN, " of messages")
    read: dict[str, Any] = {"role": role}
    calls = read_calls(check, {**message, "role": role}, place)
    if message.get("function_call") is not None:
        calls = [_older_call(check, message, place, role, calls)]
        waiting[:] = calls
    elif role != "tool":
        waiting.clear()
    read["content"] = _content(check, message, place, silent=bool(calls))
    if calls:
        read["tool_calls"] = calls
    id_ = _result_id(check, message, place, role, waiting)
    if id_ is not None:
        read["tool_call_id"] = id_
    if message.get("name") is not None and message["role"] != "function":
        check.note("`name` of messages is ignored")
    weight = _weight(check, message, place, role)
    if weight is not None:
        read["weight"] = weight
    conversation.messages.append(read)
    conversation.calls |= bool(calls) or id_ is not None
    conversation.learns |= role == "assistant" and weight != 0 and bool(calls or read["content"])


def _role(check: RowCheck, message: dict[str, Any], place: str) -> str:
    if "role" not in message:
        check.text(message, f"{place}.", "role", "the message's role")
    role = message["role"]
    if role == "developer":
        check.note("the role `developer` was read as `system`")
        return "system"
    if role == "function":
        check.note("the role `function` was read as `tool`")
        return "tool"
    if not isinstance(role, str) or role not in ROLES:
        action = "use one of system, user, assistant, tool"
        check.reject(f"{place}.role", f"is {quoted(role)}", action, role)
    return role


def _content(check: RowCheck, message: dict[str, Any], place: str, *, silent: bool) -> str | None:
    content = message.get("content")
    if isinstance(content, list):
        return _joined(check, content, f"{place}.content")
    refusal = message.get("refusal")
    if content is None and isinstance(refusal, str):
        check.note("`refusal` of messages was read as their content")
        return refusal
    if refusal is not None:
        check.note("`refusal` of messages is ignored")
    if content is None and silent:
        return None
    return check.text(message, f"{place}.", "content", "the message's text")


def _joined(check: RowCheck, parts: list[Any], path: str) -> str:
    texts = []
    for index, part in enumerate(parts):
        place = f"{path}[{index}]"
        if not isinstance(part, dict):
            action = 'write {"type": "text", "text": "…"}'
            check.reject(place, f"must be an object with `type`, not {kind(part)}", action, part)
        type_ = part.get("type")
        if type_ == "refusal":
            texts.append(check.text(part, f"{place}.", "refusal", "the refusal's text"))
        elif type_ in _TEXT_PARTS:
            texts.append(check.text(part, f"{place}.", "text", "the part's text"))
        else:
            problem = f"is a part of the type {quoted(type_)}, and only text is read here"
            check.reject(place, problem, "leave the part out, or the whole row if its answer needs it", part)
    check.note("content in parts was joined to one text")
    return "".join(texts)


def _older_call(
    check: RowCheck, message: dict[str, Any], place: str, role: str, calls: list[dict[str, Any]]
) -> dict[str, Any]:
    path = f"{place}.function_call"
    function = message["function_call"]
    if role != "assistant":
        check.reject(path, "is only for assistant messages", "remove it", function)
    if calls:
        check.reject(path, "is there beside `tool_calls`, whose older form it is", "keep `tool_calls`", function)
    if not isinstance(function, dict):
        action = 'write {"name": "…", "arguments": "{…}"}'
        check.reject(path, f"must be an object, not {kind(function)}", action, function)
    check.note("`function_call` was read as `tool_calls`")
    return call_of(check, function, path, check.call_id())


def _result_id(
    check: RowCheck, message: dict[str, Any], place: str, role: str, waiting: list[dict[str, Any]]
) -> str | None:
    """A result names its call by a string, and nothing else does."""
    id_ = message.get("tool_call_id")
    if id_ is None:
        if role != "tool" or not waiting:
            return None
        called: str = waiting[0]["function"]["name"]
        if message.get("name", called) != called:
            problem = f"is {quoted(message['name'])}, and the call before it is of {quoted(called)}"
            check.reject(f"{place}.name", problem, "name the function that was called", message["name"])
        found: str = waiting.pop()["id"]
        return found
    if role != "tool":
        check.reject(f"{place}.tool_call_id", "is only for messages of the role tool", "remove it", id_)
    return check.text(message, f"{place}.", "tool_call_id", "the id of the call")


def _weight(check: RowCheck, message: dict[str, Any], place: str, role: str) -> int | None:
    weight = message.get("weight")
    if weight is None:
        return None
    if role != "assistant":
        check.reject(f"{place}.weight", "is only for assistant messages", "remove it", weight)
    if type(weight) is not int or weight not in (0, 1):  # True == 1, and is not a weight
        check.reject(f"{place}.weight", f"is {quoted(weight)}", "use 0 (not learned) or 1 (learned)", weight)
    return weight
