"""Tools that the model may call."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from api.anthropic.content import Unread
from api.generate.tools import JsonSchema, ToolName
from api.schemas import RequestModel

_ONE_WAY = "the model writes calls, and you answer them with `tool_result`"


class Tool(RequestModel):
    """A tool."""

    unsupported: ClassVar = dict.fromkeys(("defer_loading", "allowed_callers", "input_examples"), _ONE_WAY)

    type: Literal["custom"] = "custom"
    name: ToolName
    description: str | None = None
    input_schema: JsonSchema
    strict: Annotated[bool | None, Field(description="Accepted; arguments always keep to the schema.")] = None
    cache_control: Unread = None
    eager_input_streaming: Unread = None

    @model_validator(mode="before")
    @classmethod
    def _is_yours(cls, data: Any) -> Any:
        # Before its other fields are read: those of a search of the web say nothing here.
        if isinstance(data, dict) and data.get("type") not in (None, "custom"):
            hint = "only tools that you run are"
            raise PydanticCustomError("unsupported_field", "is not supported here", {"field": "type", "hint": hint})
        return data

    def native(self) -> dict[str, Any]:
        """As the native route takes it."""
        described = {} if self.description is None else {"description": self.description}
        return {"type": "function", "function": {"name": self.name, **described, "parameters": self.input_schema}}


class ToolChoice(RequestModel):
    """Whether tools are called: if the model likes (`auto`), at least once (`any`), this one (`tool`), or not."""

    type: Literal["auto", "any", "tool", "none"]
    name: ToolName | None = None
    disable_parallel_tool_use: bool = False

    @model_validator(mode="after")
    def _names_one_tool(self) -> Self:
        if (self.type == "tool") != (self.name is not None):
            raise PydanticCustomError("name_and_type", "`name` belongs to the type 'tool'")
        return self

    @property
    def must_call(self) -> bool:
        """Whether an answer without a call would be wrong."""
        return self.type in ("any", "tool")

    def native(self) -> dict[str, Any]:
        """As the native route takes it."""
        named = {"type": "function", "function": {"name": self.name}}
        choice = {"any": "required", "tool": named}.get(self.type, self.type)
        return {"tool_choice": choice, "parallel_tool_calls": not self.disable_parallel_tool_use}
