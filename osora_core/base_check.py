"""Whether our attention, cache and passes compute what transformers computes: measured on each base, never assumed.

A long random text goes through the model with transformers' own eager attention, and through ours: the training path
as a padded batch, the inference engine in chunks and with decode steps. Sliding windows are made shorter meanwhile, so
that the text reaches far beyond them whatever they are. A base that comes out otherwise anywhere is refused.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from torch import Tensor, nn

from osora_core import attention
from osora_core.errors import UnsupportedBase

if TYPE_CHECKING:
    from osora_core.inference import InferenceEngine
    from osora_core.runtime import Runtime

# A verdict of other rules than these is not believed.
RULES = 1
TEXT_TOKENS = 72
WINDOW = 20
_CHUNK = 17
_DECODED = 6
_LIKELIEST = 5
# Nats of log-probability. float32 sums in another order; in bfloat16 transformers' own attentions differ by this much.
_TOLERANCE = {torch.float32: 2e-3, torch.bfloat16: 0.35, torch.float16: 0.1}


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


def check_training(runtime: "Runtime") -> Verdict:
    """Compare the training path of a loaded base. Raises UnsupportedBase where it differs, or cannot run."""
    with refusing(runtime.name, runtime.model.config, "training"), short_windows(runtime.model):
        texts = _texts(runtime)
        expected = [_eager(runtime, text) for text in texts]
        longest = max(map(len, texts))
        padded = torch.zeros(len(texts), longest, dtype=torch.long, device=runtime.device)
        for row, text in enumerate(texts):
            padded[row, : len(text)] = text
        with torch.inference_mode():
            actual = runtime.logits(runtime.hidden_states(padded)).float().log_softmax(dim=-1)
        differences = [(actual[row, : len(text)] - expected[row]).abs().amax(-1) for row, text in enumerate(texts)]
        return _judge(runtime, "training", torch.cat(differences))


def check_generation(engine: "InferenceEngine") -> Verdict:
    """Compare an idle engine that nobody else uses yet. Raises UnsupportedBase where it differs, or cannot run."""
    from osora_core.inference import Request, SamplingParams

    runtime, chunk = engine.runtime, engine.prefill_tokens
    with refusing(runtime.name, runtime.model.config, "generation"), short_windows(runtime.model):
        engine.prefill_tokens = _CHUNK
        try:
            scores: dict[str, list[Any]] = {}
            texts = _texts(runtime, at_most=engine.max_length)
            params = SamplingParams(max_tokens=_DECODED, logprobs=True, top_logprobs=_LIKELIEST, prompt_logprobs=True)
            for index, text in enumerate(texts):
                prompt = tuple(text[: len(text) - _DECODED].tolist())
                engine.add(Request(str(index), prompt, params))
            while engine.busy:
                for output in engine.step():
                    if output.error is not None:
                        raise output.error
                    scores.setdefault(output.request_id, []).extend(output.scores)
        finally:
            engine.prefill_tokens = chunk
        differences = []
        for own in scores.values():
            tokens = torch.tensor([score.token for score in own], device=runtime.device)
            expected = _eager(runtime, tokens)
            for place, score in enumerate(own[1:]):
                ids = torch.tensor([score.token, *(token for token, _ in score.top)])
                found = torch.tensor([score.logprob, *(logprob for _, logprob in score.top)])
                differences.append((expected[place, ids.to(runtime.device)].cpu() - found).abs().max())
        return _judge(runtime, "generation", torch.stack(differences))


def remembered(runtime: "Runtime", directory: Path, path: str, check: Any) -> Verdict:
    """The verdict of `check()`, kept in `directory`: asked again where weights, transformers, torch, device or dtype are
    others. Raises what `check` raises, then and later."""
    device = runtime.device.type + (torch.cuda.get_device_name(runtime.device) if runtime.device.type == "cuda" else "")
    identity = [
        RULES, runtime.basis.base_fingerprint, str(runtime.model.dtype), device, transformers.__version__, torch.__version__,
    ]  # fmt: skip
    name = hashlib.sha256(json.dumps([*identity, path]).encode()).hexdigest()[:32]
    file = directory / "checks" / f"{name}.json"
    if file.exists():
        return Verdict(**json.loads(file.read_text()))
    verdict: Verdict = check()
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(".tmp")
    temporary.write_text(json.dumps(asdict(verdict)))
    temporary.replace(file)
    return verdict


@contextmanager
def refusing(name: str, config: Any, path: str) -> Iterator[None]:
    """What goes wrong inside is the base's: raised as UnsupportedBase, in one sentence."""
    try:
        yield
    except (UnsupportedBase, torch.OutOfMemoryError):
        raise
    except Exception as error:
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


def _texts(runtime: "Runtime", at_most: int | None = None) -> list[Tensor]:
    """Two random texts [T] of different lengths, always the same ones."""
    longest = min(TEXT_TOKENS, runtime.max_length, at_most or TEXT_TOKENS)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(int(runtime.config.vocab_size), (2, longest), generator=generator)
    return [tokens[0].to(runtime.device), tokens[1, : max(longest // 2, _DECODED + 2)].to(runtime.device)]


def _eager(runtime: "Runtime", text: Tensor) -> Tensor:
    """Log-probabilities [T, V] after each token of text [T], as transformers computes them."""
    model = runtime.model
    model.set_attn_implementation("eager")
    try:
        with torch.inference_mode():
            logits: Tensor = model(input_ids=text.unsqueeze(0), use_cache=False).logits[0]
    finally:
        model.set_attn_implementation(attention.NAME)
    return logits.float().log_softmax(dim=-1)


def _judge(runtime: "Runtime", path: str, differences: Tensor) -> Verdict:
    """The verdict over differences [positions]. Raises UnsupportedBase if it does not hold."""
    finite = differences.nan_to_num(torch.inf)
    position = int(finite.argmax())
    verdict = Verdict(path, float(finite[position]), position, len(differences), _TOLERANCE[runtime.model.dtype])
    if not verdict.holds:
        raise UnsupportedBase(
            f"the base {runtime.name!r} cannot be used: in {path}, its family {runtime.model.config.model_type!r} "
            f"comes out otherwise than in transformers, by {verdict.worst:.3g} nats at position {position} of "
            f"{len(differences)}, where {verdict.tolerance:g} are allowed{_missing(runtime)}",
            param="model",
            next_action=NEXT,
        )
    return verdict


def _missing(runtime: "Runtime") -> str:
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
