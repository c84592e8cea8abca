"""Exports, read back by code that is not ours: PEFT's LoRA and plain transformers."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from osora_core import export
from osora_core.adapter import Adapter
from osora_core.bank import Bank
from osora_core.basis import BasisCache, compute_basis
from osora_core.errors import IdentityMismatch, UserError
from osora_core.export.lora import _padded
from osora_core.linear import use_slots
from osora_core.mix import mix_length
from osora_core.runtime import Runtime
from osora_core.weights import fingerprint_base
from tests.support.tiny_base import make_base
from tests.support.tiny_models import make_model, make_tokens

TOKENS = make_tokens()
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")


@pytest.fixture(scope="module")
def adapter(runtime: Runtime, base_path: Path) -> Adapter:
    row = 0.1 * torch.randn(runtime.basis.row_length, generator=torch.Generator().manual_seed(4))
    modules = {"q_proj", "k_proj", "down_proj"}
    return Adapter.from_row(row, runtime.basis, rank=10, modules=modules, base=str(base_path))


def write(files: dict[str, bytes], directory: Path) -> Path:
    directory.mkdir()
    for name, content in files.items():
        (directory / name).write_bytes(content)
    return directory


def served(runtime: Runtime, adapter: Adapter) -> Tensor:
    bank = Bank(runtime.basis, 1, device=runtime.device)
    bank.write(1, adapter.to_row(runtime.basis), adapter.rank, adapter.mix_size)
    with torch.no_grad(), use_slots(bank, torch.ones(len(TOKENS), dtype=torch.long)):
        return runtime.logits(runtime.hidden_states(TOKENS))


def plain(path: Path, **kwargs: torch.dtype) -> nn.Module:
    model: nn.Module = AutoModelForCausalLM.from_pretrained(path, **kwargs).eval()
    return model


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        result: Tensor = model(input_ids=TOKENS).logits
    return result


def test_a_lora_in_peft_says_what_the_service_says(
    runtime: Runtime, adapter: Adapter, base_path: Path, tmp_path: Path
) -> None:
    directory = write(export.to_lora(adapter, runtime.basis, base="owner/name"), tmp_path / "lora")
    loaded = PeftModel.from_pretrained(plain(base_path, dtype=torch.float32), directory)
    torch.testing.assert_close(logits(loaded), served(runtime, adapter), rtol=1e-4, atol=1e-5)
    config = json.loads((directory / "adapter_config.json").read_text())
    assert config["r"] == config["lora_alpha"] == 16
    assert config["base_model_name_or_path"] == "owner/name"
    assert config["init_lora_weights"] is True
    assert config["target_modules"] == ["down_proj", "k_proj", "q_proj"]


def test_an_adapter_with_a_mix_is_the_same_as_a_lora_merged_and_served(
    runtime: Runtime, base_path: Path, tmp_path: Path
) -> None:
    """Every product of B and A beside the definition, in float64 but for the rounding of what is written."""
    length = runtime.basis.row_length + mix_length(runtime.basis.spans, 6)
    row, modules = (
        0.1 * torch.randn(length, generator=torch.Generator().manual_seed(4)),
        {"q_proj", "k_proj", "up_proj"},
    )
    mixed = Adapter.from_row(row, runtime.basis, rank=10, modules=modules, base=str(base_path), mix=6)
    files = export.to_lora(mixed, runtime.basis)
    assert json.loads(files["adapter_config.json"])["r"] == 16
    tensors = load(files["adapter_model.safetensors"])
    for name, C in mixed.mix.items():
        factors = runtime.basis.factors[name]
        U, S, Vt, sigma, delta = (
            t.double() for t in (factors.U, factors.S, factors.Vt, mixed.sigma[name], mixed.delta[name])
        )
        r = len(sigma)
        middle = torch.diag(S[:r] + sigma)
        middle[:6, :6] += C.double()
        expected = torch.diag(1 + delta) @ U[:, :r] @ middle @ Vt[:r] - U[:, :r] @ torch.diag(S[:r]) @ Vt[:r]
        A, B = (tensors[f"base_model.model.{name}.lora_{side}.weight"].double() for side in "AB")
        assert (B @ A - expected).abs().max() < 1e-6 * expected.abs().max()
    lora = PeftModel.from_pretrained(plain(base_path, dtype=torch.float32), write(files, tmp_path / "lora"))
    export.merge(mixed, runtime.basis, tmp_path / "merged", dtype="float32")
    for one in (logits(lora), logits(plain(tmp_path / "merged"))):
        torch.testing.assert_close(one, served(runtime, mixed), rtol=1e-4, atol=1e-5)
    without = replace(mixed, mix={}, mix_size=0)
    assert (served(runtime, without) - served(runtime, mixed)).abs().max() > 1e-3


def test_a_lora_has_one_dtype_whatever_that_of_the_basis(runtime: Runtime, adapter: Adapter) -> None:
    """As a GPU serves in bfloat16, with a copy of the basis."""
    narrow = runtime.basis.to(torch.device("cpu"), torch.bfloat16)
    tensors = load(export.to_lora(adapter, narrow)["adapter_model.safetensors"])
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}


def test_a_lora_needs_nothing_of_ours(runtime: Runtime, adapter: Adapter, base_path: Path, tmp_path: Path) -> None:
    directory = write(export.to_lora(adapter, runtime.basis), tmp_path / "lora")
    code = f"""
import sys
sys.modules["osora_core"] = None
from peft import PeftModel
from safetensors.torch import load
from transformers import AutoModelForCausalLM
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained({str(base_path)!r}), {str(directory)!r})
assert sum("lora_" in name for name, _ in model.named_parameters()) == 12
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("own", "written"), [(1, 1), (2, 8), (8, 8), (9, 16), (129, 256), (257, 320), (512, 512)])
def test_a_lora_has_a_rank_that_vllm_allows(own: int, written: int) -> None:
    assert _padded(own, None) == written


def test_a_rank_can_be_asked_for(runtime: Runtime, adapter: Adapter, base_path: Path, tmp_path: Path) -> None:
    directory = write(export.to_lora(adapter, runtime.basis, rank=11), tmp_path / "lora")
    loaded = PeftModel.from_pretrained(plain(base_path, dtype=torch.float32), directory)
    assert loaded.peft_config["default"].r == 11
    torch.testing.assert_close(logits(loaded), served(runtime, adapter), rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match="rank 9"):
        export.to_lora(adapter, runtime.basis, rank=9)
    with pytest.raises(UserError, match="512"):
        _padded(513, None)


def test_a_lora_of_some_layers_leaves_the_others_alone(runtime: Runtime, adapter: Adapter, tmp_path: Path) -> None:
    kept = {name for name in adapter.sigma if ".1." in name}
    some = Adapter(
        {name: adapter.sigma[name] for name in kept},
        {name: adapter.delta[name] for name in kept},
        adapter.rank,
        adapter.base,
        adapter.base_fingerprint,
        adapter.basis_fingerprint,
        adapter.basis_rank,
    )
    directory = write(export.to_lora(some, runtime.basis), tmp_path / "lora")
    loaded = PeftModel.from_pretrained(plain(Path(adapter.base), dtype=torch.float32), directory)
    assert all(".1." in name for name, _ in loaded.named_parameters() if "lora_" in name)
    torch.testing.assert_close(logits(loaded), served(runtime, some), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:fan_in_fan_out:UserWarning")
def test_a_lora_of_a_gpt2_matches(tmp_path: Path) -> None:
    base = make_model("gpt2")
    basis = compute_basis(base, "all-linear", 8, fingerprint_base(base))
    row = 0.1 * torch.randn(basis.row_length, generator=torch.Generator().manual_seed(5))
    adapter = Adapter.from_row(row, basis, rank=8, modules=set(basis.target_modules), base="gpt2")
    directory = write(export.to_lora(adapter, basis), tmp_path / "lora")
    lora = PeftModel.from_pretrained(make_model("gpt2"), directory)
    base.save_pretrained(tmp_path / "base")
    make_base(tmp_path / "tokens")  # its tokenizer stands in for one of GPT-2
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "base" / name).write_bytes((tmp_path / "tokens" / name).read_bytes())
    export.merge(adapter, basis, tmp_path / "merged", base=str(tmp_path / "base"))
    torch.testing.assert_close(logits(plain(tmp_path / "merged")), logits(lora), rtol=1e-4, atol=1e-5)


def test_a_merged_checkpoint_is_a_plain_model(runtime: Runtime, adapter: Adapter, tmp_path: Path) -> None:
    export.merge(adapter, runtime.basis, tmp_path / "merged", dtype="float32")
    merged = plain(tmp_path / "merged")
    torch.testing.assert_close(logits(merged), served(runtime, adapter), rtol=1e-4, atol=1e-5)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    assert tokenizer("help").input_ids == runtime.tokenizer("help").input_ids
    assert {path.suffix for path in (tmp_path / "merged").iterdir()} <= {".json", ".safetensors", ".jinja"}


def test_a_merged_checkpoint_keeps_the_dtype_of_its_base(tmp_path: Path) -> None:
    path = make_base(tmp_path / "base")
    plain(path, dtype=torch.bfloat16).save_pretrained(path)
    runtime = Runtime.load("other", BasisCache(tmp_path / "cache"), path=str(path), device="cpu", rank=8)
    row = 0.1 * torch.randn(runtime.basis.row_length, generator=torch.Generator().manual_seed(6))
    adapter = Adapter.from_row(row, runtime.basis, rank=8, modules={"up_proj"}, base=str(path))
    export.merge(adapter, runtime.basis, tmp_path / "merged")
    merged = plain(tmp_path / "merged")
    assert {parameter.dtype for parameter in merged.parameters()} == {torch.bfloat16}
    torch.testing.assert_close(logits(merged).float(), served(runtime, adapter), rtol=0.1, atol=0.3)


@pytest.mark.parametrize("dtype", ["auto", "bfloat16"])
def test_a_base_that_is_served_in_a_narrower_dtype_is_merged_from_its_own_values(dtype: str, tmp_path: Path) -> None:
    path = make_base(tmp_path / "base")
    narrow = Runtime.load(
        "other", BasisCache(tmp_path / "cache"), path=str(path), device="cpu", rank=8, dtype=torch.bfloat16
    )
    row = 0.1 * torch.randn(narrow.basis.row_length, generator=torch.Generator().manual_seed(6))
    adapter = Adapter.from_row(row, narrow.basis, rank=8, modules={"up_proj"}, base=str(path))
    export.merge(adapter, narrow.basis, tmp_path / "merged", dtype=dtype)
    whole = Runtime.load("other", BasisCache(tmp_path / "cache"), path=str(path), device="cpu", rank=8)
    expected = served(whole, adapter)
    found = logits(plain(tmp_path / "merged"))
    torch.testing.assert_close(found.float(), expected, rtol=0.1, atol=0.3 if dtype == "bfloat16" else 0.02)


def test_exports_refuse_what_is_not_the_adapters(adapter: Adapter, runtime: Runtime, tmp_path: Path) -> None:
    other = Runtime.load(
        "other", BasisCache(tmp_path / "cache"), path=str(make_base(tmp_path / "base", seed=9)), device="cpu", rank=16
    )
    with pytest.raises(IdentityMismatch, match=adapter.base_fingerprint):
        export.to_lora(adapter, other.basis)
    with pytest.raises(IdentityMismatch, match=other.basis.base_fingerprint):
        export.merge(adapter, runtime.basis, tmp_path / "merged", base=str(tmp_path / "base"))
    assert not (tmp_path / "merged").exists()


def test_an_export_needs_only_the_stored_basis(runtime: Runtime, base_path: Path, tmp_path: Path) -> None:
    cache = BasisCache(tmp_path)
    stored = Runtime.load("small", cache, path=str(base_path), device="cpu", rank=16).basis
    found = cache.find(stored.base_fingerprint, stored.fingerprint, 16)
    assert found.fingerprint == stored.fingerprint
    for wrong in ((stored.base_fingerprint, "f00d", 16), ("f00d", stored.fingerprint, 16)):
        with pytest.raises(UserError, match="f00d"):
            cache.find(*wrong)
