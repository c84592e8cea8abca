"""The next token of each row from its logits."""

from collections.abc import Sequence

import torch
from torch import Tensor

from osora_core.inference.request import SamplingParams


def make_generator(params: SamplingParams) -> torch.Generator | None:
    """A request's own random state; None if it samples nothing."""
    if params.temperature == 0:
        return None
    generator = torch.Generator()
    if params.seed is None:
        generator.seed()
    else:
        generator.manual_seed(params.seed)
    return generator


def sample(logits: Tensor, params: Sequence[SamplingParams], generators: Sequence[torch.Generator | None]) -> list[int]:
    """One token id a row of logits [B, vocabulary]. A row's choice depends on its own logits, params and generator."""
    chosen: list[int] = logits.argmax(dim=-1).tolist()
    for row, (param, generator) in enumerate(zip(params, generators, strict=True)):
        if generator is not None:
            chosen[row] = _draw(logits[row].float().cpu(), param, generator)
    return chosen


def _draw(logits: Tensor, params: SamplingParams, generator: torch.Generator) -> int:
    """Temperature first, then top-k, top-p and min-p on what is left (the order of Hugging Face's warpers)."""
    logits = logits / params.temperature
    if 0 < params.top_k < logits.shape[0]:
        logits[logits < logits.topk(params.top_k).values[-1]] = -torch.inf
    if params.top_p < 1:
        values, order = logits.sort(descending=True)
        probabilities = values.softmax(dim=0)
        # A token stays if the mass before it is below top_p: the first one always does.
        logits[order[probabilities.cumsum(dim=0) - probabilities >= params.top_p]] = -torch.inf
    probabilities = logits.softmax(dim=0)
    if params.min_p > 0:
        probabilities[probabilities < params.min_p * probabilities.max()] = 0
    return int(torch.multinomial(probabilities, 1, generator=generator).item())
