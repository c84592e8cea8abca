"""Chats as OpenAI shapes them."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, model_validator
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError

from api.generate.schemas import LARGEST_INTEGER, MESSAGES, Count, GenerateRequest
from api.generate.tools import CALLS, FunctionCall, JsonSchema, ToolCall, ToolChoice, Tools
from api.openai.sampling import TextRequest
from api.schemas import AtMost, RequestModel
from registry.references import Target

CHAT_EXAMPLE: JsonDict = {
    "model": "ft:osora-tiny:default:ticket-triage:abcdefghjkmnpqrs",
    "messages": [
        {"role": "developer", "content": "Sort the ticket."},
        {"role": "user", "content": [{"type": "text", "text": "I was charged twice for order 48213."}]},
    ],
    "max_completion_tokens": 32,
    "temperature": 0,
}
CHUNKS_EXAMPLE = """data: {"id": "chatcmpl-…", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": …}]}

data: [DONE]
"""

_OLD_TOOLS = "it is the older form of `tools`, `tool_choice` and `tool_calls`: use those"
_ONLY_TEXT = "only text is read"
_REASONING = "the model answers at once"
_PARTS = 1024

Parsed = Annotated[Any, Field(description="Accepted: what the client's `parse` makes of an answer; its text counts.")]


class TextPart(RequestModel):
    """A part of a message."""

    unsupported: ClassVar = dict.fromkeys(("image_url", "input_audio", "file", "refusal"), _ONLY_TEXT)

    type: Literal["text"]
    text: str


class CalledFunction(FunctionCall):
    """What is called, as the client has it."""

    parsed_arguments: Parsed = None


class ChatToolCall(ToolCall):
    """A call that the assistant made, as the client has it."""

    function: CalledFunction
    index: Annotated[int | None, Field(description="Accepted: its place in a stream.")] = None

    def native(self) -> dict[str, Any]:
        """The call as the native route takes it."""
        return self.model_dump(include={"id": True, "type": True, "function": {"name", "arguments"}})


class ChatMessage(RequestModel):
    """One message of a conversation; the text of its parts is put together as it is."""

    unsupported: ClassVar = {
        "name": "speakers have roles and no names",
        "function_call": _OLD_TOOLS,
        "annotations": "answers have none",
        "audio": _ONLY_TEXT,
        "refusal": _ONLY_TEXT,
    }

    role: Annotated[
        Literal["system", "developer", "user", "assistant", "tool"],
        Field(description="`developer` is read as `system`."),
    ]
    content: Annotated[
        str | Annotated[list[TextPart], Field(min_length=1), AtMost(_PARTS)] | None,
        Field(description="May be left out beside `tool_calls`."),
    ] = None
    tool_calls: Annotated[list[ChatToolCall], Field(min_length=1), AtMost(CALLS)] | None = None
    parsed: Parsed = None
    tool_call_id: Annotated[str | None, Field(description="Of a tool's result: the call that it answers.")] = None

    @model_validator(mode="after")
    def _a_result_names_its_call(self) -> Self:
        if self.role == "tool" and self.tool_call_id is None:
            raise PydanticCustomError("result_of_nothing", "a message of the role 'tool' needs `tool_call_id`")
        return self

    def native(self) -> dict[str, Any]:
        """The message as the native route takes it."""
        parts = self.content if isinstance(self.content, list) else None
        return {
            "role": "system" if self.role == "developer" else self.role,
            "content": self.content if parts is None else "".join(part.text for part in parts),
            "tool_calls": self.tool_calls and [call.native() for call in self.tool_calls],
            "tool_call_id": self.tool_call_id,
        }


class NamedSchema(RequestModel):
    """A JSON schema under a name."""

    name: Annotated[str, Field(max_length=64)]
    description: Annotated[str, Field(max_length=10_000)] | None = None
    json_schema: Annotated[JsonSchema, Field(alias="schema", default_factory=dict)]
    strict: Annotated[bool, Field(description="Accepted; the answer always keeps to the schema.")] = True


class ResponseFormat(RequestModel):
    """What form the answer has: any text, a JSON object, or a document of a JSON schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = None

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> Self:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise PydanticCustomError("schema_and_type", "`json_schema` belongs to the type 'json_schema'")
        return self

    @property
    def schema_to_keep(self) -> dict[str, Any] | None:
        """What the answer is held to, if to anything."""
        if self.json_schema is not None:
            return self.json_schema.json_schema
        return {"type": "object"} if self.type == "json_object" else None


class ChatRequest(TextRequest):
    """A conversation to continue."""

    model_config = ConfigDict(json_schema_extra={"examples": [CHAT_EXAMPLE]})
    unsupported: ClassVar = {
        **TextRequest.unsupported,
        **dict.fromkeys(("functions", "function_call"), _OLD_TOOLS),
        "audio": _ONLY_TEXT,
        **dict.fromkeys(("reasoning_effort", "verbosity"), _REASONING),
        "prediction": "answers are never predicted",
        "web_search_options": "there is no search of the web",
    }

    messages: Annotated[list[ChatMessage], Field(min_length=1), AtMost(MESSAGES)]
    max_completion_tokens: Annotated[
        Annotated[Count, Field(ge=1)] | None,
        Field(description="Without it the answer ends by itself, or where the base's context does."),
    ] = None
    max_tokens: Annotated[
        Annotated[Count, Field(ge=1)] | None, Field(description="The older name of `max_completion_tokens`.")
    ] = None
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=20, description="So many of the likeliest beside each token.")] = 0
    response_format: ResponseFormat | None = None
    tools: Tools | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool = True
    modalities: Annotated[list[Literal["text"]], AtMost(1)] | None = None
    service_tier: Annotated[Literal["auto", "default"] | None, Field(description="Accepted; there is one.")] = None

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            raise PydanticCustomError(
                "two_limits", "`max_tokens` is the older name of `max_completion_tokens`: send one"
            )
        return self

    def to_generate(self, target: Target) -> GenerateRequest:
        """The native request. Raises `RequestValidationError` for fields that cannot be had together."""
        own = {
            "messages": [message.native() for message in self.messages],
            "max_tokens": self.max_completion_tokens or self.max_tokens or LARGEST_INTEGER,
            "logprobs": self.logprobs,
            "top_logprobs": self.top_logprobs,
            "json_schema": self.response_format and self.response_format.schema_to_keep,
            **self.model_dump(include={"tools", "tool_choice", "parallel_tool_calls"}),
        }
        return self.native(target, own)
