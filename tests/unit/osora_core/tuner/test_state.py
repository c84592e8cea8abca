"""What PEFT stores and loads beside plain adapters: injected and sharded models, modules that are saved whole."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from peft import (
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    inject_adapter_in_model,
    set_peft_model_state_dict,
)
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel, ShardingStrategy

from osora_core import OsoraConfig
from osora_core.adapter import Adapter
from osora_core.errors import CorruptArtifact, IdentityMismatch
from osora_core.tuner import OsoraTunerLinear
from tests.support.tiny_models import KINDS, make_model, make_tokens

TOKENS = make_tokens()


def config(**options: Any) -> OsoraConfig:
    return OsoraConfig(**{"r": 8, "init_weights": False, **options})


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        result: Tensor = model(input_ids=TOKENS).logits
    return result


def layers(model: nn.Module) -> dict[str, OsoraTunerLinear]:
    return {name: module for name, module in model.named_modules() if isinstance(module, OsoraTunerLinear)}


@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
@pytest.mark.parametrize("wrapped", [False, True])
def test_an_injected_adapter_loads_where_it_came_from_and_in_a_peft_model(
    wrapped: bool, low_cpu_mem_usage: bool
) -> None:
    saved = inject_adapter_in_model(config(), make_model())
    state = get_peft_model_state_dict(saved)
    assert len(state) == 28
    assert all(key.startswith("model.layers.") for key in state)
    if wrapped:
        loaded: nn.Module = get_peft_model(make_model(), config(), low_cpu_mem_usage=low_cpu_mem_usage)
    else:
        loaded = inject_adapter_in_model(config(), make_model(), low_cpu_mem_usage=low_cpu_mem_usage)
    assert any(p.is_meta for p in loaded.parameters()) == low_cpu_mem_usage
    outcome = set_peft_model_state_dict(loaded, state, low_cpu_mem_usage=low_cpu_mem_usage)
    assert not outcome.unexpected_keys
    assert torch.equal(logits(loaded.eval()), logits(saved.eval()))


def test_an_adapter_of_a_peft_model_loads_into_an_injected_one() -> None:
    saved = get_peft_model(make_model(), config())
    loaded = inject_adapter_in_model(config(), make_model())
    set_peft_model_state_dict(loaded, get_peft_model_state_dict(saved))
    assert torch.equal(logits(loaded.eval()), logits(saved.eval()))


def test_adapters_that_are_injected_one_by_one_share_a_basis() -> None:
    """As transformers' own `add_adapter` does it: nothing of the first but the model itself is there for the second."""
    model = inject_adapter_in_model(config(), make_model(), adapter_name="one")
    first = {name: layer.U.data_ptr() for name, layer in layers(model).items()}
    with pytest.warns(UserWarning, match="multiple adapters"):
        inject_adapter_in_model(config(r=4, target_modules=["q_proj"]), model, adapter_name="two")
    assert {name: layer.U.data_ptr() for name, layer in layers(model).items()} == first
    assert sum("two" in layer.osora_sigma for layer in layers(model).values()) == 2


def test_a_compiled_base_is_the_same_base(tmp_path: Path) -> None:
    saved = get_peft_model(make_model(), config(task_type="CAUSAL_LM"))
    saved.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(torch.compile(make_model(), backend="eager"), tmp_path)
    assert len(layers(loaded)) == 14
    for name, layer in layers(saved).items():
        same = layers(loaded)[name.replace("base_model.model.", "base_model.model._orig_mod.")]
        assert torch.equal(same.osora_sigma["default"], layer.osora_sigma["default"])
    again = get_peft_model(make_model(), config())
    set_peft_model_state_dict(again, get_peft_model_state_dict(loaded))
    assert torch.equal(logits(again), logits(saved))


@pytest.fixture
def one_process() -> Any:
    """A process group of this process alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore:.*NO_SHARD")
@pytest.mark.skipif(not dist.is_available(), reason="torch without distributed")
def test_a_sharded_model_gives_and_takes_whole_vectors(one_process: None) -> None:
    saved = sharded(get_peft_model(make_model(), config()))
    expected, state = logits(saved), get_peft_model_state_dict(saved)
    assert len(state) == 28
    assert all(key.startswith("base_model.model.model.layers.") for key in state)
    for loaded in (get_peft_model(make_model(), config()), sharded(get_peft_model(make_model(), config()))):
        set_peft_model_state_dict(loaded, state)
        assert torch.equal(logits(loaded), expected)


def sharded(model: nn.Module) -> nn.Module:
    whole = ShardingStrategy.NO_SHARD  # all that one process can have; the names are those of the other strategies
    return FullyShardedDataParallel(model, sharding_strategy=whole, use_orig_params=True, device_id=torch.device("cpu"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_says_its_sizes(kind: str) -> None:
    model = make_model(kind)
    adapted = get_peft_model(model, config())
    for name, layer in layers(adapted.base_model.model).items():
        weight = make_model(kind).get_submodule(name).weight
        assert isinstance(weight, Tensor)
        sizes = (layer.out_features, layer.in_features)
        assert sizes == (tuple(weight.shape) if kind != "gpt2" else tuple(reversed(weight.shape)))
        assert layer.get_delta_weight("default").shape == weight.shape


def test_modules_to_save_train_and_travel_whole(tmp_path: Path) -> None:
    options = {"target_modules": "all-linear", "modules_to_save": ["lm_head", "down_proj"], "task_type": "CAUSAL_LM"}
    model = get_peft_model(make_model(), config(**options))
    assert not any("down_proj" in name for name in layers(model))
    trained = [p for name, p in model.named_parameters() if p.requires_grad and ".modules_to_save." in name]
    assert len(trained) == 3
    with torch.no_grad():
        for parameter in trained:
            parameter.mul_(1.5)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(make_model(), tmp_path)
    assert torch.equal(logits(loaded), logits(model))
    with loaded.disable_adapter():
        assert torch.equal(logits(loaded), logits(make_model()))
    with pytest.raises(CorruptArtifact, match="modules_to_save is for PEFT alone"):
        Adapter.load(tmp_path)


def test_what_another_adapter_saves_whole_is_no_target() -> None:
    model = get_peft_model(make_model(), config(target_modules=["q_proj"], modules_to_save=["down_proj"]))
    model.add_adapter("fits", config(target_modules=["q_proj", "up_proj"]))
    with pytest.raises(ValueError, match=r"down_proj is saved whole by another adapter"):
        model.add_adapter("other", config(target_modules=["q_proj", "down_proj"]))


def test_transformers_loads_an_adapter_by_itself(tmp_path: Path) -> None:
    saved = get_peft_model(make_model(), config(task_type="CAUSAL_LM"))
    saved.save_pretrained(tmp_path)
    model = make_model()
    model.load_adapter(str(tmp_path))
    assert torch.equal(logits(model), logits(saved))


def test_what_neither_the_config_nor_the_model_names_is_refused(tmp_path: Path) -> None:
    get_peft_model(make_model(), config(task_type="CAUSAL_LM")).save_pretrained(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    save_file({**load_file(file), "base_model.model.extra.weight": torch.ones(2)}, file)
    with pytest.raises(CorruptArtifact, match=r"beyond what its config names, extra\.weight"):
        PeftModel.from_pretrained(make_model(), tmp_path)


def test_an_adapter_of_another_base_is_a_wrong_argument(tmp_path: Path) -> None:
    get_peft_model(make_model(), config(task_type="CAUSAL_LM")).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="this is base") as refused:
        PeftModel.from_pretrained(make_model(seed=5), tmp_path)
    assert isinstance(refused.value, IdentityMismatch)
