"""OSoRA through PEFT's own functions: what an adapter does, what its options do, how it is stored and refused."""

import gc
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model
from torch import Tensor, nn

from osora_core import OsoraConfig
from osora_core import basis as basis_module
from osora_core.adapter import Adapter
from osora_core.bank import Bank
from osora_core.basis import BasisCache, Factors
from osora_core.errors import CorruptArtifact, IdentityMismatch, UserError
from osora_core.linear import use_slots
from osora_core.operator import merged_weight
from osora_core.runtime import Runtime
from osora_core.tuner import OsoraTunerLinear
from osora_core.weights import find_targets, fingerprint_base
from tests.support.tiny_base import make_base
from tests.support.tiny_models import KINDS, make_model, make_tokens

TOKENS = make_tokens()


def config(**options: Any) -> OsoraConfig:
    return OsoraConfig(**{"r": 8, "task_type": "CAUSAL_LM", "init_weights": False, **options})


def layers(model: nn.Module) -> dict[str, OsoraTunerLinear]:
    return {name: module for name, module in model.named_modules() if isinstance(module, OsoraTunerLinear)}


def logits(model: nn.Module, **kwargs: Any) -> Tensor:
    with torch.no_grad():
        result: Tensor = model(input_ids=TOKENS, **kwargs).logits
    return result


def dense(model: PeftModel, plain: nn.Module, name: str = "default") -> nn.Module:
    """`plain` with every adapted weight written out as W0 + diag(o) U diag(s) V^T - U diag(s0) V^T."""
    for key, layer in layers(model.base_model.model).items():
        rank = layer.osora_sigma[name].shape[0]
        U, S, Vt = layer.U[:, :rank].double(), layer.S[:rank].double(), layer.Vt[:rank].double()
        s, o = S + layer.osora_sigma[name].detach().double(), 1 + layer.osora_delta[name].detach().double()
        update = o.diag() @ U @ s.diag() @ Vt - U @ S.diag() @ Vt
        target = plain.get_submodule(key)
        assert isinstance(target.weight, nn.Parameter)
        target.weight.data += (update if isinstance(target, nn.Linear) else update.T).to(target.weight.dtype)
    return plain


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_adapter_is_the_base_bit_for_bit(kind: str) -> None:
    model = get_peft_model(make_model(kind), config(init_weights=True, target_modules="all-linear"))
    assert torch.equal(logits(model), logits(make_model(kind)))
    assert list(layers(model.base_model.model)) == list(find_targets(make_model(kind), "all-linear"))


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_does_what_its_dense_weight_does(kind: str) -> None:
    model = get_peft_model(make_model(kind, torch.float64), config())
    oracle = logits(dense(model, make_model(kind, torch.float64)))
    assert (oracle - logits(make_model(kind, torch.float64))).abs().max() > 0.1
    torch.testing.assert_close(logits(model), oracle, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
@pytest.mark.parametrize(("kind", "dtype"), [(kind, torch.float32) for kind in KINDS] + [("llama", torch.bfloat16)])
def test_a_saved_adapter_comes_back_exactly(
    kind: str, dtype: torch.dtype, low_cpu_mem_usage: bool, tmp_path: Path
) -> None:
    saved = get_peft_model(make_model(kind, dtype), config())
    saved.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(make_model(kind, dtype), tmp_path, low_cpu_mem_usage=low_cpu_mem_usage)
    assert torch.equal(logits(loaded), logits(saved))
    for name, layer in layers(loaded).items():
        for vectors in (layer.osora_sigma, layer.osora_delta):
            assert vectors["default"].dtype == torch.float32
            assert not vectors["default"].requires_grad
        original = layers(saved)[name]
        assert torch.equal(layer.osora_sigma["default"], original.osora_sigma["default"])
        assert torch.equal(layer.osora_delta["default"], original.osora_delta["default"])


def test_equal_adapters_have_equal_files(tmp_path: Path) -> None:
    model = get_peft_model(make_model(), config())
    for name in ("one", "two"):
        model.save_pretrained(tmp_path / name)
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


@pytest.fixture(scope="module")
def service(cache_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Runtime, Path]:
    """A base as the service runs it, on the cache that the tuner uses."""
    path = make_base(tmp_path_factory.mktemp("bases") / "small")
    return Runtime.load("small", BasisCache(cache_directory), path=str(path), device="cpu", rank=128), path


def service_logits(runtime: Runtime, adapter: Adapter) -> Tensor:
    bank = Bank(runtime.basis, 1, device=runtime.device)
    bank.write(1, adapter.to_row(runtime.basis), adapter.rank)
    with torch.no_grad(), use_slots(bank, torch.ones(len(TOKENS), dtype=torch.long)):
        return runtime.logits(runtime.hidden_states(TOKENS))


def plain_base(path: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)


def test_an_adapter_of_the_service_loads_in_peft(service: tuple[Runtime, Path], tmp_path: Path) -> None:
    runtime, path = service
    row = 0.1 * torch.randn(runtime.basis.row_length, generator=torch.Generator().manual_seed(2))
    adapter = Adapter.from_row(row, runtime.basis, rank=8, modules={"q_proj", "up_proj"}, base="small")
    adapter.save(tmp_path)
    loaded = PeftModel.from_pretrained(plain_base(path), tmp_path)
    assert len(layers(loaded)) == 4
    torch.testing.assert_close(logits(loaded), service_logits(runtime, adapter), rtol=1e-5, atol=1e-5)
    # "small" is no path and no hub id: PEFT need not look there for resized embeddings.
    loaded.save_pretrained(tmp_path / "again", save_embedding_layers=False)
    assert torch.equal(Adapter.load(tmp_path / "again").to_row(runtime.basis), adapter.to_row(runtime.basis))


def test_an_adapter_of_peft_loads_in_the_service(service: tuple[Runtime, Path], tmp_path: Path) -> None:
    runtime, path = service
    model = get_peft_model(plain_base(path), config(layers_to_transform=[1], train="o"))
    model.save_pretrained(tmp_path)
    adapter = Adapter.load(tmp_path)
    torch.testing.assert_close(logits(model), service_logits(runtime, adapter), rtol=1e-5, atol=1e-5)
    adapter.save(tmp_path / "again")
    again = PeftModel.from_pretrained(plain_base(path), tmp_path / "again")
    assert torch.equal(logits(again), logits(model))
    assert again.peft_config["default"].layers_to_transform == [1]


@pytest.mark.parametrize("part", ["base", "basis"])
def test_another_base_or_basis_is_refused_with_both_hashes(part: str, tmp_path: Path) -> None:
    get_peft_model(make_model(), config()).save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "adapter_config.json").read_text())
    mine, other = stored[f"{part}_fingerprint"], "f00d"
    base = make_model()
    if part == "base":
        base = make_model(seed=5)
        other = fingerprint_base(base)
    else:
        (tmp_path / "adapter_config.json").write_text(json.dumps({**stored, "basis_fingerprint": other}))
    with pytest.raises(IdentityMismatch) as refused:
        PeftModel.from_pretrained(base, tmp_path)
    assert mine in refused.value.message
    assert other in refused.value.message
    assert layers(base) == {}


def test_an_adapter_that_lacks_a_vector_is_refused(tmp_path: Path) -> None:
    model = get_peft_model(make_model(), config(target_modules=["q_proj"]))
    model.save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**stored, "target_modules": ["q_proj", "k_proj"]}))
    with pytest.raises(CorruptArtifact, match="k_proj"):
        PeftModel.from_pretrained(make_model(), tmp_path)
    (tmp_path / "adapter_config.json").write_text(json.dumps({**stored, "r": 4}))
    with pytest.raises(CorruptArtifact, match="shape"):
        PeftModel.from_pretrained(make_model(), tmp_path)


@pytest.mark.parametrize(("train", "trained"), [("s", {"osora_sigma"}), ("o", {"osora_delta"})])
def test_train_says_which_vectors_train(train: str, trained: set[str]) -> None:
    model = get_peft_model(make_model(), config(train=train))
    assert {name.split(".")[-2] for name, p in model.named_parameters() if p.requires_grad} == trained
    model.disable_adapter_layers()
    model.enable_adapter_layers()
    model.set_adapter("default")
    assert {name.split(".")[-2] for name, p in model.named_parameters() if p.requires_grad} == trained


def test_rank_says_how_many_triplets_train() -> None:
    model = get_peft_model(make_model(), config(r=3))
    shapes = {layer.osora_sigma["default"].shape[0] for layer in layers(model).values()}
    assert shapes == {3}
    values = 2 * (7 * 3 + 3 * 32 + 2 * 16 + 2 * 48)
    assert model.get_nb_trainable_parameters()[0] == values


@pytest.mark.parametrize(
    ("targets", "count"),
    [
        (["q_proj", "down_proj"], 4),
        (["self_attn.q_proj"], 2),
        (["model.layers.0.mlp.up_proj"], 1),
        (r".*layers\.1\..*_proj", 7),
        (None, 14),
    ],
)
def test_target_modules_says_what_is_adapted(targets: Any, count: int) -> None:
    assert len(layers(get_peft_model(make_model(), config(target_modules=targets)))) == count


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("targets", ["all-linear", ".*proj"])
@pytest.mark.parametrize(("chosen", "pattern"), [(1, None), ([1], None), ([1], {"llama": "layers", "gpt2": "h"})])
def test_layers_to_transform_says_where(kind: str, targets: str, chosen: Any, pattern: dict[str, str] | None) -> None:
    options = {} if pattern is None else {"layers_pattern": pattern[kind]}
    model = get_peft_model(make_model(kind), config(target_modules=targets, layers_to_transform=chosen, **options))
    names = [name for name, _ in layers(model).items()]
    assert names
    assert all(".1." in name for name in names)


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"r": 0}, "r"),
        ({"r": 9, "basis_rank": 8}, "r"),
        ({"train": "u"}, "train"),
        ({"target_modules": []}, "target_modules"),
        ({"layers_pattern": "h"}, "layers_pattern"),
    ],
)
def test_a_config_that_cannot_be_is_refused(options: dict[str, Any], param: str) -> None:
    with pytest.raises(UserError) as refused:
        config(**options)
    assert refused.value.param == param
    assert refused.value.next_action


def test_the_output_head_is_refused() -> None:
    with pytest.raises(UserError, match="lm_head"):
        get_peft_model(make_model(), config(target_modules=["q_proj", "lm_head"]))


def test_a_further_adapter_costs_no_svd_and_no_second_basis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = get_peft_model(make_model(), config())
    model.save_pretrained(tmp_path)
    held = {name: layer.U.data_ptr() for name, layer in layers(model).items()}
    monkeypatch.setattr(basis_module, "top_triplets", lambda *_: pytest.fail("an SVD"))
    monkeypatch.setattr(BasisCache, "get", lambda *_: pytest.fail("a basis read again"))
    model.add_adapter("second", config(r=4))
    model.load_adapter(tmp_path, "third")
    assert {name: layer.U.data_ptr() for name, layer in layers(model).items()} == held
    factors = [name for name, buffer in model.named_buffers() if name.rpartition(".")[2] in ("U", "S", "Vt")]
    assert len(factors) == 3 * 14


def test_a_further_model_reads_the_stored_basis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    get_peft_model(make_model(), config()).save_pretrained(tmp_path)
    monkeypatch.setattr(basis_module, "top_triplets", lambda *_: pytest.fail("an SVD"))
    PeftModel.from_pretrained(make_model(), tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_basis_on_the_cpu_is_memory_mapped() -> None:
    model = get_peft_model(make_model(), config())
    address = next(iter(layers(model).values())).U.data_ptr()
    for line in Path("/proc/self/maps").read_text().splitlines():
        begin, end = (int(part, 16) for part in line.split()[0].split("-"))
        if begin <= address < end:
            assert line.rstrip().endswith(".safetensors")
            return
    pytest.fail("the factors lie nowhere")


def test_adapters_of_one_model_share_a_basis_rank() -> None:
    model = get_peft_model(make_model(), config(basis_rank=16))
    with pytest.raises(UserError, match=r"rank 24, .* rank 16"):
        model.add_adapter("other", config(r=24))
    assert list(model.peft_config) == ["default"]
    model.add_adapter("fitting", config(r=16))


def calls(action: Any) -> int:
    """Python and C calls that `action` makes: its work, whatever else the machine does, and without the garbage of
    others, which might be thrown away meanwhile."""
    count = 0

    def tally(frame: Any, event: str, _: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    gc.collect()
    gc.disable()
    sys.setprofile(tally)
    try:
        action()
    finally:
        sys.setprofile(None)
        gc.enable()
    return count


def test_a_hundredth_adapter_costs_what_the_first_did(tmp_path: Path) -> None:
    get_peft_model(make_model(), config(target_modules=["q_proj"])).save_pretrained(tmp_path)
    model = PeftModel.from_pretrained(make_model(), tmp_path)
    model.load_adapter(tmp_path, "warm")
    early = calls(lambda: model.load_adapter(tmp_path, "first"))
    for index in range(97):
        model.load_adapter(tmp_path, f"a{index}")
    late = calls(lambda: model.load_adapter(tmp_path, "last"))
    # PEFT looks through the configs of all adapters; nothing walks their vectors.
    assert late < 1.25 * early
    assert sum("osora_" in key for key in model.state_dict()) == sum("osora_" in n for n, _ in model.named_parameters())
    assert sum("osora_" in key for key in model.state_dict()) == 4
    switch = calls(lambda: model.set_adapter("a50"))
    assert switch < early


@pytest.mark.parametrize(
    "imports",
    [
        "import sys, osora_core.training, osora_core.inference; assert 'peft' not in sys.modules; import peft",
        "import peft, osora_core",
    ],
    ids=["first", "last"],
)
def test_importing_osora_core_makes_the_method_known_to_peft(imports: str) -> None:
    """In either order, as who only loads an adapter names nothing of ours. The engines do without PEFT."""
    check = "assert peft.mapping.PEFT_TYPE_TO_TUNER_MAPPING['OSORA'].__name__ == 'OsoraModel'"
    done = subprocess.run([sys.executable, "-c", f"{imports}; {check}"], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_wrong_argument_is_a_value_error_as_it_is_in_peft() -> None:
    with pytest.raises(ValueError, match="r cannot be 0"):
        OsoraConfig(r=0)


def test_a_merge_in_the_tuner_is_the_merge_of_the_service() -> None:
    model = get_peft_model(make_model(), config(target_modules=["q_proj"]))
    name, layer = next(iter(layers(model.base_model.model).items()))
    plain = make_model().get_submodule(name).weight
    assert isinstance(plain, nn.Parameter)
    sigma, delta = layer.osora_sigma["default"].detach(), layer.osora_delta["default"].detach()
    factors = Factors(layer.U, layer.S, layer.Vt)
    model.merge_adapter()
    assert torch.equal(layer.weight, merged_weight(plain.data, factors, sigma, delta))


def test_the_default_cache_lies_where_the_docs_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OSORA_CACHE", str(tmp_path))
    assert BasisCache.default().directory == tmp_path
    monkeypatch.delenv("OSORA_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert BasisCache.default().directory == tmp_path / "home" / ".cache" / "osora"


def test_r_full_is_the_largest_rank_of_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a small adapter that was there before loads beside it, from the basis that has grown meanwhile."""
    monkeypatch.setenv("OSORA_CACHE", str(tmp_path / "cache"))
    small = get_peft_model(make_model(), config(r=4, basis_rank=8))
    small.save_pretrained(tmp_path / "small")
    expected = logits(small)
    model = get_peft_model(make_model(), config(r="full"))
    full = max(min(module.weight.shape) for module in find_targets(make_model(), "all-linear").values())
    made = model.peft_config["default"]
    assert (made.r, made.basis_rank) == (full, full)
    for layer in layers(model).values():
        assert len(layer.osora_sigma["default"]) == min(layer.U.shape[0], layer.Vt.shape[1])
    torch.testing.assert_close(logits(model), dense_logits(model), rtol=1e-4, atol=1e-4)
    model.save_pretrained(tmp_path / "full")
    torch.testing.assert_close(
        logits(PeftModel.from_pretrained(make_model(), tmp_path / "full")), logits(model), rtol=0, atol=0
    )
    again = PeftModel.from_pretrained(make_model(), tmp_path / "small")
    torch.testing.assert_close(logits(again), expected, rtol=0, atol=0)
    model.load_adapter(tmp_path / "small", "small")
    model.set_adapter("small")
    torch.testing.assert_close(logits(model), expected, rtol=1e-5, atol=1e-5)
    again.save_pretrained(tmp_path / "again")
    assert Adapter.load(tmp_path / "again").files() == Adapter.load(tmp_path / "small").files()


def dense_logits(model: PeftModel) -> Tensor:
    return logits(dense(model, make_model()))


def test_a_rank_that_no_weight_has_is_refused() -> None:
    with pytest.raises(UserError, match=r"r is 1000, and the largest full rank of this base's weights is \d+"):
        get_peft_model(make_model(), config(r=1000))
