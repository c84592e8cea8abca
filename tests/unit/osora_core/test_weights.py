"""The hash of a base: of its content, without all of it in memory twice."""

import hashlib
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from osora_core.errors import UserError
from osora_core.weights import fingerprint_base, fingerprint_tensors


def test_a_fingerprint_is_of_the_content() -> None:
    one, two = torch.ones(3), torch.arange(3.0)
    assert fingerprint_tensors([("a", one), ("b", two)]) == fingerprint_tensors([("b", two), ("a", one)])
    assert fingerprint_tensors([("a", one)]) != fingerprint_tensors([("a", two)])
    assert fingerprint_tensors([("a", one)]) != fingerprint_tensors([("b", one)])


def test_few_weights_are_in_memory_at_once_while_a_base_is_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quantised base is dequantised weight by weight; all at once it would not fit."""
    alive: set[int] = set()
    most = 0
    too_many = threading.Event()
    sha256 = hashlib.sha256

    def slow(data: Any) -> Any:
        # Until the weights have run away from us, or have had the time to.
        too_many.wait(timeout=0.5)
        too_many.set()
        return sha256(data)

    def weights(count: int) -> Iterator[tuple[str, Tensor]]:
        nonlocal most
        for index in range(count):
            weight = torch.full((1000,), float(index))
            alive.add(index)
            most = max(most, len(alive))
            if most > 20:
                too_many.set()
            weakref.finalize(weight, alive.discard, index)
            yield f"w{index}", weight
            del weight

    monkeypatch.setattr(hashlib, "sha256", slow)
    fingerprint_tensors(weights(100))
    # Eight that are hashed or wait, the next one, and those that threads which were stopped just then still hold.
    assert most <= 20


def test_a_weight_that_cannot_be_read_ends_the_hashing_with_its_own_error() -> None:
    with torch.device("meta"):
        model = nn.Linear(2, 2)
    with pytest.raises(UserError, match="meta device"):
        fingerprint_base(model)
