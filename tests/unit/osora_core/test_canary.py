"""The canary sings the same on every machine that computes the same, and stops when something is wrong."""

import copy
import json
from concurrent.futures import Future
from dataclasses import replace

import pytest
import torch

from osora_core import canary
from osora_core.adapter import Adapter
from osora_core.errors import CorruptArtifact, UserError
from osora_core.inference import AdapterRow, InferenceEngine, Request, SamplingParams
from osora_core.runtime import Runtime


@pytest.fixture(scope="module")
def adapter(runtime: Runtime) -> Adapter:
    row = 0.1 * torch.randn(runtime.basis.row_length, generator=torch.Generator().manual_seed(4))
    made = Adapter.from_row(row, runtime.basis, rank=16, modules={"q_proj", "down_proj"}, base="small")
    return replace(made, canary=canary.compute(runtime, made))


def test_an_adapter_that_was_stored_sings_as_when_it_was_published(runtime: Runtime, adapter: Adapter) -> None:
    loaded = Adapter.from_zip(adapter.to_zip())
    assert loaded.canary == adapter.canary
    canary.check(runtime, loaded)


def test_an_engine_that_serves_others_meanwhile_finds_the_same(runtime: Runtime, adapter: Adapter) -> None:
    """Whole or in pieces, in a full engine: the canary goes before what waits, and takes a row for a moment."""
    published = canary.read(runtime, adapter)
    assert published is not None
    engine = InferenceEngine(runtime, rows=2, adapters=2, prefill_tokens=5)
    waiting = [Request(f"{i}", (5, 6, 7), SamplingParams(max_tokens=2 + i)) for i in range(6)]
    for request in waiting:
        engine.add(request)
    ended: set[str] = set()

    def examined(row: AdapterRow) -> torch.Tensor:
        answer = Future[torch.Tensor]()
        engine.examine(row, published.tokens, published.ids, answer)
        while not answer.done():
            ended.update(output.request_id for output in engine.step() if output.finish_reason)
        return answer.result()

    row = AdapterRow("sings", adapter.to_row(runtime.basis), adapter.rank)
    published.judge(examined(row))
    computed = examined(AdapterRow("does not", 2 * row.values, adapter.rank))
    with pytest.raises(canary.CanaryMismatch):
        published.judge(computed)
    assert len(ended) < len(waiting)
    while engine.busy:
        ended.update(output.request_id for output in engine.step() if output.finish_reason)
    assert len(ended) == len(waiting)


def test_what_no_engine_can_read_is_not_begun(runtime: Runtime) -> None:
    engine = InferenceEngine(runtime, rows=1, adapters=1, max_length=4)
    row = AdapterRow("a", torch.zeros(runtime.basis.row_length), 8)
    with pytest.raises(UserError, match=r"5 tokens .* at most 4"):
        engine.examine(row, [1] * 5, torch.ones(5, 1, dtype=torch.long), Future())
    misfit, answer = AdapterRow("b", torch.zeros(3), 8), Future[torch.Tensor]()
    engine.examine(misfit, [1] * 4, torch.ones(4, 1, dtype=torch.long), answer)
    assert engine.step() == []
    with pytest.raises(CorruptArtifact, match="3 values"):
        answer.result(0)
    assert not engine.busy


def test_an_adapter_without_a_canary_is_not_checked(runtime: Runtime, adapter: Adapter) -> None:
    canary.check(runtime, replace(adapter, canary=None, sigma={}, delta={}))


def test_small_noise_of_other_kernels_is_tolerated(runtime: Runtime, adapter: Adapter) -> None:
    noisy = {name: sigma + 1e-5 * torch.randn_like(sigma) for name, sigma in adapter.sigma.items()}
    canary.check(runtime, replace(adapter, sigma=noisy))


def test_a_server_of_a_coarser_dtype_than_the_trainers_is_allowed_its_own_rounding(
    runtime: Runtime, adapter: Adapter
) -> None:
    coarse = replace(runtime, model=copy.deepcopy(runtime.model).to(torch.bfloat16))
    published = canary.read(coarse, adapter)
    assert published is not None
    assert published.tolerance == canary.TOLERANCE[torch.bfloat16] > canary.TOLERANCE[torch.float32]


@pytest.mark.parametrize("wrong", ["one vector", "not a number", "the base"])
def test_other_answers_are_refused_with_tolerance_and_both_values(
    runtime: Runtime, adapter: Adapter, wrong: str
) -> None:
    sigma, delta = dict(adapter.sigma), dict(adapter.delta)
    name = next(iter(sigma))
    if wrong == "one vector":
        delta[name] = -delta[name]
    elif wrong == "not a number":
        delta[name] = delta[name] * torch.nan
    else:
        delta = {key: torch.zeros_like(value) for key, value in delta.items()}
        sigma = {key: torch.zeros_like(value) for key, value in sigma.items()}
    with pytest.raises(canary.CanaryMismatch, match=r"tolerance is 0\.01: token \d+ after position \d+ had") as refused:
        canary.check(runtime, replace(adapter, sigma=sigma, delta=delta))
    assert refused.value.code == "canary_mismatch"


@pytest.mark.parametrize(
    "broken", [{"tokens": []}, {"tokens": [10**9] * 3}, {"ids": [[1]]}, {"log_probs": "no"}, {"tolerance": None}]
)
def test_a_broken_canary_is_refused(runtime: Runtime, adapter: Adapter, broken: dict[str, object]) -> None:
    assert adapter.canary is not None
    with pytest.raises(CorruptArtifact, match="canary"):
        canary.check(runtime, replace(adapter, canary={**adapter.canary, **broken}))


def test_a_canary_is_small_and_tells_nothing_of_the_data(adapter: Adapter) -> None:
    assert adapter.canary is not None
    assert adapter.canary.keys() == {"tokens", "ids", "log_probs", "tolerance"}
    assert len(json.dumps(adapter.canary)) < 4096
