"""What PEFT asks of every tuner, asked of ours: training, switching, merging, mixing, deleting."""

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments

from osora_core import OsoraConfig
from osora_core.errors import UserError
from osora_core.tuner import OsoraTunerLinear
from tests.support.tiny_models import KINDS, make_model, make_tokens

TOKENS = make_tokens()


def adapted(kind: str = "llama", dtype: torch.dtype = torch.float32, *names: str, **options: Any) -> PeftModel:
    """A model with random adapters of these names (default: "default"), the first one active."""
    first, *others = names or ("default",)
    options = {"r": 8, "task_type": "CAUSAL_LM", "init_weights": False, **options}
    model = get_peft_model(make_model(kind, dtype), OsoraConfig(**options), adapter_name=first)
    for index, name in enumerate(others):
        model.add_adapter(name, OsoraConfig(**{**options, "r": 4 + index}))
    return model.eval()


def logits(model: nn.Module, tokens: Tensor = TOKENS, **kwargs: Any) -> Tensor:
    with torch.no_grad():
        result: Tensor = model(input_ids=tokens, **kwargs).logits
    return result


def layers(model: nn.Module) -> list[OsoraTunerLinear]:
    return [module for module in model.modules() if isinstance(module, OsoraTunerLinear)]


def grads(model: PeftModel) -> dict[str, Tensor]:
    model(input_ids=TOKENS, labels=TOKENS).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_training_moves_the_adapter_and_nothing_else(kind: str, dtype: torch.dtype) -> None:
    model = adapted(kind, dtype, init_weights=True)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.03)
    losses = []
    for _ in range(8):
        loss = model(input_ids=TOKENS, labels=TOKENS).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) != ("osora_" in name), name
    with model.disable_adapter():
        assert torch.equal(logits(model), logits(make_model(kind, dtype)))


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_gives_the_same_gradients(reentrant: bool) -> None:
    expected = grads(adapted_with_seed().train())
    model = adapted_with_seed().train()
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    actual = grads(model)
    assert expected.keys() == actual.keys()
    assert len(expected) == 28
    for name, grad in expected.items():
        torch.testing.assert_close(actual[name], grad)


def adapted_with_seed() -> PeftModel:
    torch.manual_seed(3)
    return adapted()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_trains(dtype: torch.dtype) -> None:
    model = adapted("llama", dtype)
    expected = logits(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        gradients = grads(model)
        answered = logits(model)
    assert len(gradients) == 28
    assert all(grad.dtype == torch.float32 and grad.abs().sum() > 0 for grad in gradients.values())
    torch.testing.assert_close(answered.float(), expected.float(), rtol=0.1, atol=0.3)


def test_casting_the_model_leaves_the_vectors_in_float32() -> None:
    model = adapted("llama", torch.float32, "one", "two")
    before = {
        (i, n): layer.osora_sigma[n].detach().clone() for i, layer in enumerate(layers(model)) for n in ("one", "two")
    }
    model.to(torch.bfloat16)
    for (index, name), sigma in before.items():
        layer = layers(model)[index]
        assert torch.equal(layer.osora_sigma[name], sigma)
        assert layer.S.dtype == torch.float32
        assert layer.U.dtype == torch.bfloat16
    assert logits(model).dtype == torch.bfloat16


def test_switching_chooses_the_adapter() -> None:
    model = adapted("llama", torch.float32, "one", "two")
    one = logits(model)
    model.set_adapter("two")
    two = logits(model)
    assert not torch.allclose(one, two, atol=0.05)
    assert {name.rpartition(".")[2] for name, p in model.named_parameters() if p.requires_grad} == {"two"}
    model.set_adapter("one")
    assert torch.equal(logits(model), one)


def test_adding_an_adapter_leaves_the_active_one_as_it_is() -> None:
    model = adapted("llama", torch.float32, "one")
    before = logits(model)
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    model.add_adapter("two", OsoraConfig(r=4, init_weights=False, target_modules=["q_proj"]))
    assert torch.equal(logits(model), before)
    assert [name for name, p in model.named_parameters() if p.requires_grad] == trained


def test_an_adapter_on_other_modules_leaves_them_alone_until_it_is_active() -> None:
    model = adapted("llama", torch.float32, "one", target_modules=["q_proj"])
    before = logits(model)
    model.add_adapter("two", OsoraConfig(r=4, init_weights=False, target_modules=["up_proj"]))
    assert torch.equal(logits(model), before)
    model.set_adapter("two")
    assert not torch.allclose(logits(model), before, atol=0.05)


def test_a_trainable_adapter_can_be_loaded_beside_the_active_one(tmp_path: Path) -> None:
    adapted("llama", torch.float32).save_pretrained(tmp_path)
    model = PeftModel.from_pretrained(make_model(), tmp_path)
    model.load_adapter(tmp_path, "other", is_trainable=True)
    assert {name.rpartition(".")[2] for name, p in model.named_parameters() if p.requires_grad} == {"other"}


def test_deleting_cleans_up() -> None:
    model = adapted("llama", torch.float32, "one", "two", "three")
    model.set_adapter("two")
    two = logits(model)
    model.delete_adapter("one")
    assert torch.equal(logits(model), two)
    for layer in layers(model):
        for held in (layer.osora_sigma, layer.osora_delta, layer.trains):
            assert sorted(held) == ["three", "two"]
    with pytest.warns(UserWarning, match="Setting active adapter to three"):
        model.delete_adapter("two")
    assert model.active_adapters == ["three"]
    assert not any("two" in key or "one" in key for key in model.state_dict())
    model.add_adapter("two", OsoraConfig(r=2))
    assert layers(model)[0].osora_sigma["two"].shape == (2,)


def test_disabling_gives_the_base_and_comes_back() -> None:
    model = adapted()
    before = logits(model)
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    with model.disable_adapter():
        assert torch.equal(logits(model), logits(make_model()))
        assert not any(p.requires_grad for p in model.parameters())
    assert torch.equal(logits(model), before)
    assert [name for name, p in model.named_parameters() if p.requires_grad] == trained


@pytest.mark.parametrize("kind", KINDS)
def test_merging_keeps_what_the_model_says_and_unmerging_the_base(kind: str) -> None:
    model = adapted(kind)
    before = logits(model)
    model.merge_adapter()
    torch.testing.assert_close(logits(model), before, rtol=1e-4, atol=1e-4)
    model.unmerge_adapter()
    assert torch.equal(logits(model), before)
    with model.disable_adapter():
        assert torch.equal(logits(model), logits(make_model(kind)))


@pytest.mark.parametrize("kind", KINDS)
def test_merge_and_unload_leaves_a_plain_model(kind: str) -> None:
    model = adapted(kind)
    before = logits(model)
    merged = model.merge_and_unload(safe_merge=True)
    assert type(merged) is type(make_model(kind))
    assert layers(merged) == []
    assert merged.state_dict().keys() == make_model(kind).state_dict().keys()
    torch.testing.assert_close(logits(merged), before, rtol=1e-4, atol=1e-4)


def test_unload_leaves_the_base() -> None:
    assert torch.equal(logits(adapted().unload()), logits(make_model()))


def test_merging_in_sequence_is_merging_at_once() -> None:
    model = adapted("llama", torch.float32, "one", "two")
    model.base_model.set_adapter(["one", "two"])
    together = logits(model)
    model.merge_adapter(["one"])
    with pytest.warns(UserWarning, match="additionally merging two"):
        model.merge_adapter(["two"])
    one_by_one = [layer.weight.clone() for layer in layers(model)]
    torch.testing.assert_close(logits(model), together, rtol=1e-4, atol=1e-4)
    model.unmerge_adapter()
    model.merge_adapter(["one", "two"])
    for layer, weight in zip(layers(model), one_by_one, strict=True):
        assert torch.equal(layer.weight, weight)


def test_a_merged_adapter_is_disabled_by_unmerging() -> None:
    model = adapted()
    model.merge_adapter()
    with model.disable_adapter():
        assert torch.equal(logits(model), logits(make_model()))


def test_a_merge_of_broken_vectors_is_refused() -> None:
    model = adapted()
    with torch.no_grad():
        layers(model)[3].osora_delta["default"][0] = math.nan
    with pytest.raises(ValueError, match=r"NaNs .* merged weights\. The adapter default seems"):
        model.merge_and_unload(safe_merge=True)


def test_several_active_adapters_add_up() -> None:
    model = adapted("llama", torch.float64, "one", "two")
    updates = [[layer.get_delta_weight(name) for name in ("one", "two")] for layer in layers(model)]
    model.base_model.set_adapter(["one", "two"])
    both = logits(model)
    plain = model.unload()
    targets = [m for n, m in plain.named_modules() if isinstance(m, nn.Linear) and n != "lm_head"]
    for linear, (one, two) in zip(targets, updates, strict=True):
        linear.weight.data += one + two
    torch.testing.assert_close(logits(plain), both, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_every_row_may_have_another_adapter(kind: str) -> None:
    model = adapted(kind, torch.float32, "one", "two", "three")
    tokens = make_tokens(5)
    names = ["two", "__base__", "one", "three", "two"]
    mixed = logits(model, tokens, adapter_names=names)
    for row, name in enumerate(names):
        if name == "__base__":
            expected = logits(make_model(kind), tokens)
        else:
            model.set_adapter(name)
            expected = logits(model, tokens)
        torch.testing.assert_close(mixed[row], expected[row], rtol=1e-4, atol=1e-4)


def test_rows_of_adapters_on_different_modules_mix() -> None:
    model = adapted("llama", torch.float32, "one", target_modules=["q_proj"])
    model.add_adapter("two", OsoraConfig(r=4, init_weights=False, target_modules=["up_proj", "q_proj"]))
    mixed = logits(model, adapter_names=["one", "two", "one"])
    torch.testing.assert_close(mixed[0], logits(model)[0], rtol=1e-4, atol=1e-4)
    model.set_adapter("two")
    torch.testing.assert_close(mixed[1], logits(model)[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", [{"do_sample": False}, {"num_beams": 2}])
def test_generating_with_mixed_rows_gives_what_each_adapter_gives(options: dict[str, Any]) -> None:
    model = adapted("llama", torch.float32, "one", "two")
    settings = {"max_new_tokens": 4, "pad_token_id": 0, **options}
    mixed = model.generate(input_ids=TOKENS, adapter_names=["one", "two", "one"], **settings)
    for name, row in (("one", 0), ("two", 1)):
        model.set_adapter(name)
        alone = model.generate(input_ids=TOKENS[row : row + 1], **settings)
        assert torch.equal(mixed[row], alone[0])


@pytest.mark.parametrize(
    ("names", "message"),
    [(["default", "nobody", "default"], "nobody"), (["default", "default"], "2 and 3 respectively")],
)
def test_wrong_adapter_names_are_refused(names: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        logits(adapted(), adapter_names=names)


def test_mixed_rows_are_for_inference() -> None:
    model = adapted()
    with pytest.raises(UserError, match="in training mode") as refused:
        model.train()(input_ids=TOKENS, adapter_names=["default"] * 3)
    assert "eval" in str(refused.value.next_action)
    model.eval().merge_adapter()
    with pytest.raises(UserError, match="unmerge"):
        model(input_ids=TOKENS, adapter_names=["default"] * 3)


def test_a_copy_is_a_copy() -> None:
    model = adapted("llama", torch.float32, "one", "two")
    copied = copy.deepcopy(model)
    with torch.no_grad():
        for layer in layers(copied):
            layer.osora_delta["two"].zero_()
    model.set_adapter("two")
    copied.set_adapter("two")
    assert not torch.equal(logits(model), logits(copied))


def test_it_converts_to_lora_as_peft_does() -> None:
    assert adapted().supports_lora_conversion()


def test_the_trainer_trains_saves_and_resumes(tmp_path: Path) -> None:
    rows = [{"input_ids": row, "labels": row} for row in make_tokens(16)]

    def train(steps: int, resume: str | None = None) -> PeftModel:
        arguments = TrainingArguments(
            output_dir=str(tmp_path), max_steps=steps, per_device_train_batch_size=4, learning_rate=0.02,
            lr_scheduler_type="constant", save_steps=2, report_to=[], use_cpu=True, disable_tqdm=True, seed=1,
            logging_strategy="no", dataloader_pin_memory=False,
        )  # fmt: skip
        model = adapted("llama", torch.float32, init_weights=True)
        Trainer(model=model, args=arguments, train_dataset=rows).train(resume_from_checkpoint=resume)
        return model.eval()

    whole = train(4)
    assert not torch.allclose(logits(whole), logits(make_model()), atol=1e-3)
    again = train(4, resume=str(tmp_path / "checkpoint-2"))
    torch.testing.assert_close(logits(again), logits(whole), rtol=1e-4, atol=1e-4)
    loaded = PeftModel.from_pretrained(make_model(), tmp_path / "checkpoint-4")
    torch.testing.assert_close(logits(loaded), logits(whole), rtol=1e-5, atol=1e-5)
