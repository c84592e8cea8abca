"""Peers compute what PEFT's modules do, and learn side by side what they learn alone."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import get_peft_model
from transformers import PreTrainedModel

from benchmarks.quality import methods, peers
from benchmarks.quality.learned import Diverged, Learned
from benchmarks.quality.operators import Stacked
from benchmarks.quality.peers import Full, Peft
from osora_core import basis as bases
from osora_core.data import Example
from osora_core.training import JobSpec

pytestmark = [
    pytest.mark.filterwarnings("ignore:Specified to not save vera_A"),
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning"),
]

CONFIGS: dict[str, Callable[[PreTrainedModel], Any]] = {
    "lora": lambda model: methods.lora(model, 2),
    "pissa": lambda model: methods.pissa(model, 2),
    "vera": lambda model: methods.vera(model, 8),
    "psoft": lambda model: methods.psoft(model, 4),
    "ia3": methods.ia3,
}


def _specs(*rates_and_seeds: tuple[float, int]) -> list[JobSpec]:
    return [JobSpec(seed=seed, epochs=2, batch_size=3, learning_rate=rate) for rate, seed in rates_and_seeds]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", CONFIGS)
def test_runs_side_by_side_compute_what_peft_computes_for_each(name: str, model: Any, dtype: torch.dtype) -> None:
    model = model.to(dtype)
    made = []
    for seed in range(2):
        torch.manual_seed(seed)
        one = get_peft_model(copy.deepcopy(model), CONFIGS[name](model)).eval()
        for parameter in one.parameters():
            if parameter.requires_grad:
                parameter.data += 0.05 * torch.randn_like(parameter)
        made.append(one)
    inputs = torch.randint(3, 60, (4, 9))
    with torch.no_grad():
        wanted = torch.cat([one(input_ids=inputs[2 * k : 2 * k + 2]).logits for k, one in enumerate(made)])
        bare = model(input_ids=inputs).logits
        stacked = peers._stacked(made)
        assert sum(isinstance(module, Stacked) for module in stacked.modules()) == 14
        found = stacked(input_ids=inputs).logits
    exact = dtype == torch.float32
    torch.testing.assert_close(found, wanted, rtol=1e-4 if exact else 0.05, atol=1e-4 if exact else 0.05)
    assert (wanted - bare).abs().max() > (1e-3 if exact else 0.1)


class _Base:
    """As `benchmarks.quality.bases.Base`, of a model that is there."""

    def __init__(self, model: Any) -> None:
        self.plain, self.begun, self.factors = model, dict[str, Any](), dict[str, Any]()


def _learner(name: str, model: Any) -> Any:
    if name == "full":
        return Full(model)
    if name in CONFIGS:
        return Peft(model, CONFIGS[name])
    base: Any = _Base(model)
    base.factors = bases.compute_basis(model, "all-linear", 4, "base").factors
    return methods.named({"reference": "reference", "lora-xs": "lora-xs-4"}[name]).learner(base)


@pytest.mark.parametrize("name", [*CONFIGS, "full", "reference", "lora-xs"])
def test_a_peer_learns_side_by_side_what_it_learns_alone(name: str, model: Any, examples: list[Example]) -> None:
    before = copy.deepcopy(model.state_dict())
    specs = _specs((0.02, 0), (0.05, 1))
    learner, measured = _learner(name, model), {"test": examples[:3], "valid": examples}
    together = learner.learn(examples, measured, specs)
    alone = [learner.learn(examples, measured, [spec])[0] for spec in specs]
    assert together[0].scores["test"] != together[1].scores["test"]
    for one, other in zip(together, alone, strict=True):
        assert isinstance(one, Learned)
        assert isinstance(other, Learned)
        assert (one.parameters, one.bytes) == (other.parameters, other.bytes)
        for part in measured:
            assert one.scores[part].loss == pytest.approx(other.scores[part].loss, rel=1e-3)
            assert one.scores[part].accuracy == other.scores[part].accuracy
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())  # the base stays


@pytest.mark.parametrize("name", ["lora", "psoft", "full"])
def test_a_run_that_diverges_takes_no_other_with_it(name: str, model: Any, examples: list[Example]) -> None:
    learner = _learner(name, model)
    specs = _specs((0.02, 0), (1e30, 0))
    calm, wild = learner.learn(examples, {"test": examples}, specs)
    (alone,) = learner.learn(examples, {"test": examples}, specs[:1])
    assert isinstance(wild, Diverged)
    assert calm.scores["test"].loss == pytest.approx(alone.scores["test"].loss, rel=1e-3)


@pytest.mark.parametrize(("name", "times"), [("psoft-4", 1), ("lora-2", 3)])
def test_what_no_seed_decides_is_begun_once(
    name: str, times: int, model: Any, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = []
    monkeypatch.setattr(peers, "get_peft_model", lambda *a: begun.append(a) or get_peft_model(*a))
    base: Any = _Base(model)
    specs = _specs((0.02, 0), (0.02, 1))
    first = methods.named(name).learner(base).learn(examples, {"test": examples}, specs)
    (again,) = methods.named(name).learner(base).learn(examples, {"test": examples}, specs[:1])
    assert len(begun) == times
    assert isinstance(first[0], Learned)
    assert isinstance(again, Learned)
    assert again.scores["test"].loss == pytest.approx(first[0].scores["test"].loss, rel=1e-3)


def test_training_lowers_the_loss(model: Any, examples: list[Example]) -> None:
    for name in (*CONFIGS, "full", "reference", "lora-xs"):
        still, moved = _learner(name, model).learn(examples, {"test": examples}, _specs((1e-12, 0), (0.03, 0)))
        assert moved.scores["test"].loss < still.scores["test"].loss - 1e-3, name


def test_a_step_that_runs_out_of_memory_begins_again_in_smaller_passes(
    model: Any, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks.quality import stacks

    learner = _learner("lora", model)
    (wanted,) = learner.learn(examples, {"test": examples}, _specs((0.02, 0)))
    within, budgets = stacks._backward_within, []

    def cramped(model: Any, rows: Any, batch: Any, tokens: int, padding: int) -> Any:
        budgets.append(tokens)
        found = within(model, rows, batch, tokens, padding)
        if tokens > 20:
            raise torch.OutOfMemoryError("no room")
        return found

    monkeypatch.setattr(stacks, "_backward_within", cramped)
    (found,) = learner.learn(examples, {"test": examples}, _specs((0.02, 0)))
    assert min(budgets) <= 20 < max(budgets)
    assert found.scores["test"].loss == pytest.approx(wanted.scores["test"].loss, rel=1e-4)
