"""The items of a conversation, and the messages that they are."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag

from api.openai.sampling import Hint
from api.schemas import AtMost, Name, RequestModel

_PARTS = 1024
_BY_NAME = "functions have names and nothing else"
_Unread = Annotated[list[Any] | None, Field(description="Accepted; only the text is read.")]


def _by_type(default: str | None, otherwise: str) -> Discriminator:
    """Chooses by `type`; `otherwise` says what is wrong with a type that is not there."""

    def type_of(item: Any) -> Any:
        return (item.get("type") or default) if isinstance(item, dict) else getattr(item, "type", default)

    return Discriminator(type_of, custom_error_type="unread_type", custom_error_message=otherwise)


class InputText(RequestModel):
    """Text of a message."""

    unsupported: ClassVar = {"prompt_cache_breakpoint": "nothing is cached between requests"}

    type: Literal["input_text"]
    text: str


class OutputText(RequestModel):
    """Text of an answer before, as it came in a response."""

    type: Literal["output_text"]
    text: str
    annotations: _Unread = None
    logprobs: _Unread = None


_TextPart = Annotated[
    Annotated[InputText, Tag("input_text")] | Annotated[OutputText, Tag("output_text")],
    _by_type(None, "only input_text and output_text are read"),
]
Content = str | Annotated[list[_TextPart], AtMost(_PARTS)]


class InputMessage(RequestModel):
    """One message; the text of its parts is put together as it is."""

    unsupported: ClassVar = {"phase": "messages have no phases"}

    type: Literal["message"] = "message"
    role: Annotated[
        Literal["system", "developer", "user", "assistant"], Field(description="`developer` is read as `system`.")
    ]
    content: Content
    id: Hint = None
    status: Hint = None


class FunctionCall(RequestModel):
    """A call that the model asked for."""

    unsupported: ClassVar = dict.fromkeys(("namespace", "caller", "async"), _BY_NAME)

    type: Literal["function_call"]
    call_id: Name
    name: Name
    arguments: Annotated[str, Field(description="JSON.")]
    id: Hint = None
    status: Hint = None


class FunctionCallOutput(RequestModel):
    """What came of a call."""

    unsupported: ClassVar = dict.fromkeys(("namespace", "caller"), _BY_NAME)

    type: Literal["function_call_output"]
    call_id: Name
    output: Content
    name: Hint = None
    id: Hint = None
    status: Hint = None


Item = Annotated[
    Annotated[InputMessage, Tag("message")]
    | Annotated[FunctionCall, Tag("function_call")]
    | Annotated[FunctionCallOutput, Tag("function_call_output")],
    _by_type("message", "only messages, function calls and their outputs are read; leave the item out"),
]


def messages_of(instructions: str | None, given: str | list[Item]) -> list[dict[str, Any]]:
    """Instructions and input as the native route takes them: calls belong to the assistant's message before them."""
    messages: list[dict[str, Any]] = [] if instructions is None else [{"role": "system", "content": instructions}]
    if isinstance(given, str):
        return [*messages, {"role": "user", "content": given}]
    for item in given:
        match item:
            case InputMessage():
                role = "system" if item.role == "developer" else item.role
                messages.append({"role": role, "content": text_of(item.content)})
            case FunctionCallOutput():
                messages.append({"role": "tool", "tool_call_id": item.call_id, "content": text_of(item.output)})
            case FunctionCall():
                if not messages or messages[-1]["role"] != "assistant":
                    messages.append({"role": "assistant", "content": None})
                function = {"name": item.name, "arguments": item.arguments}
                call = {"id": item.call_id, "type": "function", "function": function}
                messages[-1].setdefault("tool_calls", []).append(call)
    return messages


def text_of(content: Content) -> str:
    """The text of all parts."""
    return content if isinstance(content, str) else "".join(part.text for part in content)
