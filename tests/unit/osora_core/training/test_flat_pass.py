"""Passes without padding: each row's tokens see what they would see alone."""

import pytest
import torch

from osora_core.bank import Bank
from osora_core.data import Example, flatten
from osora_core.runtime import Runtime
from osora_core.training.passes import Passes


def example(length: int, counted: int, seed: int) -> Example:
    tokens = torch.randint(0, 300, (length,), generator=torch.Generator().manual_seed(seed)).tolist()
    return Example(tuple(tokens), tuple(place >= length - counted for place in range(length)), seed)


def test_a_flat_batch_names_what_counts_and_whose_it_is() -> None:
    first, second = Example((5, 6, 7), (False, False, True), 1), Example((8, 9, 10, 11), (True, True, False, True), 2)
    batch = flatten([first, second], torch.device("cpu"))
    assert batch.inputs.tolist() == [5, 6, 8, 9, 10]
    assert (batch.places.tolist(), batch.lengths) == ([0, 1, 0, 1, 2], [2, 3])
    # The first token of a row is predicted by nothing, whether it counts or not.
    assert batch.counted.tolist() == [1, 2, 4]
    assert batch.targets.tolist() == [7, 9, 11]
    assert batch.rows.tolist() == [0, 1, 1]


def test_rows_of_all_lengths_learn_together_what_each_teaches_alone(runtime: Runtime) -> None:
    bank = Bank(runtime.basis, 3, device=runtime.device, trainable=True)
    passes = Passes(runtime, bank)
    slots = [bank.acquire(), bank.acquire()]
    for seed, slot in enumerate(slots):
        row = torch.randn(runtime.basis.row_length, generator=torch.Generator().manual_seed(seed))
        bank.write(slot, 0.01 * row, rank=runtime.basis.rank)
    items = [(example(length, length // 2, length), length % 2) for length in (2, 3, 40, 17, 9, 64)]

    together = passes.backward(items, slots, [0.5, 0.25])
    grads = bank.take_grads()
    alone = torch.stack([passes.backward([item], slots, [0.5, 0.25]) for item in items]).sum(0)

    assert together.tolist() == [pytest.approx(sums, rel=1e-4) for sums in alone.tolist()]
    expected = bank.take_grads()
    torch.testing.assert_close(grads, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
