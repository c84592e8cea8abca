"""Responses as OpenAI asks for them."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, model_validator
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError

from api.generate.doors import calls_named, native_request
from api.generate.schemas import LARGEST_INTEGER, MESSAGES, AnswerKnobs, Count, GenerateRequest
from api.generate.tools import JsonSchema
from api.openai.responses.items import Item, messages_of
from api.openai.responses.tools import Functions
from api.openai.sampling import Hint, Users
from api.schemas import AtMost, Metadata, Name, RequestModel
from registry.references import Target

RESPONSE_EXAMPLE: JsonDict = {
    "model": "ft:osora-tiny:default:ticket-triage:abcdefghjkmnpqrs",
    "instructions": "Sort the ticket.",
    "input": "I was charged twice for order 48213.",
    "max_output_tokens": 32,
    "temperature": 0,
}
EVENTS_EXAMPLE = """event: response.created
data: {"type": "response.created", "sequence_number": 0, "response": {"id": "resp_…", …}}

event: response.output_text.delta
data: {"type": "response.output_text.delta", "sequence_number": 4, "delta": "category: ", …}

event: response.completed
data: {"type": "response.completed", "sequence_number": 9, "response": {"id": "resp_…", …}}
"""

_STATELESS = "responses are not stored: send the items of the conversation as `input`"
_CACHE = "nothing is cached between requests"
_LOGPROBS = "message.output_text.logprobs"


def _disabled(truncation: str) -> str:
    if truncation != "disabled":
        raise PydanticCustomError(
            "truncation", "conversations are never cut: send 'disabled', and leave out the oldest items"
        )
    return truncation


class TextFormat(RequestModel):
    """What form the text has: any, a JSON object, or a document of a JSON schema."""

    type: Literal["text", "json_object", "json_schema"]
    name: Annotated[str, Field(max_length=64)] | None = None
    description: Annotated[str, Field(max_length=10_000)] | None = None
    json_schema: Annotated[JsonSchema | None, Field(alias="schema")] = None
    strict: Annotated[bool, Field(description="Accepted; the text always keeps to the schema.")] = True

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> Self:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise PydanticCustomError("schema_and_type", "`schema` belongs to the type 'json_schema'")
        return self

    @property
    def schema_to_keep(self) -> dict[str, Any] | None:
        """What the text is held to, if to anything."""
        return {"type": "object"} if self.type == "json_object" else self.json_schema


class TextConfig(RequestModel):
    """How the text is."""

    unsupported: ClassVar = {"verbosity": "the model answers as it was trained to"}

    format: TextFormat = Field(default_factory=lambda: TextFormat(type="text"))


class StreamOptions(RequestModel):
    """How a stream is written."""

    include_obfuscation: Annotated[bool, Field(description="Accepted; events are never padded.")] = False


class ResponseRequest(Functions, Users):
    """A conversation to continue."""

    model_config = ConfigDict(json_schema_extra={"examples": [RESPONSE_EXAMPLE]})
    unsupported: ClassVar = {
        "store": f"{_STATELESS}, and leave out `store`",
        **dict.fromkeys(("previous_response_id", "conversation"), _STATELESS),
        **dict.fromkeys(("background", "background_options"), "a response is made while the request waits"),
        "prompt": "prompts are not stored: send `instructions` and `input`",
        "reasoning": "the model answers at once",
        "context_management": "conversations are never cut",
        "max_tool_calls": "no tools run here: the functions are yours to call",
        "moderation": "nothing is moderated",
        "image": "only text is read",
        "access_programs": "all models are yours",
        "prompt_cache_options": _CACHE,
    }

    model: Annotated[
        Name, Field(description="A base, an adapter, a job's checkpoint or an alias; GET /v1/models lists them.")
    ]
    input: str | Annotated[list[Item], Field(min_length=1), AtMost(MESSAGES)]
    instructions: Annotated[str | None, Field(description="A message of the system before all others.")] = None
    temperature: Annotated[float, Field(ge=0, le=2, description="0 is greedy.")] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_output_tokens: Annotated[
        Annotated[Count, Field(ge=1)] | None,
        Field(description="Without it the answer ends by itself, or where the base's context does."),
    ] = None
    text: TextConfig = Field(default_factory=TextConfig)
    top_logprobs: Annotated[
        int, Field(ge=0, le=20, description="So many of the likeliest beside each token, with log-probabilities.")
    ] = 0
    include: Annotated[
        list[
            Literal[
                "file_search_call.results",
                "web_search_call.results",
                "web_search_call.action.sources",
                "message.input_image.image_url",
                "computer_call_output.output.image_url",
                "code_interpreter_call.outputs",
                "reasoning.encrypted_content",
                "message.output_text.logprobs",
            ]
        ],
        AtMost(64),
        Field(description=f"`{_LOGPROBS}`; there is nothing of the others to include."),
    ] = Field(default_factory=list)
    stream: Annotated[bool, Field(description="Server-sent events: items as they come, then the whole.")] = False
    stream_options: Annotated[StreamOptions | None, Field(description="Only with `stream`.")] = None
    truncation: Annotated[str, AfterValidator(_disabled), Field(description="`disabled`.")] = "disabled"
    metadata: Annotated[Metadata, Field(description="Comes back with the response.")] = Field(default_factory=dict)
    service_tier: Annotated[Literal["auto", "default"] | None, Field(description="Accepted; there is one.")] = None
    prompt_cache_retention: Hint = None
    osora: Annotated[AnswerKnobs | None, Field(description="What OpenAI's Responses have no name for.")] = None

    @property
    def with_logprobs(self) -> bool:
        """Whether the text comes with its log-probabilities."""
        return self.top_logprobs > 0 or _LOGPROBS in self.include

    def to_generate(self, target: Target) -> GenerateRequest:
        """The native request. Raises `RequestValidationError` for fields that cannot be had together."""
        knobs = self.osora.model_dump(exclude_unset=True) if self.osora else {}
        own = {
            "messages": messages_of(self.instructions, self.input),
            "max_tokens": self.max_output_tokens or LARGEST_INTEGER,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "logprobs": self.with_logprobs,
            "top_logprobs": self.top_logprobs,
            "json_schema": self.text.format.schema_to_keep,
            "stream": self.stream,
            **self.native_functions(),
        }
        with calls_named("input", "put one `function_call_output` with its `call_id` behind each `function_call`"):
            return native_request(target, {**knobs, **own}, self)

    def echo(self) -> dict[str, Any]:
        """What of the request a response repeats."""
        own = {
            *Functions.model_fields, *Users.model_fields, "model", "instructions", "temperature", "top_p",
            "max_output_tokens", "top_logprobs", "truncation", "metadata", "prompt_cache_retention",
        }  # fmt: skip
        has_schema = self.text.format.type == "json_schema"
        text_format = self.text.format.model_dump(by_alias=True, include=None if has_schema else {"type"})
        return {**self.model_dump(include=own), "text": {"format": text_format}}
