"""Adapters of every rank in one batch, on a basis that has grown since some of them were made."""

from pathlib import Path

import pytest
import torch

from osora_core.adapter import Adapter
from osora_core.basis import BasisCache
from osora_core.inference import AdapterRow, InferenceEngine, Request, SamplingParams
from osora_core.runtime import Runtime
from tests.support.inference import agree, prompt, run, solo

RANKS = (3, 8, 16, 24, 32)
"""Of a base with weights of full rank 16 and 32: of those from 16 on, some have fewer triplets than the adapter."""


def made_on(runtime: Runtime, rank: int) -> Adapter:
    """Random vectors, strong enough to change what is said."""
    row = torch.randn(runtime.basis.row_length, generator=torch.Generator().manual_seed(rank)) * 0.2
    return Adapter.from_row(row, runtime.basis, rank=rank, modules=set(runtime.basis.target_modules), base="small")


def request(runtime: Runtime, adapter: Adapter | None) -> Request:
    name = "base" if adapter is None else f"rank {adapter.rank}"
    row = None if adapter is None else AdapterRow(name, adapter.to_row(runtime.basis), adapter.rank)
    return Request(name, prompt(runtime, 1), SamplingParams(max_tokens=6, logprobs=True), adapter=row)


@pytest.fixture(scope="module")
def grown(base_path: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Runtime, Runtime]:
    """One base with its basis at rank 8, and after that with all that there is."""
    cache = BasisCache(tmp_path_factory.mktemp("cache"))
    before = Runtime.load("small", cache, path=str(base_path), device="cpu", rank=8)
    return before, Runtime.load("small", cache, path=str(base_path), device="cpu", rank="full")


def test_an_adapter_of_before_answers_as_before(grown: tuple[Runtime, Runtime]) -> None:
    before, after = grown
    for rank in (3, 8):
        adapter = made_on(before, rank)
        agree(solo(before, request(before, adapter)), solo(after, request(after, adapter)), noise=1e-4)


def test_ranks_are_mixed_in_a_batch(grown: tuple[Runtime, Runtime]) -> None:
    before, after = grown
    adapters = [made_on(before if rank <= 8 else after, rank) for rank in RANKS]
    asked = [request(after, adapter) for adapter in (None, *adapters)]
    together = run(InferenceEngine(after, rows=len(asked), adapters=len(asked)), asked)
    assert len({result.text for result in together.values()}) > 1
    for one in asked:
        agree(solo(after, one), together[one.id], noise=1e-4)
