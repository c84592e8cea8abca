"""Batches: a reproducible order per job, and padded tensors grouped by length under a token budget."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from osora_core.data.examples import Example

T = TypeVar("T")


def batch_order(rows: int, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Row indices of one epoch's batches: a permutation that depends on nothing but the arguments.

    The last batch holds what is left over, so every row is seen once an epoch.
    """
    generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)
    order = torch.randperm(rows, generator=generator).tolist()
    return [order[i : i + batch_size] for i in range(0, rows, batch_size)]


@dataclass(frozen=True)
class PaddedBatch:
    """Right-padded rows. inputs [B, T]; positions [M, 2], the (row, position) pairs whose prediction counts; targets
    [M], the token each predicts; rows [M], the batch row of each."""

    inputs: Tensor
    positions: Tensor
    targets: Tensor

    @property
    def rows(self) -> Tensor:
        return self.positions[:, 0]


def pad(examples: Sequence[Example], device: torch.device) -> PaddedBatch:
    """Examples as one batch, padded with token 0 to the longest. The last token of a row predicts nothing."""
    longest = max(map(len, examples))
    tokens = torch.zeros(len(examples), longest, dtype=torch.long)
    counts = torch.zeros(len(examples), longest, dtype=torch.bool)
    for row, example in enumerate(examples):
        tokens[row, : len(example)] = torch.tensor(example.tokens)
        counts[row, : len(example)] = torch.tensor(example.mask)
    inputs, counts = tokens[:, :-1].contiguous(), counts[:, 1:]
    return PaddedBatch(inputs.to(device), counts.nonzero().to(device), tokens[:, 1:][counts].to(device))


@dataclass(frozen=True)
class FlatBatch:
    """Rows one after another, without padding, N tokens in all. inputs [N]; places [N], each token's place in its row;
    lengths, the tokens of each row; counted [M], the tokens whose prediction counts; targets [M], what each predicts;
    rows [M], the batch row of each."""

    inputs: Tensor
    places: Tensor
    lengths: list[int]
    counted: Tensor
    targets: Tensor
    rows: Tensor


def flatten(examples: Sequence[Example], device: torch.device) -> FlatBatch:
    """Examples as one flat batch. The last token of a row predicts nothing, and is left out."""
    lengths = [len(example) - 1 for example in examples]
    following = torch.tensor([token for example in examples for token in example.tokens[1:]])
    counted = torch.tensor([counts for example in examples for counts in example.mask[1:]]).nonzero().squeeze(1)
    row_of = torch.arange(len(examples)).repeat_interleave(torch.tensor(lengths))
    return FlatBatch(
        inputs=torch.tensor([token for example in examples for token in example.tokens[:-1]]).to(device),
        places=torch.cat([torch.arange(length) for length in lengths]).to(device),
        lengths=lengths,
        counted=counted.to(device),
        targets=following[counted].to(device),
        rows=row_of[counted].to(device),
    )


def split_by_tokens(
    items: Iterable[tuple[Example, T]], token_budget: int, pass_tokens: int = 0
) -> list[list[tuple[Example, T]]]:
    """Group examples of similar length so that rows times longest stays within the budget (one row may exceed it).

    A group also ends where its padding would come to more than `pass_tokens`: what another pass costs. With 0, the
    budget alone counts.
    """
    groups: list[list[tuple[Example, T]]] = []
    padding = 0
    for item in sorted(items, key=lambda pair: len(pair[0]), reverse=True):
        if groups:
            longest = len(groups[-1][0][0])
            padding += longest - len(item[0])
            if longest * (len(groups[-1]) + 1) <= token_budget and not 0 < pass_tokens < padding:
                groups[-1].append(item)
                continue
        groups.append([item])
        padding = 0
    return groups
