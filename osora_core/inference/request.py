"""What a caller asks of the inference engine, and what comes back."""

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

from torch import Tensor

from osora_core.errors import UserError

if TYPE_CHECKING:
    from osora_core.inference.grammar import Grammar


# Logits divided by less leave float32's range sooner or later (vLLM draws the line at the same place).
_GREEDY_BELOW = 1e-5
# Each is looked for in every piece of text.
_MOST_STOPS = 256


@dataclass(frozen=True)
class SamplingParams:
    """How tokens are chosen. The defaults are greedy and change nothing.

    temperature 0 is greedy, and so is one below 1e-5, where rounding decides; top_k 0, top_p 1 and min_p 0 leave all
    tokens in. A seed makes the result reproducible whatever else is in the batch. repetition_penalty (1: none; arXiv
    1909.05858) looks at prompt and answer alike; frequency and presence penalty are subtracted from the logits of
    tokens in the answer so far, once for every occurrence and once in all. logit_bias adds to the logits of token ids.
    `stop` strings and `stop_tokens` end the text and are not part of it. logprobs asks for the chosen token's
    log-probability under the model itself, that is before penalties, bias, constraints and temperature; top_logprobs
    for so many of the likeliest beside it; prompt_logprobs for those of the prompt's tokens too.
    """

    max_tokens: int = 128
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_tokens: frozenset[int] = frozenset()
    logprobs: bool = False
    top_logprobs: int = 0
    prompt_logprobs: bool = False

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest token is chosen, without a draw."""
        return self.temperature < _GREEDY_BELOW

    def __post_init__(self) -> None:
        checks = {
            "max_tokens": self.max_tokens >= 1,
            "temperature": 0 <= self.temperature < float("inf"),
            "top_k": self.top_k >= 0,
            "top_p": 0 < self.top_p <= 1,
            "min_p": 0 <= self.min_p <= 1,
            "repetition_penalty": 0 < self.repetition_penalty < float("inf"),
            "presence_penalty": abs(self.presence_penalty) < float("inf"),
            "frequency_penalty": abs(self.frequency_penalty) < float("inf"),
            "logit_bias": all(abs(bias) < float("inf") for bias in self.logit_bias.values()),
            "stop": all(self.stop),
            "top_logprobs": self.top_logprobs == 0 or (self.logprobs and self.top_logprobs > 0),
            "prompt_logprobs": self.logprobs or not self.prompt_logprobs,
        }
        for name, holds in checks.items():
            if not holds:
                raise UserError(f"{name} cannot be {reprlib.repr(getattr(self, name))}", param=name)
        if len(self.stop) > _MOST_STOPS:
            raise UserError(
                f"stop has {len(self.stop)} strings; at most {_MOST_STOPS} are allowed",
                param="stop",
                next_action="leave some out",
            )


@dataclass(frozen=True, eq=False)
class AdapterRow:
    """An adapter in host memory, as `values` [P] that can be copied into a slot; [P + M] with a mix of size `mix`.

    `key` names its id, version and strength: what has the same key has the same values for ever.
    """

    key: str
    values: Tensor
    rank: int
    mix: int = 0

    @property
    def bytes(self) -> int:
        return self.values.numel() * self.values.element_size()


@dataclass(frozen=True, eq=False)
class LoraRow:
    """A plain LoRA in host memory: A [r, d_in] and B [d_out, r], its scale included, by the module's index in the
    basis. rank: the largest r. `key` as that of an `AdapterRow`."""

    key: str
    factors: Mapping[int, tuple[Tensor, Tensor]]
    rank: int

    @property
    def bytes(self) -> int:
        return sum(part.numel() * part.element_size() for pair in self.factors.values() for part in pair)


@dataclass(frozen=True, eq=False)
class Request:
    """Continue `prompt` (token ids) with `adapter` (None: the bare base), within `grammar` if there is one.

    Tenants share the engine fairly, whatever each of them asks for. `shown` are control tokens that the text has, each
    as what stands there for it; it has no others.
    """

    id: str
    prompt: tuple[int, ...]
    params: SamplingParams = field(default_factory=SamplingParams)
    adapter: AdapterRow | LoraRow | None = None
    grammar: "Grammar | None" = None
    tenant: str = ""
    shown: Mapping[int, str] = field(default_factory=dict)


class Computed(NamedTuple):
    """How far a request has come: so many tokens of its prompt were read, and so many were added to it."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class TokenScore:
    """A token with its log-probability (None for the first of a prompt), and the likeliest tokens at its place."""

    token: int
    logprob: float | None
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Output:
    """What one step added to one request. The last output of a request has a finish_reason.

    scores: one for every new token, if logprobs were asked for. In the first output they come after one for every
    token of the prompt, if prompt_logprobs were asked for too. queued_seconds: how long the request waited for a row.
    error: why the request failed, where the finish_reason is "error"; other requests go on. stop: the stop string that
    ended the text, if one did.
    """

    request_id: str
    text: str
    completion_tokens: int
    finish_reason: Literal["stop", "length", "error"] | None = None
    scores: tuple[TokenScore, ...] = ()
    queued_seconds: float = 0.0
    error: Exception | None = None
    stop: str | None = None
