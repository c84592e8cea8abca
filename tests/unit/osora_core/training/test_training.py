"""The training engine: jobs together learn what they learn alone, and resume where they were."""

import csv
import hashlib

import pytest
import torch

from osora_core.adapter import Adapter
from osora_core.bank import Bank
from osora_core.data import Example, Renderer, batch_order, read_examples, rows_of
from osora_core.errors import DataError, UserError
from osora_core.runtime import Runtime
from osora_core.training import Checkpoint, JobSpec, TrainingEngine, TrainingJob, optimizer
from osora_core.training.errors import DuplicateJob, NonFiniteLoss
from tests.unit.osora_core.conftest import Recorder, train

SPECS = [
    JobSpec(seed=1, epochs=2, batch_size=4, rank=16),
    JobSpec(seed=2, epochs=3, batch_size=8, rank=4, target_modules=("q_proj", "up_proj"), learning_rate=0.05),
    JobSpec(seed=3, epochs=1, batch_size=3, train="s"),
    JobSpec(seed=4, epochs=2, batch_size=22, train="o", rank=8),
]


def specs() -> list[JobSpec]:
    return [JobSpec.from_dict({**spec.to_dict(), "rank": min(spec.rank, 16)}) for spec in SPECS]


def rows(adapter: Adapter | None, runtime: Runtime) -> torch.Tensor:
    assert adapter is not None
    return adapter.to_row(runtime.basis)


def test_jobs_together_learn_what_each_learns_alone(runtime: Runtime, examples: list[Example]) -> None:
    together = train(runtime, examples, *specs())
    for spec, shared in zip(specs(), together, strict=True):
        (alone,) = train(runtime, examples, spec)
        assert shared.losses == pytest.approx(alone.losses, rel=1e-4)
        torch.testing.assert_close(rows(shared.adapter, runtime), rows(alone.adapter, runtime), rtol=1e-3, atol=1e-4)


def test_a_job_learns_and_trains_only_what_its_spec_names(runtime: Runtime, examples: list[Example]) -> None:
    both, narrow, only_s, only_o = train(runtime, examples, *specs())
    assert both.losses[-1] < both.losses[0]
    assert narrow.adapter is not None
    assert narrow.adapter.target_modules == ["q_proj", "up_proj"]
    assert all(sigma.shape == (4,) for sigma in narrow.adapter.sigma.values())
    assert only_s.adapter is not None
    assert only_o.adapter is not None
    assert not any(delta.any() for delta in only_s.adapter.delta.values())
    assert any(sigma.any() for sigma in only_s.adapter.sigma.values())
    assert not any(sigma.any() for sigma in only_o.adapter.sigma.values())
    assert any(delta.any() for delta in only_o.adapter.delta.values())


def test_an_id_is_taken_once_and_a_job_leaves_as_itself(runtime: Runtime, examples: list[Example]) -> None:
    """Of two attempts at one job, the one that left the engine before must not take the other out."""
    engine = TrainingEngine(runtime, max_jobs=2)
    first, second = (TrainingJob("job", SPECS[0], examples, Recorder()) for _ in range(2))
    engine.add(first)
    with pytest.raises(DuplicateJob, match="job"):
        engine.add(second)
    engine.discard(second)
    assert engine.holds(first)
    assert engine.bank.free == 1
    engine.discard(first)
    engine.add(second)
    for _ in range(2):
        engine.discard(first)
    assert engine.holds(second)
    with pytest.raises(KeyError):
        engine.remove(first)
    engine.remove(second)
    assert (engine.jobs, engine.bank.free) == ({}, 2)


@pytest.mark.parametrize("steps", [0, 1, 6, 7, 17])
def test_a_resumed_job_ends_bit_for_bit_like_an_undisturbed_one(
    runtime: Runtime, examples: list[Example], steps: int
) -> None:
    """Six steps an epoch."""
    spec = JobSpec(seed=5, epochs=3, batch_size=4, rank=16)
    (undisturbed,) = train(runtime, examples, spec, valid=examples[:3])
    engine = TrainingEngine(runtime, max_jobs=1)
    engine.add(TrainingJob("stopped", spec, examples, Recorder(), examples[:3]))
    for _ in range(steps):
        engine.step()
    data = engine.remove(engine.jobs["stopped"]).to_bytes()
    assert not engine.step()
    checkpoint = Checkpoint.from_bytes(data, hashlib.sha256(data).hexdigest())
    assert checkpoint.step == steps
    spec = JobSpec.from_dict(checkpoint.spec)
    (resumed,) = train(runtime, examples, spec, resume=checkpoint, valid=examples[:3])
    assert torch.equal(rows(resumed.adapter, runtime), rows(undisturbed.adapter, runtime))
    assert resumed.losses == undisturbed.losses[steps:]
    assert undisturbed.curve is not None
    assert resumed.curve == undisturbed.curve
    assert [evaluation.step for evaluation in undisturbed.curve.evaluations] == [0, 6, 12, 18]


def test_the_curve_as_csv_reads_back_exactly(runtime: Runtime, examples: list[Example]) -> None:
    (recorder,) = train(runtime, examples, JobSpec(epochs=1, batch_size=11, rank=16), valid=examples[:3])
    assert recorder.curve is not None
    lines = list(csv.DictReader(recorder.curve.to_csv().splitlines()))
    assert [line["step"] for line in lines] == ["0", "1", "2"]
    assert [float(line["train_loss"]) for line in lines[1:]] == recorder.losses
    assert [line["train_loss"] for line in lines[:1]] == [""]
    for column, value in (("valid_loss", "loss"), ("valid_exact_match", "exact_match")):
        assert [float(lines[i][column]) for i in (0, 2)] == [getattr(e, value) for e in recorder.evaluations]


@pytest.mark.parametrize(("every", "steps"), [(2, [2, 3, 5, 6]), (5, [3, 6]), (None, [3, 6])])
def test_checkpoints_come_every_so_many_steps_and_at_each_epochs_end(
    runtime: Runtime, examples: list[Example], every: int | None, steps: list[int]
) -> None:
    recorder, engine = Recorder(), TrainingEngine(runtime, max_jobs=1)
    spec = JobSpec(epochs=2, batch_size=8, rank=16)
    engine.add(TrainingJob("a", spec, examples, recorder, checkpoint_steps=every))
    while engine.step():
        pass
    assert [checkpoint.step for checkpoint in recorder.checkpoints] == steps
    assert [checkpoint.step for checkpoint in recorder.checkpoints if checkpoint.ends_epoch] == [3, 6]


def test_a_checkpoint_of_another_spec_is_refused(runtime: Runtime, examples: list[Example]) -> None:
    engine = TrainingEngine(runtime, max_jobs=1)
    engine.add(TrainingJob("a", JobSpec(rank=16), examples, Recorder()))
    checkpoint = engine.remove(engine.jobs["a"])
    with pytest.raises(UserError, match="another spec"):
        engine.add(TrainingJob("b", JobSpec(rank=8), examples, Recorder(), resume=checkpoint))


def test_a_job_that_diverges_ends_alone(runtime: Runtime, examples: list[Example]) -> None:
    engine = TrainingEngine(runtime, max_jobs=2)
    healthy, broken = Recorder(), Recorder()
    spec = JobSpec(seed=1, epochs=1, batch_size=4, rank=16)
    engine.add(TrainingJob("healthy", spec, examples, healthy))
    job = TrainingJob("broken", JobSpec(seed=2, epochs=1, rank=16), examples, broken)
    engine.add(job)
    engine.bank.write(job.slot, torch.full((runtime.basis.row_length,), torch.nan), rank=16)
    while engine.step():
        pass
    assert isinstance(broken.error, NonFiniteLoss)
    (alone,) = train(runtime, examples, spec)
    torch.testing.assert_close(rows(healthy.adapter, runtime), rows(alone.adapter, runtime), rtol=1e-3, atol=1e-4)


def test_a_job_that_diverges_with_nobody_beside_it_leaves_the_engine_whole(
    runtime: Runtime, examples: list[Example]
) -> None:
    engine = TrainingEngine(runtime, max_jobs=1)
    broken = Recorder()
    job = TrainingJob("broken", JobSpec(rank=16), examples, broken)
    engine.add(job)
    engine.bank.write(job.slot, torch.full((runtime.basis.row_length,), torch.nan), rank=16)
    assert not engine.step()
    assert isinstance(broken.error, NonFiniteLoss)
    spec, after = JobSpec(seed=1, epochs=1, batch_size=4, rank=16), Recorder()
    engine.add(TrainingJob("after", spec, examples, after))
    while engine.step():
        pass
    (alone,) = train(runtime, examples, spec)
    assert after.losses == alone.losses


def test_a_rank_above_the_basis_is_refused(runtime: Runtime, examples: list[Example]) -> None:
    engine = TrainingEngine(runtime)
    with pytest.raises(UserError, match="rank 17"):
        engine.add(TrainingJob("a", JobSpec(rank=17), examples, Recorder()))


def test_evaluation_begins_with_the_bare_base_and_follows_every_epoch(
    runtime: Runtime, examples: list[Example]
) -> None:
    recorder = Recorder()
    engine = TrainingEngine(runtime, max_jobs=1)
    engine.add(TrainingJob("a", JobSpec(epochs=2, batch_size=11, rank=16), examples, recorder, examples[:5]))
    while engine.step():
        pass
    assert [evaluation.step for evaluation in recorder.evaluations] == [0, 2, 4]
    assert recorder.evaluations[-1].loss < recorder.evaluations[0].loss


def test_row_adam_is_adam(runtime: Runtime) -> None:
    bank = Bank(runtime.basis, 2, device=torch.device("cpu"), trainable=True)
    adam = optimizer.RowAdam(bank)
    scale = torch.rand(runtime.basis.row_length) + 0.5
    adam.begin(1, scale)
    reference = torch.nn.Parameter(torch.zeros(runtime.basis.row_length))
    betas = (optimizer.BETA1, optimizer.BETA2)
    theirs = torch.optim.Adam([reference], lr=1.0, betas=betas, eps=optimizer.EPSILON)
    expected = torch.zeros_like(reference)
    for step in range(5):
        grads = torch.randn(runtime.basis.row_length, generator=torch.Generator().manual_seed(step)) * 0.01
        for (sigma, delta), span in zip(bank.layers, runtime.basis.spans, strict=True):
            for view, columns in ((sigma, span.sigma), (delta, span.delta)):
                view.grad = torch.zeros_like(view)
                view.grad[1] = grads[columns]
        before = reference.detach().clone()
        reference.grad = grads.clone()
        theirs.step()
        expected += 0.1 * scale * (reference.detach() - before)
        adam.step([optimizer.RowStep(slot=1, learning_rate=0.1, step=step, max_grad_norm=1e9)])
    torch.testing.assert_close(bank.read(1), expected, rtol=1e-4, atol=1e-6)
    assert not bank.read(2).any()


def test_a_sigma_rate_scales_what_sigma_moves_and_nothing_else(runtime: Runtime, examples: list[Example]) -> None:
    def first_step(sigma_rate: float) -> torch.Tensor:
        engine = TrainingEngine(runtime)
        spec = JobSpec(rank=16, batch_size=4, sigma_rate=sigma_rate)
        engine.add(TrainingJob("job", spec, examples, Recorder()))
        engine.step()
        return engine.remove(engine.jobs["job"]).values

    slow, fast = first_step(2.0), first_step(6.0)
    for span in runtime.basis.spans:
        torch.testing.assert_close(fast[span.sigma], 3 * slow[span.sigma])
        assert torch.equal(fast[span.delta], slow[span.delta])
    with pytest.raises(UserError, match="sigma_rate"):
        JobSpec(sigma_rate=0)


def test_an_epoch_sees_every_row_once_in_an_order_of_seed_and_epoch() -> None:
    order = batch_order(10, 4, seed=1, epoch=0)
    assert [len(batch) for batch in order] == [4, 4, 2]
    assert sorted(row for batch in order for row in batch) == list(range(10))
    assert order == batch_order(10, 4, seed=1, epoch=0)
    assert order != batch_order(10, 4, seed=1, epoch=1)
    assert order != batch_order(10, 4, seed=2, epoch=0)


def test_the_loss_counts_what_the_assistant_says(runtime: Runtime) -> None:
    renderer = Renderer(runtime.tokenizer, 128)
    messages = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "ignored", "weight": 0},
        {"role": "user", "content": "two"},
        {"role": "assistant", "content": "counted"},
    ]
    example = renderer.render({"messages": messages}, 1)
    trained = [token for token, counts in zip(example.tokens, example.mask, strict=True) if counts]
    assert runtime.tokenizer.decode(trained) == "counted<|im_end|>"
    completion = renderer.render({"prompt": "two and two", "completion": " is four"}, 1)
    trained = [token for token, counts in zip(completion.tokens, completion.mask, strict=True) if counts]
    assert runtime.tokenizer.decode(trained) == " is four<|im_end|>"


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b"{", "line 2: is not JSON"),
        (b"[]", "line 2: must be a JSON object"),
        (b'{"prompt": "x"}', "line 2: `completion` is missing"),
        (b'{"prompt": "%s", "completion": "y"}' % (b"x" * 300), "line 2: the row is 3"),
    ],
)
def test_a_bad_row_is_named_by_its_line(runtime: Runtime, line: bytes, complaint: str) -> None:
    good = b'{"prompt": "a", "completion": "b"}'
    with pytest.raises(DataError, match=complaint.replace("[", r"\[")):
        read_examples(rows_of(good + b"\n" + line), Renderer(runtime.tokenizer, 128))


def test_a_spec_survives_json_and_names_what_it_does_not_know() -> None:
    assert JobSpec.from_dict(SPECS[1].to_dict()) == SPECS[1]
    with pytest.raises(UserError, match="learning_speed"):
        JobSpec.from_dict({"learning_speed": 1})
    with pytest.raises(UserError, match="epochs"):
        JobSpec(epochs=0)
