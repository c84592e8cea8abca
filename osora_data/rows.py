"""What is read of a training file: rows in one of four shapes, whatever the file looks like."""

from dataclasses import dataclass
from typing import Any, Literal

Format = Literal["chat", "completion", "preference", "text"]


@dataclass(frozen=True, slots=True)
class Row:
    """A row in its canonical shape.

    `number` counts rows from 1; `line` is the 1-based line on which the row begins, in a Parquet file its number.
    `value` is, by format:

    - chat: `{"messages": [{"role", "content", "tool_calls"?, "tool_call_id"?, "weight"?}], "tools"?,
      "parallel_tool_calls"?}`, with the roles system, user, assistant and tool, and content a string or None;
    - completion: `{"prompt", "completion"}`;
    - preference: `{"input": {"messages", "tools"?}, "preferred_output": [message], "non_preferred_output": [message]}`;
    - text: `{"text"}`, all of which is learned.
    """

    number: int
    line: int
    format: Format
    value: dict[str, Any]
