"""What the serving benchmark asks, how it asks, and the check of every answer."""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from benchmarks.training import make_base, make_random_basis
from osora_core.basis import BasisCache
from osora_core.inference import AdapterRow, InferenceEngine, Output, Request, SamplingParams
from osora_core.mix import mix_length
from osora_core.runtime import Runtime, install, set_threads

# The name of a base that is made up, for a GPU.
RANDOM = "random-8b"
# Different contents; more adapters than these are further names for the same ones.
CONTENTS = 64
SHORTEST_PROMPT, LONGEST_PROMPT = 8, 48
SHORTEST_ANSWER, LONGEST_ANSWER = 4, 48
# How much less likely than the likeliest token, in nats, a token may be that was chosen in bfloat16: a step of
# bfloat16 is 0.03 at the logits of a random base, and a token of another adapter lies several nats below.
NOISE = 0.5


def load_runtime(base: str, device: str, cache: Path, threads: int | None) -> Runtime:
    """A base whose answers end where they are told to: without end-of-text tokens, lengths are known beforehand."""
    set_threads(1)
    runtime = Runtime.load(base, BasisCache(cache), device=device)
    set_threads(threads)
    return replace(runtime, eos_ids=frozenset())


def random_runtime(layers: int, rank: int) -> Runtime:
    """A random Llama-8B-shaped base on the GPU, with a random basis; token i is the word "i"."""
    model = make_base("cuda", layers).eval().requires_grad_(False)
    basis = make_random_basis(model, rank)
    install(model, basis)
    words = Tokenizer(models.WordLevel({str(i): i for i in range(model.config.vocab_size)}, unk_token="0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words)
    return Runtime(RANDOM, model, tokenizer, basis, model.device, 4096, frozenset())


def make_values(runtime: Runtime, content: int, rank: int, mix: int = 0) -> torch.Tensor:
    """A random bank row [P] of a rank, [P + M] with a mix of this size, strong enough to change what is said."""
    # A random basis holds little of a random base, so an adapter has to change more of it.
    strength = 0.02 if runtime.basis.base_fingerprint != "random" else 0.5
    length = runtime.basis.row_length + (mix_length(runtime.basis.spans, mix) if mix else 0)
    values = torch.randn(length, generator=torch.Generator().manual_seed(content)) * strength
    if rank < runtime.basis.rank:
        for span in runtime.basis.spans:
            values[span.sigma][rank:] = 0
    return values.to(runtime.basis.dtype)


@dataclass(frozen=True)
class Question:
    """One prompt and the length of its answer: uneven, and the same for the same number."""

    prompt: tuple[int, ...]
    max_tokens: int

    @classmethod
    def of(cls, runtime: Runtime, number: int) -> "Question":
        random = Random(number)
        length = random.randint(SHORTEST_PROMPT, LONGEST_PROMPT)
        prompt = tuple(random.randrange(10, runtime.model.config.vocab_size) for _ in range(length))
        return cls(prompt, random.randint(SHORTEST_ANSWER, LONGEST_ANSWER))

    def request(self, name: str, adapter: AdapterRow | None) -> Request:
        return Request(name, self.prompt, SamplingParams(max_tokens=self.max_tokens), adapter)


@dataclass
class Measured:
    """What serving some requests took. Times in seconds."""

    seconds: float = 0.0
    tokens: int = 0
    first_token: list[float] = field(default_factory=list)
    between_tokens: list[float] = field(default_factory=list)
    answers: dict[str, tuple[str, int]] = field(default_factory=dict)

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds

    def columns(self) -> dict[str, Any]:
        """tokens/s, and the percentiles in milliseconds."""
        found: dict[str, Any] = {"tokens_per_second": self.tokens_per_second}
        for name, values in (("ttft", self.first_token), ("itl", self.between_tokens)):
            for percent in (50, 95, 99):
                found[f"{name}_p{percent}_ms"] = 1000 * percentile(values, percent)
        return found


def percentile(values: Iterable[float], percent: float) -> float:
    """The nearest-rank percentile; NaN of nothing."""
    ordered = sorted(values)
    if not ordered:
        return float("nan")
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


class Clock:
    """Fills a Measured from what an engine puts out; each request counts from `begin`."""

    def __init__(self) -> None:
        self.measured = Measured()
        self._texts: dict[str, str] = {}
        self._last: dict[str, float] = {}
        self._start = time.perf_counter()

    def begin(self, name: str) -> None:
        self._texts[name] = ""
        self._last[name] = time.perf_counter()

    @property
    def open(self) -> int:
        """Requests that have begun and not ended."""
        return len(self._last)

    def take(self, outputs: Sequence[Output]) -> None:
        """Note the outputs of a step that has just ended."""
        measured, now = self.measured, time.perf_counter()
        for output in outputs:
            if output.error is not None:
                raise output.error
            name = output.request_id
            self._texts[name] += output.text
            measured.tokens += 1
            into = measured.first_token if output.completion_tokens == 1 else measured.between_tokens
            into.append(now - self._last[name])
            self._last[name] = now
            if output.finish_reason is not None:
                measured.answers[name] = (self._texts[name], output.completion_tokens)
                del self._last[name]
        measured.seconds = now - self._start


def serve(engine: InferenceEngine, requests: Sequence[Request], concurrency: int) -> Measured:
    """Keep `concurrency` requests in the engine until all are answered."""
    waiting, clock = deque(requests), Clock()
    while waiting or engine.busy:
        while waiting and clock.open < concurrency:
            clock.begin(waiting[0].id)
            engine.add(waiting.popleft())
        clock.take(engine.step())
    return clock.measured


def decode_rate(engine: InferenceEngine, requests: Sequence[Request], steps: int) -> float:
    """Tokens/s of steps in which every request decodes and nothing else happens."""
    for request in requests:
        engine.add(replace(request, params=replace(request.params, max_tokens=10**6)))
    while len(engine.step()) < len(requests):
        pass
    start = time.perf_counter()
    tokens = sum(len(engine.step()) for _ in range(steps))
    seconds = time.perf_counter() - start
    for request in requests:
        engine.cancel(request.id)
    return tokens / seconds


class Checker:
    """Compares answers of mixed batches with what the same questions get alone.

    In float32 the answers must be the same. In bfloat16 two tokens may be as likely as each other, and which is chosen
    depends on how a product was split up; there, the question with its answer is read alone, and every token of the
    answer must be the likeliest at its place but for NOISE. `gap` is the largest that was seen.
    """

    def __init__(self, runtime: Runtime, rank: int) -> None:
        self._engine = InferenceEngine(runtime, rows=1, adapters=1, max_length=2 * (LONGEST_PROMPT + LONGEST_ANSWER))
        self._runtime = runtime
        self._rank = rank
        self._exact = runtime.model.dtype == torch.float32
        self._alone: dict[tuple[int | None, int], tuple[str, int]] = {}
        self._gaps: dict[tuple[int | None, int, str], float] = {}
        self.compared = 0
        self.wrong = 0
        self.gap = 0.0

    def check(self, answers: Iterator[tuple[int | None, int, tuple[str, int]]]) -> None:
        """(content of the adapter or None, number of the question, the answer) of each."""
        for content, number, answer in answers:
            self.compared += 1
            if self._exact:
                self.wrong += answer != self._solo(content, number)
            else:
                gap = self._gap(content, number, answer[0])
                self.wrong += not gap <= NOISE
                self.gap = max(self.gap, gap)

    def _solo(self, content: int | None, number: int) -> tuple[str, int]:
        key = content, number
        if key not in self._alone:
            request = Question.of(self._runtime, number).request("alone", self._row(content))
            self._alone[key] = serve(self._engine, [request], 1).answers["alone"]
        return self._alone[key]

    def _gap(self, content: int | None, number: int, text: str) -> float:
        """How much less likely than the likeliest the least likely token of an answer is, in nats."""
        key = content, number, text
        if key not in self._gaps:
            prompt = Question.of(self._runtime, number).prompt
            answer = self._runtime.tokenizer.encode(text, add_special_tokens=False)
            params = SamplingParams(max_tokens=1, logprobs=True, top_logprobs=1, prompt_logprobs=True)
            self._engine.add(Request("alone", (*prompt, *answer), params, self._row(content)))
            scores = [score for output in self._engine.step() for score in output.scores]
            own = scores[len(prompt) : len(prompt) + len(answer)]
            assert len(own) == len(answer)
            self._gaps[key] = max(score.top[0][1] - (score.logprob or 0.0) for score in own)
        return self._gaps[key]

    def _row(self, content: int | None) -> AdapterRow | None:
        if content is None:
            return None
        return AdapterRow(f"alone-{content}", make_values(self._runtime, content, self._rank), self._rank)
