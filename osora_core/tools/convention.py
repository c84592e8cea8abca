"""Our own way to show tools, for bases whose chat templates have none.

All of it is text in messages that every template knows. The system's message lists the tools, calls are text of the
assistant, and results a message of the role `tool`, or of the user where the template knows no such role. It is
Hermes's and Qwen's way, which many models have read.
"""

import json
from dataclasses import dataclass
from typing import Any

from osora_core.tools.format import CallFormat
from osora_core.tools.messages import Messages, Tools, Transcript, described, read, schemas_of

FORMAT = CallFormat(
    lead='<tool_call>\n{"name": "',
    mid='", "arguments": ',
    tail="}\n</tool_call>",
    between='}\n</tool_call>\n<tool_call>\n{"name": "',
    gap="\n",
)
_LIST = """# Tools

You may call these functions:
<tools>
{tools}
</tools>

To call one, answer with its name and its arguments:
<tool_call>
{{"name": <name>, "arguments": <arguments>}}
</tool_call>"""


@dataclass(frozen=True)
class Roles:
    """What a template knows: a system's message, and what role the results of tools have in it."""

    system: bool
    result: str


def for_any_template(messages: Messages, tools: Tools | None, roles: Roles) -> Transcript:
    """A conversation with tools as one without."""
    schemas = schemas_of(tools)
    names: dict[str, str] = {}
    found: list[dict[str, Any]] = []
    origins: list[int] = []
    for index, message in enumerate(messages):
        rest = {key: value for key, value in message.items() if key not in ("tool_calls", "tool_call_id")}
        content = message.get("content") or ""
        if calls := message.get("tool_calls"):
            written = FORMAT.write([read(call, schemas, index) for call in calls])
            names |= {call["id"]: call["function"]["name"] for call in calls}
            content = f"{content}{FORMAT.gap}{written}" if content else written
        elif message["role"] == "tool":
            content = _result(names.get(message.get("tool_call_id", "")), content)
            rest["role"] = roles.result
            if index and messages[index - 1]["role"] == "tool":
                found[-1]["content"] += f"\n{content}"
                continue
        found.append({**rest, "content": content})
        origins.append(index)
    if tools:
        _introduce(found, origins, _LIST.format(tools="\n".join(map(_json, described(tools)))), roles)
    return Transcript(found, None, origins)


def _introduce(messages: list[dict[str, Any]], origins: list[int], text: str, roles: Roles) -> None:
    """Put the list of tools behind what the system says, or before what the user does."""
    if roles.system:
        if messages[0]["role"] == "system":
            messages[0]["content"] = f"{messages[0]['content']}\n\n{text}"
        else:
            messages.insert(0, {"role": "system", "content": text})
            origins.insert(0, 0)
    elif first := next((message for message in messages if message["role"] == "user"), None):
        first["content"] = f"{text}\n\n{first['content']}"


def _result(name: str | None, content: str) -> str:
    """One JSON document, so that no result can end itself and go on as something else."""
    named = f'"name": {_json(name)}, ' if name else ""
    return (
        f'<tool_response>\n{{{named}"content": {content if _is_json(content) else _json(content)}}}\n</tool_response>'
    )


def _is_json(content: str) -> bool:
    try:
        json.loads(content)
    except (ValueError, RecursionError):
        return False
    return True


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
