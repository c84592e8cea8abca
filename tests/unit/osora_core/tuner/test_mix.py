"""Adapters with a mix, an extension of ours, through PEFT's own functions."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor, nn

from osora_core import OsoraConfig
from osora_core.adapter import Adapter
from osora_core.bank import Bank
from osora_core.basis import BasisCache
from osora_core.errors import CorruptArtifact, UserError
from osora_core.linear import use_slots
from osora_core.mix import mix_length
from osora_core.runtime import Runtime
from osora_core.tuner import OsoraTunerLinear
from tests.support.tiny_base import make_base
from tests.support.tiny_models import KINDS, make_model, make_tokens

TOKENS = make_tokens()


def config(**options: Any) -> OsoraConfig:
    return OsoraConfig(**{"r": 8, "mix": 4, "task_type": "CAUSAL_LM", "init_weights": False, **options})


def layers(model: nn.Module) -> dict[str, OsoraTunerLinear]:
    return {name: module for name, module in model.named_modules() if isinstance(module, OsoraTunerLinear)}


def logits(model: nn.Module, **kwargs: Any) -> Tensor:
    with torch.no_grad():
        result: Tensor = model(input_ids=TOKENS, **kwargs).logits
    return result


def dense(model: PeftModel, plain: nn.Module, name: str = "default") -> nn.Module:
    """`plain` with every adapted weight written out as W0 + diag(o) U (diag(s) + C) V^T - U diag(s0) V^T."""
    for key, layer in layers(model.base_model.model).items():
        sigma, delta = (part[name].detach().double() for part in (layer.osora_sigma, layer.osora_delta))
        rank = len(sigma)
        U, S, Vt = layer.U[:, :rank].double(), layer.S[:rank].double(), layer.Vt[:rank].double()
        inner = (S + sigma).diag()
        if name in layer.osora_mix:
            C = layer.osora_mix[name].detach().double()
            inner[: len(C), : len(C)] += C
        update = (1 + delta).diag() @ U @ inner @ Vt - U @ S.diag() @ Vt
        target: Any = plain.get_submodule(key)
        target.weight.data += (update if isinstance(target, nn.Linear) else update.T).to(target.weight.dtype)
    return plain


@pytest.mark.parametrize("kind", KINDS)
def test_it_begins_as_the_base_and_does_what_its_dense_weight_does(kind: str) -> None:
    model = get_peft_model(make_model(kind), config(init_weights=True))
    assert torch.equal(logits(model), logits(make_model(kind)))
    model = get_peft_model(make_model(kind, torch.float64), config())
    oracle = logits(dense(model, make_model(kind, torch.float64)))
    torch.testing.assert_close(logits(model), oracle, rtol=1e-5, atol=1e-5)
    bare = {name: part.data.clone() for name, part in model.named_parameters() if "osora_mix" in name}
    assert bare
    merged = model.merge_and_unload()
    torch.testing.assert_close(logits(merged), oracle, rtol=1e-5, atol=1e-5)


def test_c_trains_beside_the_vectors_whatever_else_trains() -> None:
    for train, learning in (("both", {"sigma", "delta", "mix"}), ("s", {"sigma", "mix"}), ("o", {"delta", "mix"})):
        model = get_peft_model(make_model(), config(train=train))
        model(input_ids=TOKENS, labels=TOKENS).loss.backward()
        found = {name.split("osora_")[1].split(".")[0] for name, p in model.named_parameters() if p.grad is not None}
        assert found == learning


@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_saved_one_comes_back_exactly(dtype: torch.dtype, low_cpu_mem_usage: bool, tmp_path: Path) -> None:
    saved = get_peft_model(make_model("llama", dtype), config())
    saved.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (written["mix"], written["format_version"]) == (4, 2)
    loaded = PeftModel.from_pretrained(make_model("llama", dtype), tmp_path, low_cpu_mem_usage=low_cpu_mem_usage)
    assert torch.equal(logits(loaded), logits(saved))
    for name, layer in layers(loaded).items():
        assert layer.osora_mix["default"].dtype == torch.float32
        assert torch.equal(layer.osora_mix["default"], layers(saved)[name].osora_mix["default"])
    loaded.save_pretrained(tmp_path / "again")
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        first, again = ((folder / file).read_bytes() for folder in (tmp_path, tmp_path / "again"))
        assert first == again or file == "adapter_config.json"  # which says that it is for inference


def test_without_a_mix_the_files_have_nothing_of_it(tmp_path: Path) -> None:
    get_peft_model(make_model(), config(mix=0)).save_pretrained(tmp_path)
    assert not {"mix", "format_version"} & json.loads((tmp_path / "adapter_config.json").read_text()).keys()


def test_peft_and_the_service_read_each_others(cache_directory: Path, tmp_path: Path) -> None:
    path = make_base(tmp_path / "base")
    runtime = Runtime.load("small", BasisCache(cache_directory), path=str(path), device="cpu", rank=128)

    def plain() -> Any:
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)

    def served(adapter: Adapter) -> Tensor:
        bank = Bank(runtime.basis, 1, device=runtime.device)
        bank.write(1, adapter.to_row(runtime.basis), adapter.rank, adapter.mix_size)
        with torch.no_grad(), use_slots(bank, torch.ones(len(TOKENS), dtype=torch.long)):
            return runtime.logits(runtime.hidden_states(TOKENS))

    length = runtime.basis.row_length + mix_length(runtime.basis.spans, 4)
    row = 0.1 * torch.randn(length, generator=torch.Generator().manual_seed(2))
    adapter = Adapter.from_row(row, runtime.basis, rank=8, modules={"q_proj", "up_proj"}, base="small", mix=4)
    adapter.save(tmp_path / "ours")
    loaded = PeftModel.from_pretrained(plain(), tmp_path / "ours")
    torch.testing.assert_close(logits(loaded), served(adapter), rtol=1e-5, atol=1e-5)
    loaded.save_pretrained(tmp_path / "again", save_embedding_layers=False)
    again = Adapter.load(tmp_path / "again")
    assert torch.equal(again.to_row(runtime.basis), adapter.to_row(runtime.basis))

    model = get_peft_model(plain(), config(layers_to_transform=[1]))
    model.save_pretrained(tmp_path / "theirs")
    theirs = Adapter.load(tmp_path / "theirs")
    assert theirs.mix_size == 4
    torch.testing.assert_close(logits(model), served(theirs), rtol=1e-5, atol=1e-5)


def test_each_row_of_a_batch_goes_through_its_own_adapter_with_a_mix_or_without() -> None:
    model = get_peft_model(make_model(), config(), adapter_name="mixed").eval()
    for name, options in (("bare", {"mix": 0}), ("other", {"mix": 4}), ("small", {"mix": 2, "r": 6})):
        model.add_adapter(name, config(**options))
    names = ["mixed", "__base__", "small", "bare", "other", "mixed"]
    tokens = TOKENS[:1].expand(len(names), -1)
    with torch.no_grad():
        together = model(input_ids=tokens, adapter_names=names).logits
        for row, name in enumerate(names):
            if name == "__base__":
                with model.disable_adapter():
                    alone = model(input_ids=tokens[:1]).logits
            else:
                model.set_adapter(name)
                alone = model(input_ids=tokens[:1]).logits
            torch.testing.assert_close(together[row], alone[0], rtol=1e-4, atol=1e-4)


def test_a_weighted_sum_of_mixes_is_the_sum_of_their_updates() -> None:
    """Without delta it is so exactly. A smaller mix is a corner of the larger, and no mix is zero."""
    model = get_peft_model(make_model(), config(), adapter_name="one")
    model.add_adapter("two", config(mix=2))
    model.add_adapter("three", config(mix=0))
    for layer in layers(model).values():
        for name in ("one", "two", "three"):
            layer.osora_delta[name].data.zero_()
    model.base_model.add_weighted_adapter(["three", "two", "one"], [0.5, 0.25, -1.0], "sum")
    assert model.peft_config["sum"].mix == 4
    for layer in layers(model).values():
        expected = (
            0.5 * layer.get_delta_weight("three") + 0.25 * layer.get_delta_weight("two") - layer.get_delta_weight("one")
        )
        torch.testing.assert_close(layer.get_delta_weight("sum"), expected, rtol=1e-4, atol=1e-5)


def test_what_a_checkpoint_lacks_of_a_mix_or_has_too_much_is_refused() -> None:
    mixed, bare = get_peft_model(make_model(), config()), get_peft_model(make_model(), config(mix=0))
    stored = get_peft_model_state_dict(mixed)
    assert len([name for name in stored if name.endswith("osora_mix")]) == len(layers(mixed))
    with pytest.raises(CorruptArtifact, match=r"beyond what its config names, .*osora_mix"):
        set_peft_model_state_dict(bare, stored)
    with pytest.raises(CorruptArtifact, match=r"lacks .*osora_mix"):
        set_peft_model_state_dict(mixed, get_peft_model_state_dict(bare))
    smaller = get_peft_model(make_model(), config(mix=3))
    with pytest.raises(CorruptArtifact, match=r"osora_mix has shape \(4, 4\), this base wants \(3, 3\)"):
        set_peft_model_state_dict(smaller, stored)


@pytest.mark.parametrize(("options", "says"), [({"mix": 9}, "choose 0 to 8"), ({"mix": -1}, "choose 0 to 8"),
                                               ({"mix": 2.0}, "choose 0 to 8"),
                                               ({"format_version": 3}, "later version")])  # fmt: skip
def test_a_config_that_cannot_be_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as refused:
        config(**options)
    assert says in str(refused.value.next_action)
