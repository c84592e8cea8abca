"""`add_weighted_adapter`: what it sums, what is exact, what it refuses."""

from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model
from torch import Tensor, nn

from osora_core import OsoraConfig
from osora_core.errors import UserError
from osora_core.tuner import OsoraTunerLinear
from tests.support.tiny_models import make_model


def adapted(*options: dict[str, Any]) -> PeftModel:
    """A model with the adapters "0", "1" and so on, of these options."""
    configs = [OsoraConfig(**{"r": 8, "init_weights": False, **each}) for each in options]
    for each in configs:
        if each.train == "s" or each.train == "o":
            each.init_weights = True
    model = get_peft_model(make_model(), configs[0], adapter_name="0")
    for index, each in enumerate(configs[1:], start=1):
        model.add_adapter(str(index), each)
    with torch.no_grad():
        for layer in layers(model).values():
            for index, each in enumerate(configs):
                for vectors, part in ((layer.osora_sigma, "s"), (layer.osora_delta, "o")):
                    if str(index) in vectors and each.train == part:
                        vectors[str(index)].normal_()
    return model


def layers(model: nn.Module) -> dict[str, OsoraTunerLinear]:
    return {name: module for name, module in model.named_modules() if isinstance(module, OsoraTunerLinear)}


def update(layer: OsoraTunerLinear, name: str) -> Tensor:
    if name in layer.osora_sigma:
        return layer.get_delta_weight(name)
    return torch.zeros(layer.out_features, layer.in_features)


def test_a_linear_combination_sums_the_vectors() -> None:
    model = adapted({}, {})
    model.add_weighted_adapter(["0", "1"], [0.5, -2.0], "sum")
    for layer in layers(model).values():
        for vectors in (layer.osora_sigma, layer.osora_delta):
            assert torch.allclose(vectors["sum"], 0.5 * vectors["0"] - 2.0 * vectors["1"])
    assert model.peft_config["sum"].r == 8
    assert model.active_adapters == ["0"]


@pytest.mark.parametrize("train", ["s", "o"])
def test_adapters_that_train_one_vector_sum_exactly(train: str) -> None:
    model = adapted({"train": train}, {"train": train})
    model.add_weighted_adapter(["0", "1"], [0.5, 1.5], "sum")
    for layer in layers(model).values():
        torch.testing.assert_close(update(layer, "sum"), 0.5 * update(layer, "0") + 1.5 * update(layer, "1"))
    assert model.peft_config["sum"].train == train


def test_small_adapters_sum_up_to_the_product_of_their_vectors() -> None:
    """The error of a linear combination is of second order: a tenth of the vectors, a hundredth of the error."""

    def error(scale: float) -> float:
        torch.manual_seed(7)
        model = adapted({}, {})
        layer = next(iter(layers(model).values()))
        with torch.no_grad():
            for vectors in (layer.osora_sigma, layer.osora_delta):
                for name in ("0", "1"):
                    vectors[name].mul_(scale)
        model.add_weighted_adapter(["0", "1"], [0.5, 0.5], "sum")
        exact = (layer.get_delta_weight("0") + layer.get_delta_weight("1")) / 2
        return float((layer.get_delta_weight("sum") - exact).norm())

    assert error(0.1) == pytest.approx(0.01 * error(1.0), rel=0.01)


def test_adapters_of_different_modules_make_one_of_both(tmp_path: Any) -> None:
    model = adapted({"target_modules": ["q_proj"]}, {"target_modules": r".*layers\.1\.mlp\..*_proj"})
    model.add_weighted_adapter(["0", "1"], [1.0, 1.0], "sum")
    for layer in layers(model).values():
        torch.testing.assert_close(update(layer, "sum"), update(layer, "0") + update(layer, "1"))
    model.save_pretrained(tmp_path, selected_adapters=["sum"])
    loaded = PeftModel.from_pretrained(make_model(), tmp_path / "sum")
    assert layers(loaded).keys() == layers(model).keys()


@pytest.mark.parametrize("kind", ["ties", "dare_linear", "dare_ties", "magnitude_prune"])
def test_the_other_combinations_keep_a_part_of_the_values(kind: str) -> None:
    model = adapted({}, {})
    model.add_weighted_adapter(["0", "1"], [1.0, 1.0], "sparse", combination_type=kind, density=0.25)
    model.add_weighted_adapter(["0", "1"], [1.0, 1.0], "full")
    delta = torch.cat([layer.osora_delta["sparse"] for layer in layers(model).values()])
    assert 0.05 < delta.count_nonzero() / delta.numel() < 0.55
    model.set_adapter("sparse")
    assert sum("sparse" in name for name, p in model.named_parameters() if p.requires_grad) == 28


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"combination_type": "cat"}, "'cat'"),
        ({"combination_type": "svd"}, "'svd'"),
        ({"combination_type": "ties"}, "density cannot be None"),
        ({"combination_type": "ties", "density": 1.5}, "density cannot be 1.5"),
        ({"combination_type": "ties", "density": 0.5, "majority_sign_method": "loudest"}, "'loudest'"),
        ({"adapters": ["0", "nobody"]}, "no adapter nobody"),
        ({"adapters": [], "weights": []}, "0 adapters"),
        ({"weights": [1.0]}, "1 weights for 2 adapters"),
        ({"adapter_name": "1"}, "1 already"),
        ({"adapters": ["0", "2"]}, "lm_head"),
        ({"adapters": ["0", "3"]}, r"different r \(4, 8\)"),
    ],
)
def test_what_cannot_be_combined_is_refused(arguments: dict[str, Any], message: str) -> None:
    model = adapted({}, {}, {"modules_to_save": ["lm_head"]}, {"r": 4})
    with pytest.raises(ValueError, match=message) as refused:
        model.add_weighted_adapter(
            **{"adapters": ["0", "1"], "weights": [1.0, 1.0], "adapter_name": "sum", **arguments}
        )
    assert isinstance(refused.value, UserError)
    assert refused.value.next_action
    assert list(model.peft_config) == ["0", "1", "2", "3"]
