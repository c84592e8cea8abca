"""Completions of a prompt as OpenAI shapes them."""

from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from api.generate.schemas import Count, GenerateRequest, Prompt
from api.openai.sampling import TextRequest
from registry.references import Target

COMPLETION_EXAMPLE: JsonDict = {
    "model": "osora-tiny",
    "prompt": "Ticket: the app crashes on login.\nCategory:",
    "max_tokens": 8,
    "stop": "\n",
}
CHUNKS_EXAMPLE = """data: {"id": "cmpl-…", "object": "text_completion", …, "choices": [{"index": 0, "text": …}]}

data: [DONE]
"""


class CompletionRequest(TextRequest):
    """A prompt to continue as it is."""

    model_config = ConfigDict(json_schema_extra={"examples": [COMPLETION_EXAMPLE]})
    unsupported: ClassVar = {**TextRequest.unsupported, "suffix": "text is only continued, never filled in"}

    prompt: Annotated[
        Prompt,
        Field(
            description="A text or its token ids, or several of either; the answers of the second come after those of "
            "the first."
        ),
    ]
    max_tokens: Annotated[Count, Field(ge=1)] = 16
    logprobs: Annotated[
        int | None, Field(ge=0, le=20, description="Log-probabilities, and so many of the likeliest beside each token.")
    ] = None
    echo: Annotated[bool, Field(description="The prompt comes before the text.")] = False
    best_of: Literal[1] | None = None

    def to_generate(self, target: Target) -> GenerateRequest:
        """The native request. Raises `RequestValidationError` for fields that cannot be had together."""
        own = {
            "prompt": self.prompt,
            "max_tokens": self.max_tokens,
            "logprobs": self.logprobs is not None,
            "top_logprobs": self.logprobs or 0,
            "echo": self.echo,
        }
        return self.native(target, own)
