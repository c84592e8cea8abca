"""What a caller asks of the inference engine."""

from dataclasses import dataclass, field

from torch import Tensor

from osora_core.errors import UserError


@dataclass(frozen=True)
class SamplingParams:
    """temperature 0 is greedy. top_k 0, top_p 1 and min_p 0 leave all tokens in. A seed makes the result reproducible
    whatever else is in the batch. `stop` strings end the text and are not part of it."""

    max_tokens: int = 128
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        checks = {
            "max_tokens": self.max_tokens >= 1,
            "temperature": 0 <= self.temperature < float("inf"),
            "top_k": self.top_k >= 0,
            "top_p": 0 < self.top_p <= 1,
            "min_p": 0 <= self.min_p <= 1,
            "stop": all(self.stop),
        }
        for name, holds in checks.items():
            if not holds:
                raise UserError(f"{name} cannot be {getattr(self, name)!r}", param=name)


@dataclass(frozen=True, eq=False)
class AdapterRow:
    """An adapter in host memory, ready to be copied into the bank. `key` names its id, version and strength: equal
    keys are the same row, and a key's row never changes."""

    key: str
    values: Tensor
    rank: int


@dataclass(frozen=True, eq=False)
class Request:
    """Continue `prompt` (token ids) with `adapter` (None: the bare base)."""

    id: str
    prompt: tuple[int, ...]
    params: SamplingParams = field(default_factory=SamplingParams)
    adapter: AdapterRow | None = None
