"""ShareGPT's rows: `conversations` of `from` and `value`, with LLaMA-Factory's tools."""

from typing import Any

from osora_data.formats.examples import CHAT
from osora_data.formats.messages import Conversation, read_messages
from osora_data.formats.openai import must_learn
from osora_data.formats.row_check import RowCheck
from osora_data.formats.tools import call_of, read_tools
from osora_data.problems import RowError
from osora_data.strict_json import parse_text
from osora_data.words import kind, quoted

_EXAMPLE = '{"conversations": [{"from": "human", "value": "…"}, {"from": "gpt", "value": "…"}]}'
_KNOWN = frozenset(("conversations", "system", "tools"))
_TURN_KEYS = frozenset(("from", "value", "weight"))
_ROLES = {
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "model", "bot", "bing", "bard", "function_call"), "assistant"),
    "system": "system",
    **dict.fromkeys(("observation", "tool", "function_response"), "tool"),
}


def read_sharegpt(check: RowCheck, row: dict[str, Any]) -> dict[str, Any]:
    """A row with `conversations`, as a chat."""
    check.ignore_others(row, "", _KNOWN)
    turns = row["conversations"]
    if not isinstance(turns, list) or not turns:
        problem = f"must be a list with a message in it, not {kind(turns)}"
        check.reject("conversations", problem, f"write each line as {_EXAMPLE}", turns)
    of_tools, names = read_tools(check, {"tools": _tools(check, row.get("tools"))}, "")
    if isinstance(turns[0], dict) and "role" in turns[0]:
        conversation = read_messages(check, turns, "conversations", CHAT)
    else:
        conversation = _read_turns(check, turns)
    conversation.check_calls(check, "conversations", names)
    must_learn(check, conversation, "conversations")
    check.note("ShareGPT's rows were read as chats")
    system = check.text(row, "", "system", "the system's message") if row.get("system") is not None else ""
    before = [{"role": "system", "content": system}] if system else []
    return {"messages": [*before, *conversation.messages], **of_tools}


def _read_turns(check: RowCheck, turns: list[Any]) -> Conversation:
    conversation = Conversation()
    waiting: list[dict[str, Any]] = []
    for index, turn in enumerate(turns):
        place = f"conversations[{index}]"
        if not isinstance(turn, dict):
            check.reject(place, f"must be an object with `from` and `value`, not {kind(turn)}", _EXAMPLE, turn)
        check.ignore_others(turn, f"{place}.", _TURN_KEYS, " of messages")
        from_ = check.text(turn, f"{place}.", "from", "who speaks: human or gpt")
        value = check.text(turn, f"{place}.", "value", "the message's text")
        role = _ROLES.get(from_)
        if role is None:
            action = "use one of human, gpt, system, function_call, observation"
            check.reject(f"{place}.from", f"is {quoted(from_)}", action, from_)
        message: dict[str, Any] = {"role": role, "content": value}
        if from_ == "function_call":
            waiting = _calls(check, value, f"{place}.value")
            message |= {"content": None, "tool_calls": list(waiting)}
            conversation.calls = True
        elif role == "tool" and waiting:
            message["tool_call_id"] = waiting.pop(0)["id"]
        weight = turn.get("weight")
        if weight is not None and role == "assistant":
            if type(weight) is not int or weight not in (0, 1):
                action = "use 0 (not learned) or 1 (learned)"
                check.reject(f"{place}.weight", f"is {quoted(weight)}", action, weight)
            message["weight"] = weight
        conversation.learns |= role == "assistant" and weight != 0 and value != ""
        conversation.messages.append(message)
    return conversation


def _calls(check: RowCheck, value: str, path: str) -> list[dict[str, Any]]:
    called = _json(check, value, path)
    functions = called if isinstance(called, list) else [called]
    if not functions or not all(isinstance(function, dict) for function in functions):
        action = 'write {"name": "…", "arguments": {…}}, or a list of them'
        check.reject(path, f"must be the JSON of a call, not of {kind(called)}", action, value)
    return [call_of(check, function, path, check.call_id()) for function in functions]


def _tools(check: RowCheck, tools: Any) -> Any:
    """OpenAI's tools of a list of functions, or of its JSON text."""
    if isinstance(tools, str):
        tools = _json(check, tools, "tools") if tools.strip() else None
    if not isinstance(tools, list):
        return tools
    is_bare = [isinstance(tool, dict) and "function" not in tool for tool in tools]
    return [{"type": "function", "function": tool} if bare else tool for tool, bare in zip(tools, is_bare, strict=True)]


def _json(check: RowCheck, text: str, path: str) -> Any:
    try:
        return parse_text(text)
    except RowError as error:
        check.reject(path, error.problem, "write it as json.dumps does", text)
