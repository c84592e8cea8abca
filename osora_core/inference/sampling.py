"""The next token of each row from its logits. Shapes: B rows, V tokens in the vocabulary."""

from collections.abc import Sequence
from random import Random

import torch
from torch import Tensor

from osora_core.errors import CorruptArtifact, OsoraCoreError
from osora_core.inference.request import Request, SamplingParams, TokenScore

# Divided by more, logits become equal in float32, and there would be no likeliest to keep.
_HOTTEST = 1e30


class Sampler:
    """What one request's choices depend on beside its logits: parameters, tokens so far, random numbers, grammar."""

    def __init__(self, request: Request, vocabulary: int, device: torch.device) -> None:
        params = request.params
        self.params = params
        self.random = None if params.is_greedy else Random(params.seed)
        self.matcher = request.grammar.start() if request.grammar is not None else None
        self._bias: tuple[Tensor, Tensor] | None = None
        if params.logit_bias:
            ids, values = zip(*params.logit_bias.items(), strict=True)
            self._bias = torch.tensor(ids, device=device), torch.tensor(values, device=device)
        self._counts: Tensor | None = None
        if params.repetition_penalty != 1 or params.presence_penalty or params.frequency_penalty:
            self._counts = torch.zeros(vocabulary, device=device)
            self._in_prompt = torch.zeros(vocabulary, dtype=torch.bool, device=device)
            self._in_prompt[torch.tensor(request.prompt, device=device)] = True

    @property
    def adjusts(self) -> bool:
        """Whether `adjust` does anything."""
        return self._counts is not None or self._bias is not None or self.matcher is not None

    def adjust(self, logits: Tensor) -> None:
        """Apply penalties, bias and grammar to logits [V], in place. Raises UserError if the grammar gives up."""
        params = self.params
        if self._counts is not None:
            if params.repetition_penalty != 1:
                seen = self._in_prompt | (self._counts > 0)
                penalised = torch.where(
                    logits > 0, logits / params.repetition_penalty, logits * params.repetition_penalty
                )
                logits.copy_(torch.where(seen, penalised, logits))
            logits -= params.frequency_penalty * self._counts + params.presence_penalty * (self._counts > 0)
        if self._bias is not None:
            logits[self._bias[0]] += self._bias[1]
        if self.matcher is not None:
            allowed = self.matcher.allowed().to(logits.device)
            logits.masked_fill_(~allowed[: logits.shape[0]], -torch.inf)

    @property
    def is_late(self) -> bool:
        """Whether what may come next takes long to find, and is not found yet."""
        return self.matcher is not None and self.matcher.is_late

    @property
    def is_complete(self) -> bool:
        """Whether the grammar allows nothing more."""
        return self.matcher is not None and self.matcher.complete

    def accept(self, token: int) -> None:
        """Note the token that was chosen. Raises UserError if the grammar gives up."""
        if self._counts is not None:
            self._counts[token] += 1
        if self.matcher is not None:
            self.matcher.accept(token)


def sample(logits: Tensor, samplers: Sequence[Sampler]) -> list[int | OsoraCoreError]:
    """A token id a row of logits [B, V], or why the row has none. A row's choice depends on nothing but itself.

    The device is waited for once, at the end.
    """
    best, chosen = logits.max(dim=-1)
    special = [i for i, s in enumerate(samplers) if s.adjusts or s.random is not None]
    failures: dict[int, OsoraCoreError] = {}
    if special:
        rows = send(special, logits.device)
        tokens = _choose(logits[rows].float(), [samplers[i] for i in special], special, failures)
        chosen = chosen.index_copy(0, rows, tokens)
    # Not finite: an adapter gone astray.
    found: list[int] = torch.where(best.isfinite(), chosen, -1).tolist()
    results: list[int | OsoraCoreError] = [*found]
    for row, token in enumerate(found):
        if token == -1:
            results[row] = CorruptArtifact(
                "the model's output is not a number",
                next_action="train the adapter again with a lower learning rate, or call it with a lower strength",
            )
        elif row in failures:
            results[row] = failures[row]
    return results


def _choose(
    logits: Tensor, samplers: Sequence[Sampler], rows: Sequence[int], failures: dict[int, OsoraCoreError]
) -> Tensor:
    """Tokens [b] of logits [b, V], which are overwritten. `failures` takes, by `rows`, why one has none."""
    for index, sampler in enumerate(samplers):
        if sampler.adjusts:
            try:
                sampler.adjust(logits[index])
            except OsoraCoreError as error:
                failures[rows[index]] = error
    tokens = logits.argmax(dim=-1)
    drawn = [i for i, s in enumerate(samplers) if s.random is not None and rows[i] not in failures]
    # Two groups, because a row must not be sorted or not for the sake of another: sums would be rounded otherwise.
    for group in (
        [i for i in drawn if _sorts(samplers[i].params)],
        [i for i in drawn if not _sorts(samplers[i].params)],
    ):
        if group:
            members = [samplers[i] for i in group]
            places = send(group, logits.device)
            tokens[places] = _draw(distribution(logits[places], [m.params for m in members]), members)
    return tokens


def send(values: Sequence[float], device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """Numbers [n] on the device, without waiting for what it is busy with."""
    tensor = torch.tensor(values, dtype=dtype)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def _sorts(params: SamplingParams) -> bool:
    return params.top_k > 0 or params.top_p < 1


def distribution(logits: Tensor, params: Sequence[SamplingParams]) -> Tensor:
    """Probabilities [b, V] that tokens are drawn from: temperature first, then top-k, top-p and min-p on what each
    leaves (the order of Hugging Face's warpers). All rows have a temperature."""

    def column(values: list[float]) -> Tensor:
        return send(values, logits.device).unsqueeze(1)

    logits = logits / column([min(p.temperature, _HOTTEST) for p in params])
    if any(map(_sorts, params)):
        values, order = logits.sort(dim=-1, descending=True)
        size = logits.shape[1]
        last = column([(p.top_k if 0 < p.top_k < size else size) - 1 for p in params]).long()
        values = values.masked_fill(values < values.gather(1, last), -torch.inf)
        probabilities = values.softmax(dim=-1)
        # A token stays if the mass before it is below top_p: the first one always does.
        before = probabilities.cumsum(dim=-1) - probabilities
        top_p = column([p.top_p for p in params])
        values = values.masked_fill((before >= top_p) & (top_p < 1), -torch.inf)
        logits = torch.empty_like(logits).scatter_(1, order, values)
    probabilities = logits.softmax(dim=-1)
    floor = column([p.min_p for p in params]) * probabilities.amax(dim=-1, keepdim=True)
    return probabilities.masked_fill(probabilities < floor, 0)


def _draw(probabilities: Tensor, samplers: Sequence[Sampler]) -> Tensor:
    """A token a row [b] by inversion of the cumulative sum at the request's own next random number."""
    numbers = [s.random.random() for s in samplers if s.random is not None]
    cumulative = probabilities.double().cumsum(dim=-1)
    points = send(numbers, cumulative.device, torch.float64).unsqueeze(1) * cumulative[:, -1:]
    # A sum that is not a number is found behind the last token; the caller knows such rows.
    return torch.searchsorted(cumulative, points, right=True).squeeze(1).clamp_(max=probabilities.shape[1] - 1)


def score(logits: Tensor, tokens: Sequence[int], top: Sequence[int]) -> list[TokenScore]:
    """The log-probability of one token a row under logits [B, V], with the `top[i]` likeliest ones beside it."""
    logprobs = logits.float().log_softmax(dim=-1)
    own: list[float] = logprobs.gather(1, torch.tensor(tokens, device=logits.device).unsqueeze(1)).squeeze(1).tolist()
    values, ids = logprobs.topk(min(max(top), logprobs.shape[1]), dim=-1)
    pairs = zip(ids.tolist(), values.tolist(), strict=True)
    best = [tuple(zip(i[:n], v[:n], strict=True)) for n, (i, v) in zip(top, pairs, strict=True)]
    return [TokenScore(*entry) for entry in zip(tokens, own, best, strict=True)]
