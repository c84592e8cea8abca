"""Messages as Anthropic asks for them."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, model_validator
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError

from api.anthropic.content import Message, Text, Unread, text_of
from api.anthropic.tools import Tool, ToolChoice
from api.generate.doors import calls_named, native_request
from api.generate.schemas import MESSAGES, AnswerKnobs, Count, GenerateRequest
from api.generate.tools import TOOLS, JsonSchema
from api.schemas import AtMost, Name, RequestModel
from registry.references import Target

MESSAGE_EXAMPLE: JsonDict = {
    "model": "ft:osora-tiny:default:ticket-triage:abcdefghjkmnpqrs",
    "max_tokens": 32,
    "system": "Sort the ticket.",
    "messages": [{"role": "user", "content": "I was charged twice for order 48213."}],
    "temperature": 0,
}
EVENTS_EXAMPLE = """event: message_start
data: {"type": "message_start", "message": {"id": "msg_…", …}}

event: content_block_delta
data: {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "category: "}}

event: message_stop
data: {"type": "message_stop"}
"""


class JsonFormat(RequestModel):
    """A document of a JSON schema."""

    type: Literal["json_schema"]
    json_schema: Annotated[JsonSchema, Field(alias="schema")]


class OutputConfig(RequestModel):
    """What form the answer has."""

    unsupported: ClassVar = {"effort": "the model answers at once"}

    format: JsonFormat | None = None


class Thinking(RequestModel):
    """Whether the model thinks before it answers."""

    unsupported: ClassVar = dict.fromkeys(("budget_tokens", "display"), "the model answers at once")

    type: Literal["disabled"]


class Metadata(RequestModel):
    """Who asks."""

    user_id: Annotated[
        str | None,
        Field(max_length=1000, description="Keeps its requests at one of the models that an alias stands for."),
    ] = None


class MessageRequest(RequestModel):
    """A conversation to continue."""

    model_config = ConfigDict(json_schema_extra={"examples": [MESSAGE_EXAMPLE]})
    unsupported: ClassVar = {
        **dict.fromkeys(("container", "mcp_servers"), "nothing runs here but the model"),
        "context_management": "conversations are never cut",
        "diagnostics": "nothing is cached between requests",
        **dict.fromkeys(("inference_geo", "speed", "user_profile_id", "workspace_id"), "there is one service"),
    }

    model: Annotated[
        Name, Field(description="A base, an adapter, a job's checkpoint or an alias; GET /v1/models lists them.")
    ]
    max_tokens: Annotated[Count, Field(ge=1)]
    messages: Annotated[list[Message], Field(min_length=1), AtMost(MESSAGES)]
    system: Annotated[Text | None, Field(description="A message of the system before all others.")] = None
    temperature: Annotated[float, Field(ge=0, le=1, description="0 is greedy.")] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[Count | None, Field(description="0 leaves all tokens in.")] = None
    stop_sequences: Annotated[list[Annotated[str, Field(min_length=1, max_length=1000)]], AtMost(64)] | None = None
    stream: Annotated[bool, Field(description="Server-sent events: blocks as they come.")] = False
    tools: Annotated[list[Tool], AtMost(TOOLS)] = Field(default_factory=list)
    tool_choice: ToolChoice | None = None
    output_config: OutputConfig | None = None
    thinking: Thinking | None = None
    metadata: Metadata | None = None
    service_tier: Annotated[Literal["auto", "standard_only"] | None, Field(description="Accepted; there is one.")] = (
        None
    )
    cache_control: Unread = None
    osora: Annotated[AnswerKnobs | None, Field(description="What Anthropic's API has no name for.")] = None

    @model_validator(mode="after")
    def _ends_with_a_question(self) -> Self:
        if self.messages[-1].role == "assistant":
            raise PydanticCustomError(
                "prefilled", "the last of `messages` is the assistant's: an answer is not begun for the model"
            )
        return self

    @property
    def users(self) -> tuple[str | None, ...]:
        """Who it is for."""
        return (self.metadata.user_id if self.metadata else None,)

    def to_generate(self, target: Target) -> GenerateRequest:
        """The native request. Raises `RequestValidationError` for fields that cannot be had together."""
        knobs = self.osora.model_dump(exclude_unset=True) if self.osora else {}
        system = [{"role": "system", "content": text_of(self.system)}] if self.system else []
        form = self.output_config.format if self.output_config else None
        own = {
            "messages": [*system, *(one for message in self.messages for one in message.native())],
            "json_schema": form and form.json_schema,
            **self.model_dump(include={"max_tokens", "temperature", "top_p", "stream"}),
            **({} if self.top_k is None else {"top_k": self.top_k}),
            **({} if self.stop_sequences is None else {"stop": self.stop_sequences}),
            **({"tools": [tool.native() for tool in self.tools]} if self.tools else {}),
            **(self.tool_choice.native() if self.tool_choice and (self.tools or self.tool_choice.must_call) else {}),
        }
        with calls_named("messages", "answer each `tool_use` with one `tool_result` in the next message"):
            return native_request(target, {**knobs, **own}, self)
