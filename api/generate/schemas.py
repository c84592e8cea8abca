"""What a generation takes and gives."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationInfo, field_validator, model_validator
from pydantic.config import JsonDict, JsonValue
from pydantic_core import PydanticCustomError

from api.generate.tools import SCHEMA_BYTES, JsonSchema, Message, NamedTool, Tool, ToolCall, ToolChoice, Tools
from api.schemas import AtMost, Name, RequestModel
from osora_data.tool_calls import find_flaw
from registry.errors import InvalidRequest

REQUEST_EXAMPLES: list[JsonValue] = [
    {
        "adapter_id": "ft:osora-tiny:default:ticket-triage:abcdefghjkmnpqrs",
        "messages": [
            {"role": "system", "content": "Sort the ticket."},
            {"role": "user", "content": "I was charged twice for order 48213."},
        ],
        "max_tokens": 32,
    },
    {
        "base": "osora-tiny",
        "prompt": "Ticket: the app crashes on login.\nCategory:",
        "stop": "\n",
        "stream": True,
    },
    {
        "adapter_id": "ft:osora-tiny:default:ticket-triage:abcdefghjkmnpqrs",
        "messages": [{"role": "user", "content": "I was charged twice for order 48213."}],
        "json_schema": {
            "type": "object",
            "properties": {"category": {"enum": ["billing", "shipping"]}, "urgent": {"type": "boolean"}},
            "required": ["category", "urgent"],
            "additionalProperties": False,
        },
        "temperature": 0.7,
        "seed": 7,
        "n": 2,
        "logprobs": True,
        "top_logprobs": 3,
    },
]

RESULT_EXAMPLE: JsonDict = {
    "id": "gen-5f0c3e7a9b2d4c61",
    "object": "generation",
    "base": "osora-tiny",
    "adapter_id": "adp-01k9v4c7rqsabcdefghjkmnpqrs",
    "text": "category: billing, priority: high",
    "finish_reason": "stop",
    "choices": [
        {
            "index": 0,
            "text": "category: billing, priority: high",
            "finish_reason": "stop",
            "stop": None,
            "logprobs": None,
            "tool_calls": None,
        }
    ],
    "usage": {"prompt_tokens": 31, "completion_tokens": 9, "total_tokens": 40},
    "timing": {"load_ms": 0.3, "queue_ms": 0.4, "first_token_ms": 12.8, "total_ms": 61.5},
    "receipt": {
        "base": "osora-tiny",
        "base_fingerprint": "6b51d431df5d7f14…",
        "basis_fingerprint": "e3b98a4da31a127d…",
        "adapter_id": "adp-01k9v4c7rqsabcdefghjkmnpqrs",
        "adapter_name": "ft:osora-tiny:default:ticket-triage:abcdefghjkmnpqrs",
        "adapter_version": 1,
        "adapter_sha256": "9f86d081884c7d65…",
        "job_id": "ftjob-01k9v3x2b8mabcdefghjkmnpqrs",
        "step": 225,
        "strength": 1.0,
        "alias": None,
    },
}

STREAM_EXAMPLE = """event: token
data: {"index": 0, "text": "category: "}

event: token
data: {"index": 0, "text": "billing"}

event: done
data: {"id": "gen-…", "object": "generation", "text": "category: billing", "finish_reason": "stop", …}
"""


LARGEST_INTEGER = 2**31 - 1
MESSAGES = 2048
ANSWERS = 128
_PROMPT_TOKENS = 100_000
_STOPS = 64
_TOKENS = 1024
_REGEX_LENGTH = 16 * 1024


Count = Annotated[int, Field(ge=0, le=LARGEST_INTEGER)]
FinishReason = Literal["stop", "length", "tool_calls"]
_Stop = Annotated[str, Field(min_length=1, max_length=1000)]
# Fields, and what they need.
_NEEDED = {"top_logprobs": "logprobs", "echo": "prompt", "tools": "messages", "tool_choice": "tools"}


def _names(tools: list[Tool] | None) -> set[str]:
    return {tool.function.name for tool in tools or ()}


class SamplingControls(RequestModel):
    """The part of how tokens are chosen that OpenAI's chats and completions have, and its responses do not."""

    presence_penalty: Annotated[
        float, Field(ge=-2, le=2, description="Taken once from the logit of every token that the answer has.")
    ] = 0.0
    frequency_penalty: Annotated[
        float, Field(ge=-2, le=2, description="Taken from a token's logit for every time that the answer has it.")
    ] = 0.0
    logit_bias: Annotated[
        Annotated[
            dict[Annotated[str, Field(pattern="^[0-9]{1,9}$")], Annotated[float, Field(ge=-100, le=100)]],
            AtMost(_TOKENS),
        ]
        | None,
        Field(description="Token id to what is added to its logit; -100 forbids it.", examples=[{"42": -100}]),
    ] = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    stop: _Stop | Annotated[list[_Stop], AtMost(_STOPS)] | None = None


class Sampling(SamplingControls):
    """How tokens are chosen and how many answers there are, the same through either door."""

    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    n: Annotated[
        int, Field(ge=1, le=ANSWERS, description="So many answers, in `choices`; the i-th has the seed `seed + i`.")
    ] = 1
    stream: Annotated[bool, Field(description="Server-sent events: tokens, then the whole.")] = False


class SamplingKnobs(RequestModel):
    """The part of it that OpenAI's API has no name for."""

    top_k: Annotated[Count, Field(description="0 leaves all tokens in.")] = 0
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    repetition_penalty: Annotated[
        float, Field(gt=0, le=10, description="Over 1: what the prompt or the answer has already becomes less likely.")
    ] = 1.0
    stop_tokens: Annotated[
        Annotated[list[Count], AtMost(_TOKENS)] | None, Field(description="Token ids that end the text.")
    ] = None
    strength: Annotated[float, Field(ge=-100, le=100, description="Scales the adapter; 0 is the bare base.")] = 1.0


def _kind_of(prompt: Any) -> str | None:
    """Which of the kinds of prompts it is, by its first item: of the others only one has to be wrong."""
    if isinstance(prompt, str):
        return "text"
    if not isinstance(prompt, list):
        return None
    first = prompt[0] if prompt else ""
    return next(
        (kind for type_, kind in ((str, "texts"), (int, "ids"), (list, "lists")) if isinstance(first, type_)), None
    )


_Ids = Annotated[list[Count], Field(min_length=1), AtMost(_PROMPT_TOKENS)]
Prompt = Annotated[
    Annotated[str, Tag("text")]
    | Annotated[list[str], Field(min_length=1), AtMost(ANSWERS), Tag("texts")]
    | Annotated[_Ids, Tag("ids")]
    | Annotated[list[_Ids], Field(min_length=1), AtMost(ANSWERS), Tag("lists")],
    Discriminator(
        _kind_of, custom_error_type="no_prompt", custom_error_message="should be a text, token ids, or a list of either"
    ),
]


def count(prompt: Prompt | None) -> int:
    """How many prompts they are."""
    return len(prompt) if isinstance(prompt, list) and not isinstance(prompt[0], int) else 1


class AnswerKnobs(SamplingControls, SamplingKnobs):
    """What neither OpenAI's Responses nor Anthropic's Messages have a name for."""


class GenerateRequest(Sampling, SamplingKnobs):
    """A prompt or a conversation to continue, by an adapter or the bare base."""

    model_config = ConfigDict(json_schema_extra={"examples": REQUEST_EXAMPLES})

    adapter_id: Annotated[
        Name | None,
        Field(
            description="An adapter, `adp-…` or `ft:…`, a job's checkpoint, `ftckpt_…` or `ft:…:ckpt-step-<n>`, or an "
            "alias. Without one, the base answers."
        ),
    ] = None
    base: Annotated[
        Name | None, Field(description="Without one: the adapter's, else the first that is configured.")
    ] = None
    prompt: Annotated[
        Prompt | None,
        Field(
            description="Text to continue as it is, or its token ids; or several of either, each with `n` answers: "
            "those of the first come before those of the second. Or give `messages`."
        ),
    ] = None
    messages: Annotated[list[Message], Field(min_length=1), AtMost(MESSAGES)] | None = None
    max_tokens: Annotated[Count, Field(ge=1)] = 128
    temperature: Annotated[float, Field(ge=0, description="0 is greedy.")] = 0.0
    logprobs: Annotated[
        bool,
        Field(description="Log-probabilities of the tokens under the model itself, before penalties and temperature."),
    ] = False
    top_logprobs: Annotated[int, Field(ge=0, le=20, description="So many of the likeliest beside each token.")] = 0
    echo: Annotated[
        bool, Field(description="The prompt comes before the text, with its log-probabilities if those are asked for.")
    ] = False
    json_schema: Annotated[
        JsonSchema | None,
        Field(description=f"The answer is a JSON document that this schema allows; at most {SCHEMA_BYTES} bytes."),
    ] = None
    regex: Annotated[
        Annotated[str, Field(min_length=1, max_length=_REGEX_LENGTH)] | None,
        Field(description="The answer matches this regular expression from end to end."),
    ] = None
    tools: Annotated[Tools | None, Field(description="What the assistant may call; with `messages`.")] = None
    tool_choice: Annotated[
        ToolChoice,
        Field(description="Whether it calls: if it likes (`auto`), not (`none`), at least once, or this function."),
    ] = "auto"
    parallel_tool_calls: Annotated[bool, Field(description="Whether it may call several times at once.")] = True

    user: Annotated[
        str | None,
        Field(max_length=1000, description="Who it is for: an alias of several models keeps each user at one of them."),
    ] = None

    @field_validator("top_logprobs", "echo", "regex", "tools", "tool_choice")
    @classmethod
    def _fits_the_fields_before(cls, value: Any, info: ValidationInfo) -> Any:
        needed = _NEEDED.get(str(info.field_name))
        if value and needed and info.data.get(needed) in (None, False):  # a prompt may be empty
            raise PydanticCustomError("needs_another", "it needs `{needed}`", {"needed": needed})
        if info.field_name == "regex" and value and info.data.get("json_schema") is not None:
            raise PydanticCustomError("two_constraints", "give either `json_schema` or `regex`")
        if isinstance(value, NamedTool) and value.function.name not in _names(info.data.get("tools")):
            raise PydanticCustomError("choice_of_no_tool", "it names none of the `tools`")
        return value

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise PydanticCustomError("prompt_or_messages", "give either `prompt` or `messages`")
        if any(message.of_tools for message in self.messages or ()):
            self._check_calls()
        if self.regex is not None and self.tools and self.tool_choice != "none":
            raise PydanticCustomError("two_constraints", "give either `regex` or `tools` that may be called")
        if count(self.prompt) * self.n > ANSWERS:
            raise PydanticCustomError(
                "too_many_answers",
                "{prompts} prompts with {n} answers each are over {most} answers: ask in several requests",
                {"prompts": count(self.prompt), "n": self.n, "most": ANSWERS},
            )
        if self.adapter_id is None and "strength" in self.model_fields_set:
            raise PydanticCustomError("strength_of_nothing", "`strength` scales an adapter: name one")
        return self

    def _check_calls(self) -> None:
        messages = [message.model_dump(exclude_none=True) for message in self.messages or ()]
        flaw = find_flaw(messages, "messages", known=None, is_asked=True)
        if flaw is not None:
            # Not a finding of pydantic's, which would name the whole body.
            raise InvalidRequest(
                f"{flaw.field} {flaw.problem}", param=flaw.field, code="invalid_value", next_action=flaw.next_action
            )

    def options(self) -> dict[str, Any]:
        """What goes to the inference server as it is."""
        without = {"adapter_id", "base", "stop", "user"}
        without |= set() if self.tools else {"tool_choice", "parallel_tool_calls"}
        options = self.model_dump(exclude=without, exclude_none=True)
        return {**options, "stop": [self.stop] if isinstance(self.stop, str) else self.stop or []}


class Likelihood(BaseModel):
    """A token and its log-probability; None for the first of a prompt."""

    id: int
    token: str
    bytes: Annotated[list[int], Field(description="The token itself: it may be a part of a character.")]
    logprob: float | None


class TokenLogprob(Likelihood):
    """A token of the text, and the likeliest ones at its place."""

    top_logprobs: list[Likelihood]


class Choice(BaseModel):
    """One of the `n` answers to a prompt."""

    index: int
    text: str
    tool_calls: list[ToolCall] | None
    finish_reason: FinishReason
    stop: Annotated[str | None, Field(description="Which of the request's `stop` ended the text, if one did.")]
    logprobs: list[TokenLogprob] | None


class Usage(BaseModel):
    """Tokens, counted by the base's tokenizer."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Generation(BaseModel):
    """The text, and a receipt of exactly what made it. `text` and `finish_reason` are those of the first choice."""

    model_config = ConfigDict(json_schema_extra={"examples": [RESULT_EXAMPLE]})

    id: str
    object: Literal["generation"] = "generation"
    base: str
    adapter_id: str | None
    text: str
    finish_reason: FinishReason
    choices: list[Choice]
    usage: Usage
    timing: dict[str, float | None]
    receipt: dict[str, Any]
