"""Blocks of content, and the native messages that they are."""

import json
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from api.schemas import AtMost, Name, RequestModel

_BLOCKS = 1024
_NO_CITATIONS = "nothing is cited"
Unread = Annotated[Any, Field(description="Accepted; nothing depends on it.")]


class TextBlock(RequestModel):
    """Text."""

    unsupported: ClassVar = {"citations": _NO_CITATIONS}

    type: Literal["text"]
    text: str
    cache_control: Unread = None


class ToolUseBlock(RequestModel):
    """A call of a tool that the model made."""

    unsupported: ClassVar = {"toolset_name": "tools have names and nothing else"}

    type: Literal["tool_use"]
    id: Name
    name: Name
    input: dict[str, Any]
    cache_control: Unread = None
    caller: Unread = None

    def native(self) -> dict[str, Any]:
        """As the native route takes it."""
        function = {"name": self.name, "arguments": json.dumps(self.input, ensure_ascii=False)}
        return {"id": self.id, "type": "function", "function": function}


def _type_of(block: Any) -> Any:
    return block.get("type") if isinstance(block, dict) else getattr(block, "type", None)


Text = str | Annotated[list[TextBlock], AtMost(_BLOCKS)]


class ToolResultBlock(RequestModel):
    """What came of a call."""

    unsupported: ClassVar = {"toolset_name": "tools have names and nothing else"}

    type: Literal["tool_result"]
    tool_use_id: Name
    content: Text = ""
    is_error: Annotated[bool, Field(description="Accepted; the content should say so.")] = False
    cache_control: Unread = None

    def native(self) -> dict[str, Any]:
        """As the native route takes it."""
        return {"role": "tool", "tool_call_id": self.tool_use_id, "content": text_of(self.content)}


Block = Annotated[
    Annotated[TextBlock, Tag("text")]
    | Annotated[ToolUseBlock, Tag("tool_use")]
    | Annotated[ToolResultBlock, Tag("tool_result")],
    Discriminator(
        _type_of,
        custom_error_type="unread_type",
        custom_error_message="only blocks of the types 'text', 'tool_use' and 'tool_result' are read",
    ),
]


_ROLES = (("assistant", ToolUseBlock, "tool_use"), ("user", ToolResultBlock, "tool_result"))


class Message(RequestModel):
    """One message of a conversation; blocks of text that follow each other are put together as they are."""

    role: Literal["user", "assistant", "system"]
    content: str | Annotated[list[Block], Field(min_length=1), AtMost(_BLOCKS)]

    @model_validator(mode="after")
    def _has_blocks_of_its_role(self) -> Self:
        if isinstance(self.content, str):
            return self
        for role, kind, name in _ROLES:
            if self.role != role and any(isinstance(block, kind) for block in self.content):
                raise PydanticCustomError(
                    "block_of_another", "blocks of the type '{name}' are the {role}'s", {"name": name, "role": role}
                )
        return self

    def native(self) -> Iterator[dict[str, Any]]:
        """The messages that it is: each result of a tool is one of its own."""
        if isinstance(self.content, str):
            yield {"role": self.role, "content": self.content}
        elif self.role == "assistant":
            calls = [block.native() for block in self.content if isinstance(block, ToolUseBlock)]
            said = _joined(self.content)
            yield (
                {"role": "assistant", "content": said}
                if not calls
                else {
                    "role": "assistant",
                    "content": said or None,
                    "tool_calls": calls,
                }
            )
        else:
            for is_text, blocks in groupby(self.content, lambda block: isinstance(block, TextBlock)):
                if is_text:
                    yield {"role": self.role, "content": _joined(blocks)}
                else:
                    yield from (block.native() for block in blocks if isinstance(block, ToolResultBlock))


def text_of(content: Text) -> str:
    """The text of all blocks."""
    return content if isinstance(content, str) else _joined(content)


def _joined(blocks: Iterable[Block]) -> str:
    return "".join(block.text for block in blocks if isinstance(block, TextBlock))
