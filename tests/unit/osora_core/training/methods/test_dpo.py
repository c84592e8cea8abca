"""Preferences: loss and gradient of the formula, steps shared with other jobs, exact resumption."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.func import functional_call
from torch.nn import functional as F
from transformers import AutoModelForCausalLM

import osora_data
from osora_core.adapter import Adapter
from osora_core.data import Example, Preference, Renderer, pad, read_preferences, rows_of
from osora_core.errors import DataError
from osora_core.mix import mix_length
from osora_core.operator import lora_factor
from osora_core.runtime import Runtime
from osora_core.training import Checkpoint, JobSpec, TrainingEngine, TrainingJob
from osora_core.training.errors import NonFiniteLoss
from osora_core.training.methods import contributions
from tests.unit.osora_core.conftest import Recorder

DPO = JobSpec(seed=3, epochs=3, batch_size=4, rank=16, learning_rate=0.02, method="dpo", beta=0.5)
SFT = JobSpec(seed=1, epochs=3, batch_size=4, rank=8)


def line(number: int, **changes: Any) -> str:
    row = {
        "input": {"messages": [{"role": "user", "content": f"help {number} " + "please " * (number % 4)}]},
        "preferred_output": [{"role": "assistant", "content": f"order {number % 3}"}],
        "non_preferred_output": [{"role": "assistant", "content": f"refund the customer {number % 2}"}],
    }
    return json.dumps({**row, **changes})


def pairs_of(count: int) -> Iterator[osora_data.Row]:
    return rows_of("\n".join(map(line, range(count))).encode())


@pytest.fixture(scope="module")
def pairs(runtime: Runtime) -> list[Preference]:
    return read_preferences(pairs_of(10), Renderer(runtime.tokenizer, runtime.max_length))


def start(runtime: Runtime, seed: int, rank: int = 16, mix: int = 0) -> Adapter:
    length = runtime.basis.row_length + mix_length(runtime.basis.spans, mix)
    row = 0.1 * torch.randn(length, generator=torch.Generator().manual_seed(seed))
    modules = set(runtime.basis.target_modules)
    return Adapter.from_row(row, runtime.basis, rank=rank, modules=modules, base="small", mix=mix)


def job(spec: JobSpec, rows: Any, recorder: Recorder | None = None, **more: Any) -> TrainingJob:
    return TrainingJob(f"{spec.method}", spec, rows, recorder or Recorder(), **more)


def run(engine: TrainingEngine, *jobs: TrainingJob) -> None:
    for one in jobs:
        engine.add(one)
    while engine.step():
        pass


@pytest.mark.parametrize("begins_with_an_adapter", [False, True])
def test_loss_and_gradient_are_those_of_the_formula_in_float64(
    runtime: Runtime, base_path: Path, pairs: list[Preference], begins_with_an_adapter: bool
) -> None:
    """A dense model whose weights are made of the vectors, differentiated as it stands."""
    begun = start(runtime, 1) if begins_with_an_adapter else None
    engine, policy = TrainingEngine(runtime, max_jobs=2), start(runtime, 2)
    training = job(DPO, pairs, start=begun)
    engine.add(training)
    engine.bank.write(training.slot, policy.to_row(runtime.basis), 16)
    batch = training.next_batch()
    (part,) = contributions([(training, batch)], engine.passes)
    rows, slots = part.rows, [training.slot] * len(part.shares)
    engine.passes.backward(rows, slots, part.shares)
    found = engine.bank.take_grads()[training.slot].double()

    plain = AutoModelForCausalLM.from_pretrained(base_path, dtype=torch.float64)
    modules = dict(plain.named_modules())

    def dense(row: torch.Tensor) -> dict[str, torch.Tensor]:
        weights = {}
        for span in runtime.basis.spans:
            f = runtime.basis.factors[span.name]
            factor = lora_factor(f.U.double(), f.S.double(), row[span.sigma], row[span.delta])
            weights[f"{span.name}.weight"] = modules[span.name].weight + factor @ f.Vt.double()
        return weights

    def log_probability(row: torch.Tensor, example: Example) -> torch.Tensor:
        padded = pad([example], torch.device("cpu"))
        logits = functional_call(plain, dense(row), (padded.inputs,)).logits[0, padded.positions[:, 1]]
        return -F.cross_entropy(logits, padded.targets, reduction="sum")

    values = policy.to_row(runtime.basis).double().requires_grad_()
    reference = (torch.zeros_like(values) if begun is None else begun.to_row(runtime.basis).double()).detach()
    losses = []
    for pair in batch:
        assert isinstance(pair, Preference)
        chosen, rejected = (
            log_probability(values, answer) - log_probability(reference, answer)
            for answer in (pair.chosen, pair.rejected)
        )
        losses.append(-F.logsigmoid(DPO.beta * (chosen - rejected)))
    loss = torch.stack(losses).mean()
    loss.backward()
    assert part.known is not None
    assert part.known.loss == pytest.approx(loss.item(), rel=1e-4)
    assert values.grad is not None
    torch.testing.assert_close(found, values.grad, rtol=1e-3, atol=1e-4 * values.grad.abs().max().item())


def test_a_reference_with_a_mix_is_what_the_job_begins_with(runtime: Runtime, pairs: list[Preference]) -> None:
    """Before the first step policy and reference answer alike, though the job's own mix may be larger."""
    for spec in (replace(DPO, mix=3), replace(DPO, mix=4)):
        engine, recorder = TrainingEngine(runtime, max_jobs=2), Recorder()
        run(engine, job(spec, pairs, recorder, start=start(runtime, 1, mix=3), valid=pairs[:3]))
        first, last = recorder.evaluations[0], recorder.evaluations[-1]
        assert first.loss == pytest.approx(0.6931, abs=1e-3)
        assert first.reward_margin == pytest.approx(0, abs=1e-4)
        assert last.loss < first.loss
        assert not engine.bank.mixes


def test_preferences_beside_answers_learn_what_each_learns_alone(
    runtime: Runtime, pairs: list[Preference], examples: list[Example]
) -> None:
    alone: dict[str, Recorder] = {"dpo": Recorder(), "supervised": Recorder()}
    run(TrainingEngine(runtime, max_jobs=1), job(DPO, pairs, alone["dpo"], valid=pairs[:3]))
    run(TrainingEngine(runtime, max_jobs=1), job(SFT, examples, alone["supervised"]))
    shared = {name: Recorder() for name in alone}
    together = (job(DPO, pairs, shared["dpo"], valid=pairs[:3]), job(SFT, examples, shared["supervised"]))
    run(TrainingEngine(runtime, max_jobs=2), *together)
    for name, recorder in shared.items():
        assert recorder.losses == pytest.approx(alone[name].losses, rel=1e-4)
        rows = [one.adapter.to_row(runtime.basis) for one in (recorder, alone[name]) if one.adapter is not None]
        torch.testing.assert_close(*rows, rtol=1e-3, atol=1e-4)
    first, last = shared["dpo"].evaluations[0], shared["dpo"].evaluations[-1]
    assert (first.loss, first.reward_margin, first.accuracy) == (pytest.approx(0.6931, abs=1e-3), 0, 0)
    assert last.loss < 0.5
    assert last.reward_margin > 0.5
    assert last.accuracy == 1
    curve = shared["dpo"].curve
    assert curve is not None
    assert curve.to_csv().splitlines()[0].endswith("valid_reward_accuracy,valid_exact_match,valid_reward_margin")


@pytest.mark.parametrize("begins_with_an_adapter", [False, True])
def test_resumed_at_any_step_it_ends_bit_for_bit_the_same(
    runtime: Runtime, pairs: list[Preference], begins_with_an_adapter: bool
) -> None:
    begun = start(runtime, 1) if begins_with_an_adapter else None
    whole, resumed = Recorder(), Recorder()
    run(TrainingEngine(runtime, max_jobs=2), job(DPO, pairs, whole, valid=pairs[:3], start=begun))
    engine = TrainingEngine(runtime, max_jobs=2)
    engine.add(job(DPO, pairs, valid=pairs[:3], start=begun))
    for _ in range(4):
        engine.step()
    data = engine.remove(engine.jobs["dpo"]).to_bytes()
    assert engine.bank.free == 2
    state = Checkpoint.from_bytes(data, hashlib.sha256(data).hexdigest())
    run(engine, job(DPO, pairs, resumed, valid=pairs[:3], start=begun, resume=state))
    assert resumed.curve == whole.curve
    assert resumed.adapter is not None
    assert whole.adapter is not None
    assert torch.equal(resumed.adapter.to_row(runtime.basis), whole.adapter.to_row(runtime.basis))
    assert engine.bank.free == 2


def test_preferences_that_overflow_end_alone(
    runtime: Runtime, pairs: list[Preference], examples: list[Example]
) -> None:
    alone, beside, failing = Recorder(), Recorder(), Recorder()
    run(TrainingEngine(runtime, max_jobs=1), job(SFT, examples, alone))
    engine = TrainingEngine(runtime, max_jobs=2)
    broken = job(DPO, pairs, failing)
    engine.add(broken)
    engine.bank.write(broken.slot, torch.full((runtime.basis.row_length,), 1e30), 16)
    run(engine, job(SFT, examples, beside))
    assert isinstance(failing.error, NonFiniteLoss)
    assert beside.losses == alone.losses


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"preferred_output": []}, "must be a list with a message in it"),
        ({"input": {"messages": [{"role": "user", "content": "help " * 2000}]}}, "tokens long"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(runtime: Runtime, changes: dict[str, Any], words: str) -> None:
    renderer = Renderer(runtime.tokenizer, runtime.max_length)
    with pytest.raises(DataError, match=words) as refused:
        read_preferences(rows_of(f"{line(0)}\n{line(1, **changes)}".encode()), renderer)
    assert refused.value.line == 2
    with pytest.raises(DataError, match="needs 'input'"):
        renderer.preference({"messages": []}, 1)
