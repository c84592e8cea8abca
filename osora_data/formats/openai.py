"""OpenAI's own rows: chats, prompts with completions, preferences."""

from typing import Any

from osora_data.formats.examples import ANSWER, CHAT, COMPLETION, PREFERENCE
from osora_data.formats.messages import Conversation, read_messages
from osora_data.formats.row_check import RowCheck
from osora_data.formats.tools import read_tools
from osora_data.words import kind

_OF_TOOLS = ("tools", "parallel_tool_calls", "functions", "function_call")
_CHAT_KEYS = frozenset(("messages", *_OF_TOOLS))
_COMPLETION_KEYS = frozenset(("prompt", "completion"))
_PREFERENCE_KEYS = frozenset(("input", "preferred_output", "non_preferred_output"))


def read_chat(check: RowCheck, row: dict[str, Any]) -> dict[str, Any]:
    """A row with `messages`."""
    conversation = read_messages(check, row["messages"], "messages", CHAT)
    of_tools: dict[str, Any] = {}
    names: set[str] = set()
    if len(row) > 1:
        check.ignore_others(row, "", _CHAT_KEYS)
        of_tools, names = read_tools(check, row, "")
    conversation.check_calls(check, "messages", names)
    must_learn(check, conversation, "messages")
    return {"messages": conversation.messages, **of_tools}


def must_learn(check: RowCheck, conversation: Conversation, path: str) -> None:
    """Rejects a conversation without an answer."""
    if not conversation.learns:
        check.reject(
            path,
            "has no assistant message to learn from (one with text, and a weight other than 0)",
            'add one: {"role": "assistant", "content": "…"}',
        )


def read_completion(check: RowCheck, row: dict[str, Any]) -> dict[str, Any]:
    """A row with `prompt` and `completion`, which are both strings, or both messages: then it is a chat."""
    if len(row) != 2 or row.keys() != _COMPLETION_KEYS:
        check.ignore_others(row, "", _COMPLETION_KEYS | {"tools"})
    prompt, completion = row.get("prompt"), row.get("completion")
    if isinstance(prompt, list) or isinstance(completion, list):
        return _as_chat(check, row)
    check.text(row, "", "prompt", "the text to complete")
    if check.text(row, "", "completion", "the text to learn") == "":
        check.reject("completion", "is empty, so there is nothing to learn", "give it text or remove the line", "")
    if row.get("tools"):
        check.note("`tools` is ignored")
    return {"prompt": prompt, "completion": completion}


def _as_chat(check: RowCheck, row: dict[str, Any]) -> dict[str, Any]:
    for key, other in (("prompt", "completion"), ("completion", "prompt")):
        if isinstance(row.get(key), list) and not isinstance(row.get(other), list):
            problem = f"is {kind(row.get(other))}, and `{key}` is a list of messages"
            check.reject(other, problem, f"write both as messages, or both as texts: {COMPLETION}", row.get(other))
    prompt = read_messages(check, row["prompt"], "prompt", CHAT)
    answer = read_messages(check, row["completion"], "completion", ANSWER)
    of_tools, names = read_tools(check, row, "")
    prompt.check_calls(check, "prompt", names)
    answer.check_calls(check, "completion", names)
    must_learn(check, answer, "completion")
    check.note("prompts and completions that are messages were read as chats, of which the completion is learned")
    return {"messages": [*map(unlearned, prompt.messages), *answer.messages], **of_tools}


def unlearned(message: dict[str, Any]) -> dict[str, Any]:
    """A message that is not learned."""
    return {**message, "weight": 0} if message["role"] == "assistant" else message


def read_preference(check: RowCheck, row: dict[str, Any]) -> dict[str, Any]:
    """A row with `input`, `preferred_output` and `non_preferred_output`."""
    check.ignore_others(row, "", _PREFERENCE_KEYS)
    for key in sorted(_PREFERENCE_KEYS):
        if key not in row:
            check.reject(key, "is missing", f"write each line as {PREFERENCE}")
    asked = row["input"]
    if not isinstance(asked, dict):
        check.reject("input", f"must be an object with `messages`, not {kind(asked)}", PREFERENCE, asked)
    check.ignore_others(asked, "input.", _CHAT_KEYS)
    of_tools, names = read_tools(check, asked, "input.")
    question = read_messages(check, asked.get("messages"), "input.messages", PREFERENCE)
    preferred, other = (read_answer(check, row[key], key) for key in ("preferred_output", "non_preferred_output"))
    return preference_of(check, question, preferred, other, of_tools, names, ("input.messages", *_OUTPUTS))


_OUTPUTS = ("preferred_output", "non_preferred_output")


def read_answer(check: RowCheck, messages: Any, path: str) -> Conversation:
    """One assistant message."""
    answer = read_messages(check, messages, path, ANSWER)
    if len(answer.messages) != 1 or not answer.learns:
        check.reject(path, "must be one assistant message with text or calls", f"write {ANSWER}", messages)
    return answer


def preference_of(
    check: RowCheck,
    asked: Conversation,
    preferred: Conversation,
    other: Conversation,
    of_tools: dict[str, Any],
    names: set[str],
    paths: tuple[str, str, str],
) -> dict[str, Any]:
    """The canonical row; `paths` are where the question and the answers are in the row that was written."""
    for conversation, path in zip((asked, preferred, other), paths, strict=True):
        conversation.check_calls(check, path, names)
    if _said(preferred.messages[0]) == _said(other.messages[0]):
        check.reject(paths[2], "is the same answer as the preferred one", "remove the line")
    return {
        "input": {"messages": asked.messages, **of_tools},
        "preferred_output": preferred.messages,
        "non_preferred_output": other.messages,
    }


def _said(message: dict[str, Any]) -> tuple[str, Any]:
    """What an answer says and calls, whatever the ids of its calls are."""
    return message.get("content") or "", [call["function"] for call in message.get("tool_calls") or ()]
