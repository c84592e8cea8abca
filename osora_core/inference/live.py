"""What the engine knows of the requests that it is busy with."""

from concurrent.futures import Future
from dataclasses import dataclass, field

from torch import Tensor

from osora_core.inference.request import Computed, Request, TokenScore
from osora_core.inference.sampling import Sampler
from osora_core.inference.text import TextStream


@dataclass(eq=False)
class LiveSequence:
    """A request that has a row: what it has read and said so far."""

    request: Request
    stream: TextStream
    sampler: Sampler
    queued_seconds: float
    cached: int = 0
    generated: list[int] = field(default_factory=list)
    prompt_scores: list[TokenScore] = field(default_factory=list)
    examination: "Examination | None" = None
    gone: bool = False
    turn: int = 0
    """The last step that it had a turn in, or the one before it came; see `StepTurns`."""

    @property
    def computed(self) -> Computed:
        """How far it has come."""
        return Computed(min(self.cached, len(self.request.prompt)), len(self.generated))


@dataclass(eq=False)
class Examination:
    """Tokens whose log-probabilities are asked for: ids [T, k], of which those after the first tokens are found."""

    ids: Tensor
    answer: "Future[Tensor]"
    found: list[Tensor] = field(default_factory=list)


@dataclass(frozen=True)
class Launched:
    """A pass that is computed: which row of logits [B, V] is whose, and the examinations that ended with it."""

    rows: dict[int, LiveSequence]
    logits: Tensor
    examinations: list[Examination]
