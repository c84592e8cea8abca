"""Jobs with a mix: what they learn, what they leave, and that jobs without one have nothing of it."""

import csv
import hashlib
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F
from transformers import AutoModelForCausalLM

from osora_core.adapter import Adapter
from osora_core.bank import Bank
from osora_core.data import Example, pad
from osora_core.errors import UserError
from osora_core.mix import mix_length, mix_spans
from osora_core.operator import lora_factor
from osora_core.runtime import Runtime
from osora_core.training import Checkpoint, JobSpec, Sweep, TrainingEngine, TrainingJob, optimizer
from osora_core.training.errors import JobTooLarge
from osora_core.training.passes import Passes
from tests.unit.osora_core.conftest import Recorder, train
from tests.unit.osora_core.training.test_sweep import SweepRecorder

BARE = JobSpec(epochs=2, batch_size=6, rank=16)
MIXED = replace(BARE, mix=3)


def outcome(recorder: Recorder) -> Adapter:
    assert recorder.error is None
    assert recorder.adapter is not None
    return recorder.adapter


def run(engine: TrainingEngine, *jobs: TrainingJob) -> None:
    for job in jobs:
        engine.add(job)
    while engine.step():
        pass


def test_a_job_learns_its_mix_and_leaves_it(runtime: Runtime, examples: list[Example]) -> None:
    (recorder,) = train(runtime, examples, MIXED, valid=examples[:5])
    adapter = outcome(recorder)
    assert recorder.evaluations[-1].loss < recorder.evaluations[0].loss
    assert adapter.mix_size == 3
    assert adapter.mix.keys() == adapter.sigma.keys()
    assert all(C.shape == (3, 3) and C.count_nonzero() == 9 for C in adapter.mix.values())
    assert Adapter.from_zip(adapter.to_zip()).to_zip() == adapter.to_zip()
    bare = outcome(train(runtime, examples, BARE)[0])
    assert adapter.parameters == bare.parameters + 9 * len(adapter.sigma)


def test_the_gradients_of_a_mixed_batch_are_those_of_the_formula_in_float64(
    runtime: Runtime, base_path: Path, examples: list[Example]
) -> None:
    """Slots with mixes of two sizes and one without, in common passes, against dense weights differentiated as they
    stand."""
    basis, sizes = runtime.basis, [3, 0, 5]
    passes = Passes(runtime, Bank(basis, 3, device=torch.device("cpu"), trainable=True))
    rows = []
    for slot, c in enumerate(sizes, start=1):
        generator = torch.Generator().manual_seed(slot)
        row = 0.1 * torch.randn(basis.row_length + mix_length(basis.spans, c), generator=generator)
        passes.bank.write(slot, row, 16, mix=c)
        rows.append(row)
    items = [(example, index % 3) for index, example in enumerate(examples[:6])]
    sums = passes.backward(items, [1, 2, 3], [0.5, 1.0, 2.0])
    grads, of_mixes = passes.bank.take_grads(), passes.bank.take_mix_grads()
    assert of_mixes.keys() == {1, 3}

    plain = AutoModelForCausalLM.from_pretrained(base_path, dtype=torch.float64)
    modules = dict(plain.named_modules())

    def dense(row: Tensor, c: int) -> dict[str, Tensor]:
        weights, mixes = {}, row[basis.row_length :]
        for span, place in zip(basis.spans, mix_spans(basis.spans, c), strict=True):
            f = basis.factors[span.name]
            C = mixes[place.values].view(c, c) if c else None
            factor = lora_factor(f.U.double(), f.S.double(), row[span.sigma], row[span.delta], C)
            weights[f"{span.name}.weight"] = modules[span.name].weight + factor @ f.Vt.double()
        return weights

    for index, (row, c, share) in enumerate(zip(rows, sizes, (0.5, 1.0, 2.0), strict=True)):
        values, total = row.double().requires_grad_(), torch.zeros((), dtype=torch.float64)
        for example in [example for example, owner in items if owner == index]:
            padded = pad([example], torch.device("cpu"))
            logits = functional_call(plain, dense(values, c), (padded.inputs,)).logits[0, padded.positions[:, 1]]
            total = total + F.cross_entropy(logits, padded.targets, reduction="sum")
        (expected,) = torch.autograd.grad(share * total, values)
        assert sums[0][index].item() == pytest.approx(total.item(), rel=1e-5)
        found = torch.cat([grads[index + 1], of_mixes.get(index + 1, torch.zeros(0))]).double()
        assert (found - expected).norm() < 1e-4 * expected.norm()
        if c:
            length = basis.row_length
            assert (found - expected)[length:].norm() < 1e-4 * expected[length:].norm()


def test_a_row_with_a_mix_takes_one_step_of_adam_that_is_clipped_as_a_whole(runtime: Runtime) -> None:
    basis, c = runtime.basis, 2
    length = basis.row_length + mix_length(basis.spans, c)
    bank = Bank(basis, 2, device=torch.device("cpu"), trainable=True)
    adam = optimizer.RowAdam(bank)
    bank.write(1, torch.zeros(length), 16, mix=c)
    scale = torch.rand(length, generator=torch.Generator().manual_seed(9)) + 0.5
    adam.begin(1, scale)
    reference = torch.nn.Parameter(torch.zeros(length, dtype=torch.float64))
    theirs = torch.optim.Adam([reference], 1.0, (optimizer.BETA1, optimizer.BETA2), optimizer.EPSILON)
    expected = torch.zeros_like(reference)
    for step in range(4):
        grads = torch.randn(length, generator=torch.Generator().manual_seed(step))
        for (sigma, delta), span in zip(bank.layers, basis.spans, strict=True):
            for view, columns in ((sigma, span.sigma), (delta, span.delta)):
                view.grad = torch.zeros_like(view)
                view.grad[1] = grads[columns]
        bank.mixes[1].grad = grads[basis.row_length :].clone()
        before = reference.detach().clone()
        reference.grad = grads.double()
        torch.nn.utils.clip_grad_norm_([reference], 0.7)
        theirs.step()
        expected += 0.1 * scale * (reference.detach() - before)
        finite = adam.step([optimizer.RowStep(slot=1, learning_rate=0.1, step=step, max_grad_norm=0.7)])
        assert finite.all()
    torch.testing.assert_close(bank.read(1).double(), expected, rtol=1e-4, atol=1e-6)
    assert [len(moments) for moments in adam.read(1)] == [length, length]


def test_the_rate_of_a_mix_is_a_share_of_the_mean_that_it_mixes(runtime: Runtime) -> None:
    spec = replace(MIXED, mix_rate=0.2, target_modules=("q_proj",), train="o")
    of_mix = optimizer.row_scale(spec, runtime.basis)[runtime.basis.row_length :]
    for span, place in zip(runtime.basis.spans, mix_spans(runtime.basis.spans, 3), strict=True):
        expected = 0.2 * runtime.basis.factors[span.name].S[:3].mean() if span.name.endswith("q_proj") else 0
        torch.testing.assert_close(of_mix[place.values], torch.full((9,), float(expected)))


def test_a_mix_rate_scales_what_the_mix_moves_and_nothing_else(runtime: Runtime, examples: list[Example]) -> None:
    def first_step(mix_rate: float) -> Adapter:
        spec = replace(MIXED, epochs=1, batch_size=len(examples), mix_rate=mix_rate, keep="last")
        return outcome(train(runtime, examples, spec)[0])

    slow, fast = first_step(0.1), first_step(0.3)
    for name, C in slow.mix.items():
        torch.testing.assert_close(fast.mix[name], 3 * C, rtol=1e-5, atol=1e-9)
        assert torch.equal(fast.sigma[name], slow.sigma[name])
        assert torch.equal(fast.delta[name], slow.delta[name])


@pytest.mark.parametrize("steps", [1, 3])
def test_it_resumes_exactly(runtime: Runtime, examples: list[Example], steps: int) -> None:
    spec = replace(MIXED, keep="best")
    (whole,) = train(runtime, examples, spec, valid=examples[:5])
    engine, first, second = TrainingEngine(runtime, max_jobs=1), Recorder(), Recorder()
    job = TrainingJob("a", spec, examples, first, examples[:5])
    engine.add(job)
    for _ in range(steps):
        engine.step()
    state = engine.remove(job).to_bytes()
    resume = Checkpoint.from_bytes(state, hashlib.sha256(state).hexdigest())
    run(TrainingEngine(runtime, max_jobs=1), TrainingJob("a", spec, examples, second, examples[:5], resume))
    assert outcome(second).to_zip() == outcome(whole).to_zip()
    assert [*first.losses, *second.losses] == whole.losses


def test_a_checkpoint_of_another_mix_is_refused(runtime: Runtime, examples: list[Example]) -> None:
    engine = TrainingEngine(runtime, max_jobs=1)
    job = TrainingJob("a", MIXED, examples, Recorder())
    engine.add(job)
    engine.step()
    resume = engine.remove(job)
    for spec in (BARE, replace(MIXED, mix=2), replace(MIXED, mix_rate=0.2)):
        with pytest.raises(UserError, match="another spec"):
            engine.add(TrainingJob("a", spec, examples, Recorder(), resume=resume))


def test_without_a_mix_a_checkpoint_agrees_with_those_of_versions_that_knew_none(
    runtime: Runtime, examples: list[Example]
) -> None:
    job = TrainingJob("a", BARE, examples, Recorder())
    former = {name: value for name, value in BARE.to_dict().items() if not name.startswith("mix")}
    assert BARE.to_identity() == former
    assert JobSpec.from_dict(former) == BARE
    assert job.identity(runtime.basis) != TrainingJob("a", MIXED, examples, Recorder()).identity(runtime.basis)


def test_jobs_without_a_mix_have_nothing_of_it(
    runtime: Runtime, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No tensor, no operation and no byte: neither alone nor beside one that has a mix, which leaves nothing behind."""
    engine, alone = TrainingEngine(runtime, max_jobs=3), Recorder()
    values = engine.bank.values.nbytes
    with monkeypatch.context() as patched:
        patched.setattr("osora_core.linear._mixes", lambda *_: pytest.fail("a mix in a pass without one"))
        patched.setattr("osora_core.operator.autograd.Mixes.add", lambda *_: pytest.fail("a mix was computed"))
        patched.setattr(optimizer.RowAdam, "_step_mix", lambda *_: pytest.fail("a mix was stepped"))
        run(
            engine,
            TrainingJob("a", BARE, examples, alone),
            TrainingJob("b", replace(BARE, seed=2), examples, Recorder()),
        )
        assert not engine.bank.mixes
    state = alone.checkpoints[0]
    assert [len(t) for t in (state.values, state.first, state.second)] == [runtime.basis.row_length] * 3

    mixed, beside = Recorder(), Recorder()
    jobs = [TrainingJob("a", BARE, examples, beside), TrainingJob("b", MIXED, examples, mixed)]
    for job in jobs:
        engine.add(job)
    engine.step()
    assert engine.bank.mixes.keys() == {jobs[1].slot}
    assert engine.bank.values.nbytes == values
    assert engine.bank.read(jobs[0].slot).shape == (runtime.basis.row_length,)
    while engine.step():
        pass
    assert not engine.bank.mixes
    assert outcome(beside).mix_size == 0
    # And whoever takes the slot of one that had a mix begins without it.
    again = Recorder()
    run(engine, TrainingJob("c", BARE, examples, again))
    torch.testing.assert_close(outcome(again).to_row(runtime.basis), outcome(alone).to_row(runtime.basis))


def test_estimates_of_memory_cover_what_a_mix_takes(runtime: Runtime, examples: list[Example]) -> None:
    engine = TrainingEngine(runtime, max_jobs=2)
    large = replace(BARE, mix=16)
    bare, mixed = (TrainingJob(name, spec, examples, Recorder()) for name, spec in (("a", BARE), ("b", large)))
    length = mix_length(runtime.basis.spans, 16)
    of_mix = engine.memory.needed([mixed]) - engine.memory.needed([bare])
    assert engine.memory.needed([bare, mixed]) - engine.memory.needed([bare, bare]) == of_mix
    # Values, moments, scale and gradient are there at once for good; a pass's copy and its gradients come on top.
    assert 8 * 4 * length <= of_mix <= 12 * 4 * length
    engine.memory.limit = engine.memory.needed([mixed]) - 1
    with pytest.raises(JobTooLarge, match="for its mix of size 16") as refused:
        engine.add(mixed)
    assert refused.value.param == "osora.mix"
    engine.add(bare)


def test_it_continues_an_adapter_with_a_smaller_mix_or_none(runtime: Runtime, examples: list[Example]) -> None:
    (first,) = train(runtime, examples, replace(MIXED, target_modules=("q_proj", "down_proj")), valid=examples[:5])
    start, found = outcome(first), []
    for spec in (replace(MIXED, mix=3), replace(MIXED, mix=5)):
        recorder = Recorder()
        run(TrainingEngine(runtime, max_jobs=1),
            TrainingJob("a", spec, examples, recorder, examples[:5], start=start))  # fmt: skip
        assert recorder.evaluations[0].loss == pytest.approx(first.evaluations[-1].loss, rel=1e-5)
        assert recorder.evaluations[-1].loss < recorder.evaluations[0].loss
        found.append(outcome(recorder))
    assert [adapter.mix_size for adapter in found] == [3, 5]
    with pytest.raises(UserError, match="a mix of size 3, the job one of 2") as refused:
        TrainingJob("a", replace(MIXED, mix=2), examples, Recorder(), start=start)
    assert refused.value.param == "osora.mix"


def test_what_a_job_does_not_train_of_a_mix_stays_as_it_was(runtime: Runtime, examples: list[Example]) -> None:
    start, recorder = outcome(train(runtime, examples, MIXED)[0]), Recorder()
    spec = replace(MIXED, target_modules=("q_proj",))
    run(TrainingEngine(runtime, max_jobs=1), TrainingJob("a", spec, examples, recorder, start=start))
    for name, C in outcome(recorder).mix.items():
        assert torch.equal(C, start.mix[name]) == (not name.endswith("q_proj"))


def test_a_sweep_ranges_over_rates_of_the_mix(runtime: Runtime, examples: list[Example]) -> None:
    recorder = SweepRecorder()
    specs = [replace(MIXED, mix_rate=rate) for rate in (0.1, 0.3, 1e-5)]
    engine = TrainingEngine(runtime, max_jobs=4)
    Sweep(TrainingJob("sweep", specs[0], examples[4:], recorder), specs, examples[:4], recorder).join(engine)
    while engine.step():
        pass
    assert recorder.error is None
    result: Any = recorder.outcome
    assert result.spec in specs
    lines = list(csv.DictReader(io.StringIO(result.family)))
    assert {float(line["mix_rate"]) for line in lines} == {0.1, 0.3, 1e-5}
    assert recorder.rungs[0].members[0].keys() >= {"learning_rate", "sigma_rate", "mix_rate"}
    assert not engine.bank.mixes


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"mix": 17}, "above the rank 16"), ({"mix": -1}, "mix cannot be"), ({"mix": 1.5}, "mix cannot be"),
     ({"mix_rate": 0.0}, "mix_rate cannot be"), ({"mix_rate": float("inf")}, "mix_rate cannot be")],
)  # fmt: skip
def test_a_mix_that_cannot_be_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        replace(BARE, **changes)


def test_a_gradient_of_the_mix_that_is_no_number_ends_its_own_job(
    runtime: Runtime, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, broken, neighbour = TrainingEngine(runtime, max_jobs=2), Recorder(), Recorder()
    job = TrainingJob("a", MIXED, examples, broken)
    engine.add(job)
    engine.add(TrainingJob("b", MIXED, examples, neighbour))
    take: Callable[[], dict[int, Tensor]] = engine.bank.take_mix_grads

    def overflowing() -> dict[int, Tensor]:
        grads = take()
        if job.slot in grads:
            grads[job.slot][0] = torch.inf
        return grads

    monkeypatch.setattr(engine.bank, "take_mix_grads", overflowing)
    while engine.step():
        pass
    assert "infinite or nan at step 1" in str(broken.error)
    assert outcome(neighbour).to_row(runtime.basis).isfinite().all()
