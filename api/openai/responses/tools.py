"""Functions that the model may ask for, in the flat shape of Responses."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from api.generate.schemas import JsonSchema
from api.schemas import AtMost, Name, RequestModel

MOST_TOOLS = 128


class FunctionTool(RequestModel):
    """A function."""

    unsupported: ClassVar = dict.fromkeys(
        ("defer_loading", "allowed_callers", "async", "output_schema"), "functions are called one by one by name"
    )

    type: Literal["function"]
    name: Name
    description: Annotated[str, Field(max_length=10_000)] | None = None
    parameters: JsonSchema | None = None
    strict: bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _is_a_function(cls, data: Any) -> Any:
        # Before its other fields are: those of a search of the web say nothing here.
        if isinstance(data, dict) and data.get("type", "function") != "function":
            hint = "only functions can be given, which you call"
            raise PydanticCustomError("unsupported_field", "is not supported here", {"field": "type", "hint": hint})
        return data

    def native(self) -> dict[str, Any]:
        """As the native route takes it."""
        return {"type": "function", "function": self.model_dump(exclude={"type"}, exclude_none=True)}


class FunctionChoice(RequestModel):
    """The one function to call."""

    type: Literal["function"]
    name: Name

    def native(self) -> dict[str, Any]:
        """As the native route takes it."""
        return {"type": "function", "function": {"name": self.name}}


class Functions(RequestModel):
    """What of a request is about functions."""

    tools: Annotated[list[FunctionTool], AtMost(MOST_TOOLS)] = Field(default_factory=list)
    tool_choice: Literal["none", "auto", "required"] | FunctionChoice = "auto"
    parallel_tool_calls: Annotated[bool, Field(description="Whether one answer may have several calls.")] = True

    def native_functions(self) -> dict[str, Any]:
        """As the native route takes them; nothing where nothing was said."""
        choice = self.tool_choice
        said = {
            "tools": [tool.native() for tool in self.tools],
            "tool_choice": choice.native() if isinstance(choice, FunctionChoice) else choice,
            "parallel_tool_calls": self.parallel_tool_calls,
        }
        return {name: value for name, value in said.items() if name in self.model_fields_set and value != []}
