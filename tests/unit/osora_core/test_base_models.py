import json
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaConfig, MambaConfig

from osora_core import attention, base_models
from osora_core.base_check import NEXT
from osora_core.basis import BasisCache
from osora_core.errors import UnsupportedBase, UserError
from osora_core.runtime import Runtime, usable_length
from tests.support.tiny_base import make_base
from tests.unit.osora_core.inference.test_decoder import make_family


@pytest.mark.parametrize(
    ("config", "kind", "said"),
    [
        ({"model_type": "llama"}, UserError, "it has no model.safetensors"),
        ({"model_type": "no-such-family"}, UnsupportedBase, "no causal language model of its family 'no-such-family'"),
        ({"model_type": "clip"}, UnsupportedBase, "no causal language model of its family 'clip'"),
        ({"model_type": "mamba"}, UnsupportedBase, "the attention of its family 'mamba' is written into the model"),
    ],
)
def test_what_is_no_base_model_is_refused_in_one_sentence(
    tmp_path: Path, config: dict[str, str], kind: type[UserError], said: str
) -> None:
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(kind, match=said) as refused:
        Runtime.load("mine", BasisCache(tmp_path / "cache"), path=str(folder), device="cpu")
    assert str(folder) in refused.value.message
    assert "\n" not in refused.value.message
    assert refused.value.next_action


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return make_family(tmp_path / "base", LlamaConfig)


def refusal(tmp_path: Path, base: Path) -> UserError:
    with pytest.raises(UserError) as refused:
        Runtime.load("mine", BasisCache(tmp_path / "cache"), path=str(base), device="cpu", rank=8)
    assert "\n" not in refused.value.message
    return refused.value


def test_a_base_without_a_tokenizer_is_refused_in_one_sentence(tmp_path: Path, base: Path) -> None:
    for path in base.glob("tokenizer*"):
        path.unlink()
    error = refusal(tmp_path, base)
    assert error.message == f"the base model {str(base)!r} cannot be loaded: it has no tokenizer"
    assert "tokenizer.json" in (error.next_action or "")


def test_a_tokenizer_that_cannot_be_read_is_refused_in_one_sentence(tmp_path: Path, base: Path) -> None:
    (base / "tokenizer.json").write_text("{}")
    error = refusal(tmp_path, base)
    assert error.message.startswith(f"the tokenizer of the base model {str(base)!r} cannot be loaded: ")


def test_a_base_that_comes_out_otherwise_is_refused_before_its_basis_is_computed(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    def otherwise(*given: Any, **named: Any) -> Any:
        return attention.attend(*given, **named | {"scaling": 1.0})

    # All bases of this process share one function: loading must not register this one for good.
    monkeypatch.setattr(attention, "register", lambda: None)
    monkeypatch.setitem(attention.AttentionInterface._global_mapping, attention.NAME, otherwise)
    monkeypatch.setattr("osora_core.basis.compute_basis", lambda *_: pytest.fail("the basis is computed"))
    error = refusal(tmp_path, base)
    assert "in attention, its family 'llama' comes out otherwise" in error.message


def test_weights_that_were_cut_short_are_not_blamed_on_the_family(tmp_path: Path, base: Path) -> None:
    weights = base / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    error = refusal(tmp_path, base)
    assert error.message.startswith(f"the base model {str(base)!r} cannot be loaded: ")
    assert error.next_action != NEXT
    assert "family" not in error.message


def test_a_family_that_cannot_be_loaded_is_said_once(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*args: object, **kwargs: object) -> None:
        raise KeyError("no_such_attention")

    monkeypatch.setattr("osora_core.runtime.AutoModelForCausalLM.from_pretrained", fails)
    error = refusal(tmp_path, base)
    assert error.message.startswith("the base 'mine' cannot be used: loading of its family 'llama' fails")
    assert error.next_action == NEXT


def test_nobody_is_told_to_write_a_length_into_a_family_that_has_none() -> None:
    with pytest.raises(UserError) as refused:
        usable_length(MambaConfig())
    assert refused.value.next_action == NEXT


def test_a_gpu_that_is_not_there_is_refused_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError, match="the device is 'cuda', and torch finds no GPU here"):
        Runtime.load("mine", BasisCache(tmp_path / "cache"), path=str(tmp_path), device="cuda")


def test_a_base_is_called_what_the_world_calls_it(tmp_path: Path) -> None:
    """A directory of this machine means nothing elsewhere, and a config may bear the name of a model's ancestor."""
    cached = make_base(tmp_path / "models--owner--a-name" / "snapshots" / "0a1b")
    local = make_base(tmp_path / "local")
    config = json.loads((local / "config.json").read_text())
    (local / "config.json").write_text(json.dumps({**config, "_name_or_path": "somebody/else"}))
    assert base_models.public_name("alias", "owner/name") == "owner/name"
    assert base_models.public_name("alias", str(cached)) == "owner/a-name"
    assert base_models.public_name("alias", str(local)) == "alias"
    assert base_models.public_name("osora-tiny", base_models.resolve("osora-tiny")) == "osora-tiny"
    assert base_models.public_name("made in memory", "") == "made in memory"
    runtime = Runtime.load("alias", BasisCache(tmp_path / "cache"), path=str(cached), device="cpu", rank=8)
    assert (runtime.name, runtime.public_name) == ("alias", "owner/a-name")
