"""The datasets: rows as token matrices that stay on the device, and how every method trains on them."""

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from osora_core.data import Example, Renderer
from osora_core.errors import DataError

IGNORED = -100
_KEPT_BACK = 0.1


@dataclass(frozen=True)
class Protocol:
    """What is measured (accuracy is better high, loss is better low), and how every method trains for it."""

    measure: str
    rows: int
    epochs: int
    batch_size: int


DATASETS = {
    "banking77": Protocol("accuracy", rows=5000, epochs=4, batch_size=64),
    "snips": Protocol("accuracy", rows=3000, epochs=3, batch_size=32),
    "gsm8k": Protocol("loss", rows=2000, epochs=2, batch_size=32),
}


@dataclass(frozen=True)
class Data:
    """A dataset's rendered rows; `valid` chooses the rates, `test` is reported."""

    train: list[Example]
    valid: list[Example]
    test: list[Example]


def load(folder: Path, dataset: str, renderer: Renderer, rows: int | None, test_rows: int | None) -> Data:
    """Rendered rows, thinned evenly to the limits; those too long for the base are left out."""
    train = _render(_thin(list(read(folder, dataset, "train")), rows), renderer)
    test = _render(_thin(list(read(folder, dataset, "test")), test_rows), renderer)
    # A fixed permutation: files are sorted by answer.
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0)).tolist()
    kept = max(1, int(len(train) * _KEPT_BACK))
    return Data([train[i] for i in order[kept:]], [train[i] for i in order[:kept]], test)


def read(folder: Path, dataset: str, split: str) -> Iterator[list[dict[str, str]]]:
    """The conversations of a split."""
    if dataset == "banking77":
        with (folder / dataset / f"{split}.csv").open(newline="") as file:
            for row in csv.DictReader(file):
                yield turns(row["text"], row["category"])
    else:
        for line in (folder / dataset / f"{split}.jsonl").read_text().splitlines():
            record = json.loads(line)
            yield record["messages"] if "messages" in record else turns(record["question"], record["answer"])


def turns(user: str, assistant: str) -> list[dict[str, str]]:
    """A question and its answer as a conversation."""
    return [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]


def _thin(rows: list[Any], limit: int | None) -> list[Any]:
    if limit is None or limit >= len(rows):
        return rows
    return [rows[i * len(rows) // limit] for i in range(limit)]


def _render(conversations: Iterable[Any], renderer: Renderer) -> list[Example]:
    examples = []
    for line, messages in enumerate(conversations, start=1):
        try:
            examples.append(renderer.render({"messages": messages}, line))
        except DataError:
            continue
    return examples


class Matrix:
    """Examples as matrices on a device, so that a batch is one look-up and not a loop over its tokens.

    inputs [N, T]; targets [N, T], the token that each place predicts, IGNORED where that does not count; lengths [N],
    the tokens that go in, on the host; counted [N], the predictions that count, on the host.
    """

    def __init__(self, examples: Sequence[Example], device: torch.device) -> None:
        self.lengths = torch.tensor([len(example) - 1 for example in examples])
        self.counted = torch.tensor([example.loss_tokens for example in examples])
        longest = int(self.lengths.max())
        inputs = torch.zeros(len(examples), longest, dtype=torch.long)
        targets = torch.full((len(examples), longest), IGNORED)
        for row, example in enumerate(examples):
            tokens, mask = torch.tensor(example.tokens), torch.tensor(example.mask[1:])
            inputs[row, : len(example) - 1] = tokens[:-1]
            targets[row, : len(example) - 1] = tokens[1:].masked_fill(~mask, IGNORED)
        self.inputs, self.targets = inputs.to(device), targets.to(device)

    def take(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """inputs and targets [B, T] of rows [B] (on the host), as long as the longest of them."""
        longest = int(self.lengths[rows].max())
        rows = rows.to(self.inputs.device)
        return self.inputs[rows, :longest], self.targets[rows, :longest]


def even_slices(lengths: Tensor, budget: int, padding: int) -> list[tuple[int, int]]:
    """How batches of several runs go through a model: the same [start, stop) of each.

    lengths [K, B] descends along each row. A slice is at most `budget` tokens of all runs, padding included, unless it
    is one row of each; and of these at most `padding` are padding.
    """
    runs, rows = lengths.shape
    longest, used = lengths.amax(0).tolist(), lengths.sum(0).tolist()
    slices, start, filled = [], 0, 0
    for row in range(rows):
        tokens = (row + 1 - start) * runs * longest[start]
        if row > start and (tokens > budget or tokens - filled - used[row] > padding):
            slices.append((start, row))
            start, filled = row, 0
        filled += used[row]
    return [*slices, (start, rows)]
