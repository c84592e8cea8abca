"""Whether our attention, cache and passes compute what transformers computes: measured on each base, never assumed.

A long random text goes through the model with transformers' own eager attention, and through ours: the training paths,
and the inference engine in chunks and with decode steps. Sliding windows are made shorter meanwhile, so
that the text reaches far beyond them whatever they are. A base that comes out otherwise anywhere is refused.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import transformers
from filelock import FileLock
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from osora_core import attention
from osora_core.basis import Basis
from osora_core.errors import UnsupportedBase, UserError
from osora_core.merged_decoder import MergedDecoder
from osora_core.out_of_memory import is_out_of_memory

# A verdict of other rules than these is not believed.
RULES = 3
TEXT_TOKENS = 72
WINDOW = 20
_FEW_TOKENS = 4
# Nats of log-probability that every base may be off by: float32 sums in another order, and halves round more.
_TOLERANCE = {torch.float32: 2e-3, torch.bfloat16: 0.35, torch.float16: 0.1}
# Of what one rounding of its embeddings does to a base: it rounds in every layer, and ours adds a product of factors.
_OF_ROUNDING = 3.0


class Resident(Protocol):
    """A base in memory."""

    @property
    def name(self) -> str: ...
    @property
    def model(self) -> PreTrainedModel: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def max_length(self) -> int: ...
    @property
    def config(self) -> PreTrainedConfig: ...


@dataclass(frozen=True)
class Bare:
    """A base that has no basis yet."""

    name: str
    model: PreTrainedModel
    device: torch.device
    max_length: int

    @property
    def config(self) -> PreTrainedConfig:
        config: PreTrainedConfig = self.model.config.get_text_config()
        return config


class Loaded(Resident, Protocol):
    """What is checked of an `osora_core.runtime.Runtime`, which has itself checked when it is loaded."""

    @property
    def basis(self) -> Basis: ...
    def hidden_states(self, input_ids: Tensor, **kwargs: Any) -> Tensor: ...
    def logits(self, hidden: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Verdict:
    """How far ours is from eager transformers at the worst of `positions`: `worst` nats at `position`, of which
    `tolerance` are allowed. `path`: which of our paths."""

    path: str
    worst: float
    position: int
    positions: int
    tolerance: float

    @property
    def holds(self) -> bool:
        return self.worst <= self.tolerance  # what is not a number does not


def check_attention(base: Resident) -> Verdict:
    """Compare a base's own forward with our attention in it: what can be refused before its basis is computed, which
    takes far longer. Raises UnsupportedBase where it differs, or cannot run."""
    with refusing(base.name, base.config, "attention"), short_windows(base.model), torch.inference_mode():
        text, _ = random_texts(base)
        expected = eager(base, text)
        own = base.model(input_ids=text.unsqueeze(0), use_cache=False).logits[0].float().log_softmax(dim=-1)
        return judge(base, "attention", (own - expected).abs().amax(-1))


def check_training(runtime: Loaded) -> Verdict:
    """Compare the training paths of a loaded base: rows that are padded, rows one after another, and through dense
    weights where that supports it. Raises UnsupportedBase where they differ, or cannot run."""
    with refusing(runtime.name, runtime.config, "training"), short_windows(runtime.model), torch.inference_mode():
        # A few tokens first: layers that carry a state take gigabytes for rows of one token, and differ at once.
        _compare_training(runtime, random_texts(runtime, _FEW_TOKENS))
        return _compare_training(runtime, random_texts(runtime))


def _compare_training(runtime: Loaded, texts: Sequence[Tensor]) -> Verdict:
    lengths = [len(text) for text in texts]
    expected = torch.cat([eager(runtime, text) for text in texts])
    padded = nn.utils.rnn.pad_sequence([*texts], batch_first=True)
    rows = runtime.hidden_states(padded)
    hidden = torch.cat([row[:length] for row, length in zip(rows, lengths, strict=True)])
    places = torch.cat([torch.arange(length, device=runtime.device) for length in lengths])
    flat = runtime.hidden_states(
        torch.cat([*texts]).unsqueeze(1), position_ids=places.unsqueeze(1), lengths=lengths
    ).squeeze(1)
    paths = [hidden, flat]
    if MergedDecoder.supports(runtime.model, runtime.basis):
        decoder = MergedDecoder(runtime.model, runtime.basis)
        paths.append(decoder.hidden_states(torch.cat([*texts]), places, lengths))
    found = [runtime.logits(states).float().log_softmax(dim=-1) for states in paths]
    return judge(runtime, "training", torch.stack([(own - expected).abs().amax(-1) for own in found]).amax(0))


def remembered(runtime: Loaded, directory: Path, path: str, check: Callable[[], Verdict]) -> Verdict:
    """The verdict of `check()` on one of our paths, kept in `directory`.

    It is asked again where weights, transformers, torch, device or dtype are others, and where it has refused: a
    refusal must not outlive what it was for. Of processes that start together one asks, and the others wait for it.
    Raises what `check` raises.
    """
    device = runtime.device.type + (torch.cuda.get_device_name(runtime.device) if runtime.device.type == "cuda" else "")
    versions = [RULES, transformers.__version__, torch.__version__]
    identity = [runtime.basis.base_fingerprint, str(runtime.model.dtype), device, path, *versions]
    name = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]
    file = directory / "checks" / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{file}.lock"):
        if file.exists():
            return Verdict(**json.loads(file.read_text()))
        verdict = check()
        temporary = file.with_suffix(".tmp")
        temporary.write_text(json.dumps(asdict(verdict)))
        temporary.replace(file)
        return verdict


@contextmanager
def refusing(name: str, config: Any, path: str, others: tuple[type[Exception], ...] = (UserError,)) -> Iterator[None]:
    """What goes wrong inside, other than `others` and memory that runs out, is the base's: raised as UnsupportedBase,
    in one sentence."""
    try:
        yield
    except others:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        lines = str(error).strip().splitlines() or [""]
        raise UnsupportedBase(
            f"the base {name!r} cannot be used: {path} of its family {config.model_type!r} fails with "
            f"{type(error).__name__}: {lines[0][:200]}",
            param="model",
            next_action=NEXT,
        ) from error


NEXT = "use a base of another family; docs/models.md lists what is known to work"


@contextmanager
def short_windows(model: nn.Module, window: int = WINDOW) -> Iterator[None]:
    """Let sliding windows reach no further than `window` for a while, in the modules and in the configurations that
    transformers makes its masks from."""
    owners: dict[int, Any] = {}
    for module in model.modules():
        for owner in (module, getattr(module, "config", None)):
            length = getattr(owner, "sliding_window", None) if owner is not None else None
            if isinstance(length, int) and length > window:
                owners[id(owner)] = owner
    before = [(owner, owner.sliding_window) for owner in owners.values()]
    try:
        for owner, _ in before:
            owner.sliding_window = window
        yield
    finally:
        for owner, length in before:
            owner.sliding_window = length


def random_texts(runtime: Resident, at_most: int = TEXT_TOKENS) -> list[Tensor]:
    """Two texts [T] of different lengths, always the same ones."""
    longest = min(TEXT_TOKENS, runtime.max_length, at_most)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(int(runtime.config.vocab_size), (2, longest), generator=generator)
    return [tokens[0].to(runtime.device), tokens[1, : longest // 2].to(runtime.device)]


def rounding(base: Resident) -> float:
    """How far a base's log-probabilities move, in nats at the worst, where only its embeddings are rounded otherwise. A
    trained base may carry values so large that this makes most of a nat in some unlikely token."""
    text, _ = random_texts(base)
    generator = torch.Generator().manual_seed(0)
    ulp = torch.finfo(base.model.dtype).eps

    def rounded(_: nn.Module, __: Any, embedded: Tensor) -> Tensor:
        moved = torch.randn(embedded.shape, generator=generator).mul_(ulp / 2).to(embedded.device)
        return (embedded * (1 + moved)).to(embedded.dtype)

    plain = eager(base, text)
    hook = base.model.get_input_embeddings().register_forward_hook(rounded)
    try:
        return (eager(base, text) - plain).abs().max().item()
    finally:
        hook.remove()


def eager(runtime: Resident, text: Tensor) -> Tensor:
    """Log-probabilities [T, V] after each token of text [T], as transformers computes them."""
    model = runtime.model
    model.set_attn_implementation("eager")
    try:
        with torch.inference_mode():
            logits: Tensor = model(input_ids=text.unsqueeze(0), use_cache=False).logits[0]
    finally:
        model.set_attn_implementation(attention.NAME)
    return logits.float().log_softmax(dim=-1)


def judge(runtime: Resident, path: str, differences: Tensor) -> Verdict:
    """The verdict over differences [positions]. In half precision a base that is off by more than every base may be is
    allowed what follows from its own rounding. Raises UnsupportedBase if the verdict does not hold."""
    finite = differences.nan_to_num(torch.inf)
    position = int(finite.argmax())
    worst, tolerance = float(finite[position]), _TOLERANCE[runtime.model.dtype]
    if worst > tolerance and runtime.model.dtype != torch.float32:
        own = _OF_ROUNDING * rounding(runtime)
        tolerance = max(tolerance, own) if math.isfinite(own) else tolerance
    verdict = Verdict(path, worst, position, len(differences), tolerance)
    if not verdict.holds:
        raise UnsupportedBase(
            f"the base {runtime.name!r} cannot be used: in {path}, its family {runtime.model.config.model_type!r} "
            f"comes out otherwise than in transformers, by {verdict.worst:.3g} nats at position {position} of "
            f"{len(differences)}, where {verdict.tolerance:g} are allowed{_missing(runtime)}",
            param="model",
            next_action=NEXT,
        )
    return verdict


def _missing(runtime: Resident) -> str:
    """What would be needed, as far as the model's modules tell."""
    names = {type(module).__name__.lower() for module in runtime.model.modules()}
    known: Sequence[tuple[str, str]] = (
        ("mamba", "the state of its Mamba layers"),
        ("rwkv", "the state of its RWKV layers"),
        ("xlstm", "the state of its xLSTM layers"),
        ("recurrent", "the state of its recurrent layers"),
        ("deltanet", "the state of its linear attention"),
        ("shortconv", "the state of its convolutions"),
        ("alibi", "its position biases"),
        ("diffattention", "its differential attention"),
    )
    needed = [what for part, what in known if any(part in name for name in names)]
    return f"; what would be needed is {' and '.join(needed)}" if needed else ""
