"""What the API sends and gets back. Internal: the API has validated and authorised."""

from typing import Any, Literal, Self

from pydantic import BaseModel, Field, model_validator


class AdapterRef(BaseModel):
    """An adapter, or a job's checkpoint, as the registry knows it."""

    id: str
    name: str
    version: int
    job_id: str | None = None
    step: int | None = None
    object_key: str
    sha256: str
    type: Literal["osora", "lora"] = "osora"
    base_fingerprint: str
    basis_fingerprint: str | None
    """None for a plain LoRA, which knows no basis."""


class InspectRequest(BaseModel):
    """An artifact that somebody has brought: what is it, and can it be served?"""

    tenant: str = ""
    base: str
    object_key: str
    sha256: str


class ExportRequest(BaseModel):
    """An adapter in another form."""

    tenant: str = ""
    base: str
    adapter: AdapterRef
    format: Literal["lora", "merged", "gguf"]


class ForgetRequest(BaseModel):
    """Adapters that are no more, by their ids."""

    adapters: list[str]


class MeasureRequest(BaseModel):
    """A training file to be measured in a base's tokens. Of its rows, those over `limit` tokens are too long; over
    what the base reads, all are."""

    tenant: str = ""
    base: str
    object_key: str
    sha256: str
    rows: int
    bytes: int
    limit: int | None = None


class TakeUsage(BaseModel):
    """Up to which number the records of each segment are kept elsewhere by now."""

    acknowledged: dict[str, int] = Field(default_factory=dict)


class GenerateRequest(BaseModel):
    """One generation."""

    request_id: str
    tenant: str = ""
    key: str = ""
    """Of the tenant, by its id."""
    kind: str = "generate"
    """The door that it came through."""
    base: str
    adapter: AdapterRef | None = None
    alias: str | None = None
    """The name that was asked for, if it was one that stands for another; the receipt says so."""
    messages: list[dict[str, Any]] | None = None
    prompt: str | list[str] | list[int] | list[list[int]] | None = None
    max_tokens: int = 128
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[int, float] = Field(default_factory=dict)
    seed: int | None = None
    stop: list[str] = Field(default_factory=list)
    stop_tokens: list[int] = Field(default_factory=list)
    n: int = 1
    logprobs: bool = False
    top_logprobs: int = 0
    echo: bool = False
    json_schema: dict[str, Any] | None = None
    regex: str | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: Literal["auto", "none", "required"] | dict[str, Any] = "auto"
    parallel_tool_calls: bool = True
    strength: float = 1.0
    stream: bool = False

    @property
    def prompts(self) -> dict[str, str | list[int]]:
        """Each prompt, a text or token ids, by what it is called in the request; none of a conversation."""
        match self.prompt:
            case None:
                return {}
            case str() | [int(), *_]:
                return {"prompt": self.prompt}  # type: ignore[dict-item]
            case several:
                return {f"prompt[{index}]": prompt for index, prompt in enumerate(several)}  # type: ignore[misc]

    @model_validator(mode="after")
    def _one_input(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give either prompt or messages")
        return self


class AddBase(BaseModel):
    """A base to load: `source` and `content` as `osora_core.base_folders` takes them; `id` tells it from another that
    was called so before."""

    name: str
    id: str
    source: str
    content: str | None = None


class RemoveBase(BaseModel):
    """A base to let go of."""

    name: str
