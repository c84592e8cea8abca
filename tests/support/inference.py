"""Requests to an inference engine, and what comes of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from osora_core.bank import Bank
from osora_core.data import Renderer
from osora_core.inference import AdapterRow, InferenceEngine, LoraRow, Output, Request, TokenScore
from osora_core.inference.banks import Banks
from osora_core.inference.lora_bank import LoraBank
from osora_core.inference.mix_bank import MixBank
from osora_core.mix import mix_length
from osora_core.runtime import Runtime


@dataclass
class Result:
    """Everything that a request came to."""

    text: str = ""
    tokens: int = 0
    reason: str | None = None
    scores: list[TokenScore] = field(default_factory=list)
    error: Exception | None = None

    def take(self, output: Output) -> None:
        assert self.reason is None, "an output after the last one"
        self.text += output.text
        self.tokens, self.reason, self.error = output.completion_tokens, output.finish_reason, output.error
        self.scores += output.scores


def run(engine: InferenceEngine, requests: Sequence[Request]) -> dict[str, Result]:
    """The results by request."""
    results = {request.id: Result() for request in requests}
    for request in requests:
        engine.add(request)
    while engine.busy:
        for output in engine.step():
            results[output.request_id].take(output)
    return results


def solo(runtime: Runtime, request: Request) -> Result:
    """The result of a request that has an engine for itself."""
    return run(InferenceEngine(runtime, rows=1, adapters=1), [request])[request.id]


def agree(one: Result, other: Result, *, noise: float) -> None:
    """The same tokens and log-probabilities but for `noise` in nats, up to where two tokens are as likely."""
    assert one.error is None
    assert other.error is None
    for a, b in zip(one.scores, other.scores, strict=False):
        assert (a.logprob is None) == (b.logprob is None)
        assert abs((a.logprob or 0.0) - (b.logprob or 0.0)) <= noise
        if a.token != b.token:
            return
    assert (one.text, one.tokens, one.reason) == (other.text, other.tokens, other.reason)


def prompt(runtime: Runtime, index: int) -> tuple[int, ...]:
    """One of many short conversations, of different lengths."""
    renderer = Renderer(runtime.tokenizer, runtime.max_length)
    return tuple(renderer.prompt([{"role": "user", "content": f"help {index} " * (1 + index % 4)}]))


def random_lora(runtime: Runtime, name: str, rank: int) -> LoraRow:
    """A LoRA of every other linear, strong enough to change what is said."""
    generator = torch.Generator().manual_seed(rank)
    factors = {
        index: (torch.randn(rank, one.Vt.shape[1], generator=generator) * 0.2,
                torch.randn(one.U.shape[0], rank, generator=generator) * 0.2)
        for index, one in enumerate(runtime.basis.factors.values()) if index % 2
    }  # fmt: skip
    return LoraRow(name, factors, rank)


def make_banks(adapters: Bank, *, mixes: int = 0, largest_mix: int = 0) -> Banks:
    """The banks of an engine whose adapters these are."""
    basis, device, dtype = adapters.basis, adapters.values.device, adapters.values.dtype
    mix_bank = MixBank(basis, mixes, largest_mix, device=device, dtype=dtype)
    return Banks(adapters, LoraBank(basis, 1, device=device, dtype=dtype), mix_bank)


def mixed_adapter(runtime: Runtime, name: str, seed: int, mix: int) -> AdapterRow:
    """The vectors of `adapter`, with a random mix that changes what is said as well."""
    plain, length = adapter(runtime, name, seed), mix_length(runtime.basis.spans, mix)
    values = torch.randn(length, generator=torch.Generator().manual_seed(100 + seed)) * 0.3
    return replace(plain, values=torch.cat((plain.values, values)), mix=mix)


def adapter(runtime: Runtime, name: str, seed: int) -> AdapterRow:
    """Random vectors, strong enough to change what is said."""
    values = torch.randn(runtime.basis.row_length, generator=torch.Generator().manual_seed(seed)) * 0.2
    return AdapterRow(name, values, rank=runtime.basis.rank)
