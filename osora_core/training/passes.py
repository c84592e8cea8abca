"""What a training step does with the model: forward, loss and backward of rows that belong to different jobs."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional as F

from osora_core.bank import Bank
from osora_core.data import Example, FlatBatch, PaddedBatch, flatten, pad, split_by_tokens
from osora_core.free_memory import available_bytes
from osora_core.linear import use_slots
from osora_core.merged_decoder import MergedDecoder
from osora_core.operator import runs
from osora_core.runtime import Runtime

TOKEN_BUDGET = {"cpu": 1024, "cuda": 8192}
"""Tokens, padding included, that go through the model at once: more no longer pays, and on a CPU leaves its caches."""

# A mistake is its place in the row times this, plus the token that would have been likelier: the least is the first.
_PLACE = 1 << 32
_NO_MISTAKE = torch.iinfo(torch.int64).max

NOBODY: Mapping[int, int] = MappingProxyType({})

Item = tuple[Example, int]
"""A row, and whose it is: an index into the slots that come with it."""

# On one H200 a pass of 256 tokens through a Llama-8B (218 million weights a layer) takes half as long as one of 4096.
# What is left is launches, which a smaller layer has as many of, up to where its other operations count.
_GPU_PRODUCTS = 2048 * 218_000_000
_GPU_MOST = 32768
_CPU_TOKENS = 128


def pass_tokens(runtime: Runtime) -> int:
    """Tokens that take about as long as it takes to run the model at all: padding up to so many is cheaper than a pass
    of its own."""
    if runtime.device.type == "cpu":
        return _CPU_TOKENS
    layer = runtime.parameters / runtime.config.num_hidden_layers
    return min(_GPU_MOST, int(_GPU_PRODUCTS / layer))


def split_into_passes(
    items: Iterable[Item], slots: Sequence[int], token_budget: int, pass_tokens: int, own: Mapping[int, int]
) -> list[list[Item]]:
    """The passes of a step: groups of rows of similar length within the budget, shared by all slots.

    `pass_tokens`: padding that is as cheap as another pass. A slot in `own` shares none: its rows go by themselves, in
    groups within the budget that is named there.
    """
    shared: list[Item] = []
    apart: dict[int, list[Item]] = defaultdict(list)
    for item in items:
        (apart[slot] if (slot := slots[item[1]]) in own else shared).append(item)
    groups = split_by_tokens(shared, token_budget, pass_tokens)
    for slot, rows in apart.items():
        groups += split_by_tokens(rows, own[slot], pass_tokens)
    return groups


@dataclass(frozen=True)
class Scores:
    """Of each slot's rows, [n] on the CPU: the summed loss in nats and the count of likeliest tokens, both float64; and
    the first counted token that is not the likeliest, which has a meaning where the slot has one row."""

    losses: Tensor
    hits: Tensor
    first_mistakes: Tensor

    def first_mistake(self, index: int) -> tuple[int, int] | None:
        """Where the first token stands that is not the likeliest, and which one would be. None if all are."""
        mistake = int(self.first_mistakes[index])
        return None if mistake == _NO_MISTAKE else divmod(mistake, _PLACE)


class Passes:
    """The model and the bank whose rows are trained; groups of rows stay within `token_budget` tokens."""

    def __init__(self, runtime: Runtime, bank: Bank, token_budget: int | None = None) -> None:
        self.runtime = runtime
        self.bank = bank
        self.token_budget = token_budget or TOKEN_BUDGET[runtime.device.type]
        self.pass_tokens = pass_tokens(runtime)
        merges = runtime.is_whole and MergedDecoder.supports(runtime.model, runtime.basis)
        self.merged = MergedDecoder(runtime.model, runtime.basis) if merges else None

    def available_bytes(self) -> float:
        """Bytes that can still be allocated, on the device that has the fewest."""
        return available_bytes(self.runtime.device)

    def groups(self, items: Sequence[Item], slots: Sequence[int], own: Mapping[int, int] = NOBODY) -> list[list[Item]]:
        """The rows of each run of the model; see `split_into_passes`."""
        return split_into_passes(items, slots, self.token_budget, self.pass_tokens, own)

    def forward(self, group: Sequence[Item], slots: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Of every counted token of a group: its loss (nats), its mistake where it is not the likeliest, and which job
        (index into slots) owns it."""
        device = self.runtime.device
        counts = Counter(slots[owner] for _, owner in group)
        # Slots with equally many rows side by side can share a product.
        group = sorted(group, key=lambda item: (counts[slots[item[1]]], item[1]))
        examples, row_slots = [example for example, _ in group], [slots[owner] for _, owner in group]
        owners = torch.tensor([owner for _, owner in group], device=device)
        # On a CPU every token of padding costs as much as any other; on a GPU equally long rows cost less than it does.
        batch: FlatBatch | PaddedBatch
        if device.type == "cpu":
            batch = flatten(examples, device)
            hidden, places = self._flat_hidden_states(batch, row_slots)[batch.counted], batch.places[batch.counted]
        else:
            batch = pad(examples, device)
            places = batch.positions[:, 1]
            with use_slots(self.bank, torch.tensor(row_slots, device=device), runs(row_slots)):
                hidden = self.runtime.hidden_states(batch.inputs)[batch.rows, places]
        logits = self.runtime.logits(hidden).float()
        nll = F.cross_entropy(logits, batch.targets, reduction="none")
        likeliest = logits.detach().argmax(dim=-1)
        mistakes = (places + 1) * _PLACE + likeliest
        return nll, mistakes.masked_fill_(likeliest == batch.targets, _NO_MISTAKE), owners[batch.rows]

    def _flat_hidden_states(self, batch: FlatBatch, row_slots: Sequence[int]) -> Tensor:
        """[N, d], through the model as so many rows of one token: only attention has to know whose they are."""
        only, *others = set(row_slots)
        if self.merged is not None and not others and self.merged.pays(batch.lengths):
            return self.merged.hidden_states(batch.inputs, batch.places, batch.lengths, self.bank, only)
        slots = [slot for slot, length in zip(row_slots, batch.lengths, strict=True) for _ in range(length)]
        with use_slots(self.bank, torch.tensor(slots, device=batch.inputs.device), runs(slots)):
            return self.runtime.hidden_states(
                batch.inputs.unsqueeze(1), position_ids=batch.places.unsqueeze(1), lengths=batch.lengths
            ).squeeze(1)

    @torch.no_grad()
    def scores(self, items: Sequence[Item], slots: Sequence[int]) -> Scores:
        """What the rows of each slot score; a slot may be there several times."""
        device = self.runtime.device
        sums = torch.zeros(2, len(slots), dtype=torch.float64, device=device)
        first = torch.full((len(slots),), _NO_MISTAKE, device=device)
        for group in split_by_tokens(items, self.token_budget):
            nll, mistakes, owners = self.forward(group, slots)
            sums[0].index_add_(0, owners, nll.double())
            sums[1].index_add_(0, owners, (mistakes == _NO_MISTAKE).double())
            first.scatter_reduce_(0, owners, mistakes, "amin")
        losses, hits = sums.cpu()
        return Scores(losses, hits, first.cpu())

    def backward(
        self, items: Sequence[Item], slots: Sequence[int], shares: Sequence[float], own: Mapping[int, int] = NOBODY
    ) -> Tensor:
        """Leave in the bank the gradients of the sum of all counted tokens' losses, each times its slot's share.

        A slot may be there several times, with another share each. One in `own` has its rows go through the model by
        themselves, in groups of at most so many tokens. Returns [2, len(slots)]: each one's summed loss,
        and how many of its tokens were the likeliest. Raises OutOfMemoryError, DeviceLostError, and what a job's rows
        lead to.
        """
        sums = torch.zeros(2, len(slots), device=self.runtime.device)
        weights = torch.tensor(shares, device=self.runtime.device)
        for group in self.groups(items, slots, own):
            nll, mistakes, owners = self.forward(group, slots)
            (nll * weights[owners]).sum().backward()  # type: ignore[no-untyped-call]
            sums[0].index_add_(0, owners, nll.detach())
            sums[1].index_add_(0, owners, (mistakes == _NO_MISTAKE).float())
        return sums


MakePasses = Callable[[Runtime, Bank, int | None], Passes]
"""Makes an engine's passes of its base, bank and token budget (None: the device's own)."""
