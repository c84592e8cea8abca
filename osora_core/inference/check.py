"""Whether an engine, with its cache, chunks and decode steps, answers as transformers does: see
`osora_core.base_check`."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from osora_core.attention import shortest_window
from osora_core.base_check import Verdict, eager, judge, random_texts, refusing, remembered, short_windows
from osora_core.inference.engine import InferenceEngine
from osora_core.inference.request import Request, SamplingParams, TokenScore
from osora_core.runtime import Runtime

_CHUNK = 17
_DECODED = 6
_LIKELIEST = 5


def check_generation(engine: InferenceEngine) -> Verdict:
    """Compare an idle engine that nobody else uses yet. Raises UnsupportedBase where it differs, or cannot run."""
    runtime, chunk = engine.runtime, engine.prefill_tokens
    # An engine whose texts are all shorter than the window has no use for it.
    window = shortest_window(runtime.config)
    slides = window is not None and window < engine.max_length
    windows = short_windows(runtime.model) if slides else nullcontext()
    with refusing(runtime.name, runtime.config, "generation"), windows:
        engine.prefill_tokens = _CHUNK
        try:
            answers = _answers(engine)
        finally:
            engine.prefill_tokens = chunk
        return judge(runtime, "generation", torch.cat([_differences(engine, scores) for scores in answers]))


def checked_engine(runtime: Runtime, directory: Path, **options: Any) -> tuple[InferenceEngine, Verdict]:
    """A warm engine with these options, and the verdict on it, which is remembered in `directory`.

    Raises UnsupportedBase where the base cannot be served, or not as it should be, and MemoryTooSmall.
    """
    with refusing(runtime.name, runtime.config, "generation"):
        engine = InferenceEngine(runtime, **options)
        engine.warm_up()
    path = f"generation through {engine.execution}"
    return engine, remembered(runtime, directory, path, lambda: check_generation(engine))


def _answers(engine: InferenceEngine) -> list[list[TokenScore]]:
    """The scores of every token of two random prompts and of what follows them."""
    params = SamplingParams(max_tokens=_DECODED, logprobs=True, top_logprobs=_LIKELIEST, prompt_logprobs=True)
    scores: dict[str, list[TokenScore]] = {}
    for index, text in enumerate(random_texts(engine.runtime, engine.max_length)):
        engine.add(Request(str(index), tuple(text[:-_DECODED].tolist()), params))
    while engine.busy:
        for output in engine.step():
            if output.error is not None:
                raise output.error
            scores.setdefault(output.request_id, []).extend(output.scores)
    return list(scores.values())


def _differences(engine: InferenceEngine, scores: list[TokenScore]) -> Tensor:
    """How far the log-probabilities at each place [T] are from those of transformers; the first token has none."""
    device = engine.runtime.device
    expected = eager(engine.runtime, torch.tensor([score.token for score in scores], device=device))
    differences = []
    for place, score in enumerate(scores[1:]):
        ids, found = zip((score.token, score.logprob), *score.top, strict=True)
        there = expected[place, torch.tensor(ids, device=device)].cpu()
        differences.append((there - torch.tensor(found)).abs().max())
    return torch.stack(differences)
