"""Quantised bases: either exactly what their dequantised weights give, or refused."""

from types import SimpleNamespace

import pytest
import torch
from peft import get_peft_model
from torch import Tensor, nn
from transformers import PreTrainedModel

from osora_core import OsoraConfig
from osora_core.errors import UserError
from osora_core.tuner import OsoraTunerLinear
from osora_core.weights import dense_weight, find_targets, fingerprint_base
from tests.support.tiny_models import make_model, make_tokens

TOKENS = make_tokens()


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        result: Tensor = model(input_ids=TOKENS).logits
    return result


def with_torchao(scheme: str) -> PreTrainedModel:
    quantization = pytest.importorskip("torchao.quantization")
    model = make_model()
    targets = set(find_targets(model, "all-linear").values())
    config = {"int8": "Int8WeightOnlyConfig", "int8-dynamic": "Int8DynamicActivationInt8WeightConfig"}[scheme]
    quantization.quantize_(model, getattr(quantization, config)(), filter_fn=lambda module, _: module in targets)
    return model


def with_bitsandbytes(bits: int) -> PreTrainedModel:
    bnb = pytest.importorskip("bitsandbytes", reason="bitsandbytes is large; it is tried where it is installed")
    model = make_model()
    for name, module in find_targets(model, "all-linear").items():
        assert isinstance(module, nn.Linear)
        weight = module.weight.data
        if bits == 8:
            made = bnb.nn.Linear8bitLt(*reversed(weight.shape), bias=False, has_fp16_weights=False, threshold=0.0)
            made.weight = bnb.nn.Int8Params(weight, requires_grad=False, has_fp16_weights=False)
            made.weight._quantize("cpu")
        else:
            made = bnb.nn.Linear4bit(*reversed(weight.shape), bias=False, compute_dtype=torch.float32)
            made.weight = bnb.nn.Params4bit(weight, requires_grad=False)
            made = made.to("cpu")
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, made)
    return model


BASES = {
    "torchao int8": lambda: with_torchao("int8"),
    "torchao int8 dynamic": lambda: with_torchao("int8-dynamic"),
    "bitsandbytes int8": lambda: with_bitsandbytes(8),
    "bitsandbytes 4-bit": lambda: with_bitsandbytes(4),
}


@pytest.mark.parametrize("kind", BASES)
def test_an_adapter_on_a_quantised_base_adds_its_dense_update(kind: str) -> None:
    """The base answers with its own kernels; each layer's update is that of the weights it stands for."""
    model = BASES[kind]()
    dense = {name: dense_weight(module).clone() for name, module in find_targets(model, "all-linear").items()}
    adapted = get_peft_model(model, OsoraConfig(r=8, init_weights=False))
    for name, layer in adapted.base_model.model.named_modules():
        if not isinstance(layer, OsoraTunerLinear):
            continue
        U, S, Vt = (part.double() for part in (layer.U, layer.S, layer.Vt))
        exact = torch.linalg.svdvals(dense[name].double())
        torch.testing.assert_close(S, exact[: len(S)], rtol=1e-3, atol=1e-4)
        torch.testing.assert_close((U * S) @ Vt, dense[name].double(), rtol=0, atol=1e-4)
        x = torch.randn(2, 3, dense[name].shape[1], generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            update = layer(x) - layer.base_layer(x)
        expected = x @ layer.get_delta_weight("default").T
        torch.testing.assert_close(update, expected, rtol=1e-4, atol=1e-4)
    assert (logits(adapted) - logits(adapted.unload())).abs().max() > 0.1


@pytest.mark.parametrize("kind", BASES)
def test_an_adapter_on_a_quantised_base_trains(kind: str) -> None:
    model = get_peft_model(BASES[kind](), OsoraConfig(r=8))
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.03)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = model(input_ids=TOKENS, labels=TOKENS).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]


@pytest.mark.parametrize("kind", BASES)
def test_merging_into_a_quantised_base_is_refused(kind: str) -> None:
    model = get_peft_model(BASES[kind](), OsoraConfig(r=8, init_weights=False))
    with pytest.raises(UserError, match="quantised"):
        model.merge_and_unload()


@pytest.mark.parametrize("kind", BASES)
def test_a_quantised_base_is_another_base(kind: str) -> None:
    assert fingerprint_base(BASES[kind]()) != fingerprint_base(make_model())
    assert fingerprint_base(BASES[kind]()) == fingerprint_base(BASES[kind]())


def test_a_scale_kept_elsewhere_is_not_overlooked() -> None:
    """A float8 linear looks like one in floating point, and its numbers mean nothing without their scales."""
    model = make_model()
    layer = model.get_submodule("model.layers.0.mlp.up_proj")
    assert isinstance(layer, nn.Linear)
    layer.weight = nn.Parameter(layer.weight.data.to(torch.float8_e4m3fn), requires_grad=False)
    with pytest.raises(UserError, match="float8"):
        get_peft_model(model, OsoraConfig(r=8))


def test_an_integer_linear_of_another_scheme_is_refused() -> None:
    model = make_model()
    layer = model.get_submodule("model.layers.0.mlp.up_proj")
    assert isinstance(layer, nn.Linear)
    layer.weight = nn.Parameter(torch.zeros(layer.weight.shape, dtype=torch.int8), requires_grad=False)
    with pytest.raises(UserError, match="int8") as refused:
        get_peft_model(model, OsoraConfig(r=8))
    assert refused.value.next_action


def test_a_scheme_that_hides_its_weights_is_refused() -> None:
    model = make_model()
    model.config.quantization_config = SimpleNamespace(quant_method="gptq", to_dict=dict)
    with pytest.raises(UserError, match="gptq"):
        get_peft_model(model, OsoraConfig(r=8))


def test_a_base_that_is_not_in_memory_is_refused() -> None:
    with torch.device("meta"):
        model = make_model()
    with pytest.raises(UserError, match="meta"):
        get_peft_model(model, OsoraConfig(r=8))
