"""What both ways to ask for text have in common, and their way to the native request."""

from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from api.generate.doors import native_request
from api.generate.schemas import GenerateRequest, Sampling, SamplingKnobs
from api.schemas import Name, RequestModel
from registry.references import Target

Hint = Annotated[str | None, Field(max_length=1000, description="Accepted; nothing depends on it.")]
UserId = Annotated[
    str | None,
    Field(
        max_length=1000,
        description="The first that is there of `safety_identifier`, `user` and `prompt_cache_key` keeps its requests "
        "at one of the models that an alias stands for.",
    ),
]


class StreamOptions(RequestModel):
    """How a stream is written."""

    include_usage: Annotated[bool, Field(description="A last chunk, without choices, counts the tokens.")] = False
    include_obfuscation: Annotated[bool, Field(description="Accepted; chunks are never padded.")] = False


class Users(RequestModel):
    """Who a request is for."""

    safety_identifier: UserId = None
    user: UserId = None
    prompt_cache_key: UserId = None

    @property
    def users(self) -> tuple[str | None, ...]:
        """By the fields that may say so, the one that counts most first."""
        return self.safety_identifier, self.user, self.prompt_cache_key


class TextRequest(Users, Sampling):
    """A request for text, with OpenAI's names and defaults."""

    unsupported: ClassVar = dict.fromkeys(("store", "metadata"), "answers are not stored")

    model: Annotated[
        Name, Field(description="A base, an adapter, a job's checkpoint or an alias; GET /v1/models lists them.")
    ]
    temperature: Annotated[float, Field(ge=0, le=2, description="0 is greedy.")] = 1.0
    stream_options: Annotated[StreamOptions | None, Field(description="Only with `stream`.")] = None
    osora: Annotated[SamplingKnobs | None, Field(description="What OpenAI's API has no name for.")] = None

    @model_validator(mode="after")
    def _options_of_a_stream(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise PydanticCustomError("options_of_no_stream", "`stream_options` needs `stream`")
        return self

    @property
    def with_usage(self) -> bool:
        """Whether a stream ends with its usage."""
        return self.stream_options is not None and self.stream_options.include_usage

    def native(self, target: Target, own: dict[str, Any]) -> GenerateRequest:
        """The same request as the native route takes it; `own` is what only this way of asking has."""
        knobs = self.osora.model_dump(exclude_unset=True) if self.osora else {}
        shared = self.model_dump(include={*Sampling.model_fields, "temperature"})
        return native_request(target, {**shared, **knobs, **own}, self)
