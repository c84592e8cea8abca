"""Functions that the model may call, in the flat shape of Responses."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from api.generate.tools import TOOLS, Function, FunctionName
from api.schemas import AtMost, RequestModel

_ONE_WAY = "the model writes calls, and you answer them with `function_call_output`"


class _OnlyFunctions(RequestModel):
    type: Literal["function"]

    @model_validator(mode="before")
    @classmethod
    def _is_a_function(cls, data: Any) -> Any:
        # Before its other fields are read: those of a search of the web say nothing here.
        if isinstance(data, dict) and data.get("type", "function") != "function":
            hint = "only functions are, which you run"
            raise PydanticCustomError("unsupported_field", "is not supported here", {"field": "type", "hint": hint})
        return data


class FunctionTool(_OnlyFunctions, Function):
    """A function."""

    unsupported: ClassVar = dict.fromkeys(("defer_loading", "allowed_callers", "async", "output_schema"), _ONE_WAY)

    def native(self) -> dict[str, Any]:
        """As the native route takes it."""
        return {"type": "function", "function": self.model_dump(exclude={"type"}, exclude_none=True)}


class FunctionChoice(_OnlyFunctions, FunctionName):
    """The one function to call."""

    def native(self) -> dict[str, Any]:
        """As the native route takes it."""
        return {"type": "function", "function": {"name": self.name}}


class Functions(RequestModel):
    """What of a request is about functions."""

    tools: Annotated[list[FunctionTool], AtMost(TOOLS)] = Field(default_factory=list)
    tool_choice: Literal["none", "auto", "required"] | FunctionChoice = "auto"
    parallel_tool_calls: Annotated[bool, Field(description="Whether one response may have several calls.")] = True

    def native_functions(self) -> dict[str, Any]:
        """As the native route takes them."""
        choice = self.tool_choice
        if not self.tools and choice in ("auto", "none"):  # many clients always say so
            return {}
        return {
            "tools": [tool.native() for tool in self.tools] or None,
            "tool_choice": choice.native() if isinstance(choice, FunctionChoice) else choice,
            "parallel_tool_calls": self.parallel_tool_calls,
        }
