"""The canary: what an adapter answered when it was published, asked again wherever it is loaded.

Hashes say that base, basis and vectors are the right bytes. The canary says that this machine, with its kernels and
libraries, makes of them what the trainer did. It holds the log-probabilities of the likeliest tokens after every
position of a fixed prompt. Their root mean square difference is robust: kernels differ in the last bits everywhere,
a wrong weight by whole nats in many places.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from osora_core.adapter import Adapter
from osora_core.bank import Bank
from osora_core.data import Renderer
from osora_core.errors import CorruptArtifact, IdentityMismatch
from osora_core.linear import use_slots
from osora_core.runtime import Runtime

PROMPT = "My order has not arrived yet. What can I do?"
# Few, as a cold adapter's first request waits for them.
_TOKENS = 16
_LIKELIEST = 4
# Root mean square differences, in nats, that other kernels and libraries may cause.
TOLERANCE = {torch.float32: 0.01, torch.bfloat16: 0.25, torch.float16: 0.05}


class CanaryMismatch(IdentityMismatch):
    """An adapter does not answer here what it answered when it was published."""

    code = "canary_mismatch"


def compute(runtime: Runtime, adapter: Adapter) -> dict[str, Any]:
    """The canary of an adapter on the runtime it was trained on; plain numbers, to be stored with it."""
    tokens = prompt_tokens(runtime)
    values, ids = _log_probs(runtime, adapter, tokens).topk(_LIKELIEST, dim=-1)
    return {
        "tokens": tokens,
        "ids": ids.tolist(),
        "log_probs": [[round(value, 5) for value in row] for row in values.tolist()],
        "tolerance": TOLERANCE[runtime.model.dtype],
    }


@dataclass(frozen=True)
class Canary:
    """What was published: log_probs [T, k] of the token ids [T, k] after each of T tokens, and how far off they may be,
    in nats."""

    tokens: list[int]
    ids: Tensor
    log_probs: Tensor
    tolerance: float

    def judge(self, computed: Tensor) -> None:
        """Raise CanaryMismatch, naming the tolerance and both values, if `computed` [T, k] is too far off."""
        differences = computed - self.log_probs
        distance = differences.square().mean().sqrt().item()
        # Written so that a NaN is a mismatch too.
        if not distance <= self.tolerance:
            position, place = divmod(int(differences.abs().nan_to_num(torch.inf).argmax()), self.ids.shape[1])
            raise CanaryMismatch(
                f"the adapter answers {distance:.4g} nats (root mean square) away from what it did when published, the "
                f"tolerance is {self.tolerance:.4g}: token {int(self.ids[position, place])} after position {position} "
                f"had a log-probability of {self.log_probs[position, place]:.4f}, here {computed[position, place]:.4f}",
                next_action="compare the versions of torch and transformers here with those of the trainer",
            )


def check(runtime: Runtime, adapter: Adapter) -> None:
    """Ask an adapter its canary again, here and now; one that was published without is not checked.

    Raises CanaryMismatch if the answers differ by more than it allows, and CorruptArtifact if it cannot be read.
    """
    published = read(runtime, adapter)
    if published is not None:
        published.judge(_log_probs(runtime, adapter, published.tokens).gather(1, published.ids))


def read(runtime: Runtime, adapter: Adapter) -> Canary | None:
    """The canary that an adapter was published with. Raises CorruptArtifact if it is not one of this base."""
    if adapter.canary is None:
        return None
    try:
        tokens = [int(token) for token in adapter.canary["tokens"]]
        ids = torch.tensor(adapter.canary["ids"], dtype=torch.long)
        values = torch.tensor(adapter.canary["log_probs"], dtype=torch.float32)
        # The coarser of the two dtypes: the trainer's may be another than the server's.
        tolerance = max(float(adapter.canary["tolerance"]), TOLERANCE[runtime.model.dtype])
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptArtifact(f"the adapter's canary cannot be read: {error}") from error
    vocabulary = int(runtime.config.vocab_size)
    known = tokens and min(min(tokens), int(ids.min())) >= 0 and max(max(tokens), int(ids.max())) < vocabulary
    if not known or ids.shape != values.shape or ids.shape[0] != len(tokens):
        raise CorruptArtifact("the adapter's canary is not one of this base")
    return Canary(tokens, ids, values, tolerance)


def prompt_tokens(runtime: Runtime) -> list[int]:
    """The fixed prompt, as the assistant sees it where the base has a chat template."""
    renderer = Renderer(runtime.tokenizer, runtime.max_length)
    if runtime.tokenizer.chat_template is None:
        return renderer.encode(PROMPT)[:_TOKENS]
    return renderer.prompt([{"role": "user", "content": PROMPT}])[-_TOKENS:]


def _log_probs(runtime: Runtime, adapter: Adapter, tokens: list[int]) -> Tensor:
    """Log-probabilities [T, vocabulary] after each of `tokens`, float32 on the CPU."""
    bank = Bank(runtime.basis, 1, device=runtime.device)
    slot = bank.acquire()
    bank.write(slot, adapter.to_row(runtime.basis), adapter.rank, adapter.mix_size)
    with torch.inference_mode(), use_slots(bank, torch.tensor([slot], device=runtime.device)):
        hidden = runtime.hidden_states(torch.tensor([tokens], device=runtime.device))
        return runtime.logits(hidden)[0].float().log_softmax(dim=-1).cpu()
