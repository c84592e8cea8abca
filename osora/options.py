"""What a caller may give, as types: of jobs, of lists, of generations. Read with `osora.schemas`, what comes back."""

from typing import Any, Literal, Required, TypedDict

Auto = Literal["auto"]
Order = Literal["asc", "desc"]


class Hyperparameters(TypedDict, total=False):
    """What is left out is "auto"."""

    n_epochs: int | Auto
    batch_size: int | Auto
    learning_rate_multiplier: float | Auto
    beta: float | Auto  # of dpo


class MethodPart(TypedDict, total=False):
    hyperparameters: Hyperparameters


class Method(TypedDict, total=False):
    """How to train: on answers, or (`dpo`) on preferences between two."""

    type: Required[Literal["supervised", "dpo"]]
    supervised: MethodPart
    dpo: MethodPart


class JobOptions(TypedDict, total=False):
    """What OSoRA has and OpenAI's API has no name for. What is left out, the service chooses."""

    rank: int | Literal["full"] | None
    learning_rate: float | list[float] | Literal["auto", "sweep"] | None
    sigma_rate: float | list[float] | None
    target_modules: list[str] | Literal["all-linear"] | None
    train: Literal["both", "s", "o"] | None
    warmup_ratio: float | None
    max_length: int | None
    overlong: Literal["refuse", "truncate", "drop"] | None  # what becomes of rows over the limit of length
    validation_share: float | None  # of the training rows, held out where there is no validation file
    checkpoint_steps: int | None
    checkpoint_seconds: float | None
    evaluate: Literal["epoch", "never"] | None
    keep: Literal["best", "last"] | None
    early_stopping_patience: int | None
    priority: Literal["high", "normal", "low"] | None
    from_adapter: str | None
    sample_prompts: list[str] | None
    sample_tokens: int | None


class JobFields(TypedDict, total=False):
    """What a job may be given beside its model and its training file."""

    validation_file: str | None
    suffix: str | None
    seed: int | None
    metadata: dict[str, str] | None
    method: Method | None
    hyperparameters: Hyperparameters | None
    osora: JobOptions | None


class FunctionDefinition(TypedDict, total=False):
    name: Required[str]
    description: str
    parameters: dict[str, Any]  # a JSON schema
    strict: bool | None


class Tool(TypedDict):
    """A function that an answer may call."""

    type: Literal["function"]
    function: FunctionDefinition


class ChosenFunction(TypedDict):
    name: str


class ChosenTool(TypedDict):
    type: Literal["function"]
    function: ChosenFunction


class GenerateOptions(TypedDict, total=False):
    """How an answer is made; a field that is None is as good as left out."""

    base: str | None
    max_tokens: int | None
    temperature: float | None
    """0 (as if left out) is greedy."""
    top_k: int | None
    top_p: float | None
    min_p: float | None
    repetition_penalty: float | None
    presence_penalty: float | None
    frequency_penalty: float | None
    logit_bias: dict[str, float] | None
    """Token id to what is added to its logit."""
    seed: int | None
    stop: str | list[str] | None
    stop_tokens: list[int] | None
    n: int | None
    """So many answers, in `choices`."""
    logprobs: bool | None
    top_logprobs: int | None
    echo: bool | None
    json_schema: dict[str, Any] | None
    """The answer is a JSON document that it allows."""
    regex: str | None
    """The answer matches it from end to end."""
    tools: list[Tool] | None
    tool_choice: Literal["auto", "none", "required"] | ChosenTool | None
    parallel_tool_calls: bool | None
    strength: float | None
    """Scales the adapter; 0 is the bare base."""
    user: str | None
    """Who it is for: an alias of several models keeps each user at one of them."""
