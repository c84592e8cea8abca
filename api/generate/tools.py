"""Tools of a conversation, the calls that the assistant makes of them, and the messages that carry both."""

import json
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from api.schemas import AtMost, RequestModel

SCHEMA_BYTES = 64 * 1024
TOOLS = 128
_TOOLS_BYTES = 128 * 1024
CALLS = 128
_ID_LENGTH = 128
_WORDS = ("auto", "none", "required")
_ONLY_FUNCTIONS = "tools are functions"


def _of_bearable_size(most: int) -> AfterValidator:
    def check(value: Any) -> Any:
        size = len(_json(value).encode())
        if size > most:
            raise PydanticCustomError(
                "too_long", "should be at most {most} bytes of JSON, not {size}", {"most": most, "size": size}
            )
        return value

    return AfterValidator(check)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=lambda model: model.model_dump(exclude_none=True))


JsonSchema = Annotated[dict[str, Any], _of_bearable_size(SCHEMA_BYTES)]
ToolName = Annotated[str, Field(pattern="^[a-zA-Z0-9_-]{1,64}$")]
_Id = Annotated[str, Field(min_length=1, max_length=_ID_LENGTH)]


def _of_an_object(schema: dict[str, Any]) -> dict[str, Any]:
    if schema.get("type", "object") != "object":
        raise PydanticCustomError("no_object", "arguments are an object: its `type` is 'object'")
    return schema


class Function(RequestModel):
    """A function that the assistant may call."""

    name: ToolName
    description: str | None = None
    parameters: Annotated[
        Annotated[JsonSchema, AfterValidator(_of_an_object)] | None,
        Field(description="The JSON schema of its arguments, an object. Without one it takes none."),
    ] = None
    strict: Annotated[bool | None, Field(description="Accepted; arguments always keep to the schema.")] = None


class Tool(RequestModel):
    """A tool; all of them are functions."""

    unsupported: ClassVar = {"custom": _ONLY_FUNCTIONS}

    type: Literal["function"]
    function: Function


def _differ(tools: list[Tool]) -> list[Tool]:
    names = [tool.function.name for tool in tools]
    twice = next((name for index, name in enumerate(names) if name in names[:index]), None)
    if twice is not None:
        raise PydanticCustomError("name_twice", "two of them are called '{name}'", {"name": twice})
    return tools


Tools = Annotated[
    list[Tool], Field(min_length=1), AtMost(TOOLS), _of_bearable_size(_TOOLS_BYTES), AfterValidator(_differ)
]


class FunctionName(RequestModel):
    """The function that is to be called."""

    name: ToolName


class NamedTool(RequestModel):
    """The tool that is to be called."""

    unsupported: ClassVar = {"custom": _ONLY_FUNCTIONS, "allowed_tools": "send those `tools` only"}

    type: Literal["function"]
    function: FunctionName


def _word_or_tool(choice: Any) -> Any:
    if not isinstance(choice, dict | NamedTool) and choice not in _WORDS:
        raise PydanticCustomError(
            "no_choice", "should be 'auto', 'none', 'required', or an object that names a function"
        )
    return choice


ToolChoice = Annotated[Literal["auto", "none", "required"] | NamedTool, BeforeValidator(_word_or_tool)]


class FunctionCall(RequestModel):
    """What is called, and the JSON text of its arguments."""

    name: ToolName
    arguments: str


class ToolCall(RequestModel):
    """A call that the assistant made."""

    id: _Id
    type: Literal["function"] = "function"
    function: FunctionCall


ToolCalls = Annotated[list[ToolCall], Field(min_length=1), AtMost(CALLS)]


class Message(RequestModel):
    """One message of a conversation."""

    role: Literal["system", "user", "assistant", "tool"]
    content: Annotated[str | None, Field(description="May be left out beside `tool_calls`.")] = None
    tool_calls: Annotated[ToolCalls | None, Field(description="Of the assistant.")] = None
    tool_call_id: Annotated[_Id | None, Field(description="Of a tool's result: the call that it answers.")] = None

    @property
    def of_tools(self) -> bool:
        """Whether it calls tools, or is the result of a call."""
        return self.tool_calls is not None or self.tool_call_id is not None

    @model_validator(mode="after")
    def _is_one_of_its_role(self) -> Self:
        if self.content is None and self.tool_calls is None:
            raise PydanticCustomError("no_content", "`content` is required")
        if self.tool_calls is not None and self.role != "assistant":
            raise PydanticCustomError("calls_of_another", "`tool_calls` are the assistant's")
        if self.tool_call_id is not None and self.role != "tool":
            raise PydanticCustomError("result_of_another", "`tool_call_id` belongs to the role 'tool'")
        return self
