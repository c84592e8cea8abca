"""GGUF files, read back by code that is not ours: transformers, and the gguf package's reader."""

import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFReader
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GemmaConfig,
    LlamaConfig,
    MptConfig,
    PretrainedConfig,
    Qwen2Config,
    StableLmConfig,
)

from osora_core import export
from osora_core.errors import IdentityMismatch, UnsupportedBase, UserError
from osora_core.export.gguf_family import exact_length, family_of
from tests.support.gguf import BASES, HEADS, WINDOW, adapt, make_base

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.frombuffer.*:UserWarning"),
]
TOKENS = torch.randint(3, 250, (1, 60), generator=torch.Generator().manual_seed(1))
# Names in a file -> names in a checkpoint, with what is between them.
_LAYER = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "attn_qkv": "self_attn.qkv_proj",
    "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm", "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip
_WHOLE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_GEMMA = {
    "ffn_norm": "pre_feedforward_layernorm", "post_attention_norm": "post_attention_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}  # fmt: skip
_GPT2 = {
    "attn_norm": "ln_1", "attn_qkv": "attn.c_attn", "attn_output": "attn.c_proj", "ffn_norm": "ln_2",
    "ffn_up": "mlp.c_fc", "ffn_down": "mlp.c_proj",
}  # fmt: skip
_GPT2_WHOLE = {"token_embd": "transformer.wte", "position_embd": "transformer.wpe", "output_norm": "transformer.ln_f"}


def written(folder: Path, name: str, dtype: torch.dtype = torch.float32) -> Path:
    """A base, the file `a.gguf`, and the same merged in `merged`."""
    base = make_base(folder / "base", name, dtype)
    adapter, basis = adapt(base)
    export.to_gguf(adapter, basis, folder / "a.gguf")
    export.merge(adapter, basis, folder / "merged")
    return folder


def plain(path: Path, **kwargs: Any) -> Any:
    return AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager", **kwargs).eval()


def logits(model: Any, length: int = 60) -> Tensor:
    with torch.no_grad():
        result: Tensor = model(input_ids=TOKENS[:, :length]).logits
    return result


def own_name(name: str, family: str) -> str:
    """What a checkpoint calls a tensor of a file."""
    stem, _, kind = name.rpartition(".")
    layer = re.fullmatch(r"blk\.(\d+)\.(\w+)", stem)
    if family == "gpt2":
        return f"transformer.h.{layer[1]}.{_GPT2[layer[2]]}.{kind}" if layer else f"{_GPT2_WHOLE[stem]}.{kind}"
    names = _LAYER | (_GEMMA if family in ("gemma2", "gemma3_text") else {})
    names |= {"ffn_up": "mlp.gate_up_proj"} if family == "phi3" else {}
    return f"model.layers.{layer[1]}.{names[layer[2]]}.{kind}" if layer else f"{_WHOLE[stem]}.{kind}"


def in_checkpoints(tensor: Any, family: str, heads: int) -> Tensor:
    """The values of a file's tensor as a checkpoint has them."""
    data = tensor.data.view(np.uint16) if tensor.tensor_type.name == "BF16" else tensor.data
    values = torch.from_numpy(data.copy())
    values = values.view(torch.bfloat16) if tensor.tensor_type.name == "BF16" else values
    if family in ("llama", "mistral") and re.search(r"attn_[qk]\.", tensor.name):
        pairs = values.reshape(heads, values.shape[0] // heads // 2, 2, *values.shape[1:])
        values = pairs.transpose(1, 2).reshape(values.shape)
    if family.startswith("gemma") and tensor.name.endswith("norm.weight"):
        values = values - 1
    if family == "gpt2" and values.dim() == 2 and tensor.name.startswith("blk"):
        values = values.T
    return values


@pytest.mark.parametrize("name", [name for name in BASES if name not in ("gemma", "mistral")])
def test_transformers_reads_a_file_as_the_merged_model(name: str, tmp_path: Path) -> None:
    """All but Gemma 1, which its reader does not know. Mistral's is a Llama file: see below."""
    folder = written(tmp_path, name)
    merged = plain(folder / "merged")
    # Its reader takes some settings from the file only for some families, so it is given all of them.
    read = plain(folder, gguf_file="a.gguf", config=merged.config, dtype=torch.float32)
    torch.testing.assert_close(logits(read), logits(merged), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["llama, tied", "mistral", "phi3"])
def test_transformers_reads_all_that_it_must_know_from_the_file(name: str, tmp_path: Path) -> None:
    folder = written(tmp_path, name)
    read = plain(folder, gguf_file="a.gguf", dtype=torch.float32)
    torch.testing.assert_close(logits(read, WINDOW), logits(plain(folder / "merged"), WINDOW), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", BASES)
def test_every_tensor_is_the_merged_one(name: str, tmp_path: Path) -> None:
    folder = written(tmp_path, name)
    merged = plain(folder / "merged")
    expected = dict(merged.named_parameters())
    family = merged.config.model_type
    for tensor in GGUFReader(folder / "a.gguf").tensors:
        if tensor.name.startswith("rope_"):
            continue
        heads = merged.config.num_key_value_heads if ".attn_k." in tensor.name else HEADS
        values = in_checkpoints(tensor, family, heads)
        torch.testing.assert_close(values, expected.pop(own_name(tensor.name, family)).data, rtol=1e-6, atol=1e-6)
    assert expected == {}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_file_has_the_dtype_of_its_base_and_norms_in_float32(dtype: torch.dtype, tmp_path: Path) -> None:
    folder = written(tmp_path, "llama", dtype)
    expected = dict(plain(folder / "merged").named_parameters())
    kinds = set()
    for tensor in GGUFReader(folder / "a.gguf").tensors:
        values = in_checkpoints(tensor, "llama", 2 if ".attn_k." in tensor.name else HEADS)
        own = expected[own_name(tensor.name, "llama")].data
        assert values.dtype == (torch.float32 if own.dim() == 1 else dtype)
        torch.testing.assert_close(values, own.to(values.dtype), rtol=0, atol=0)
        kinds.add((tensor.tensor_type.name, own.dim()))
    assert kinds == {("BF16" if dtype == torch.bfloat16 else "F16", 2), ("F32", 1)}


def test_another_dtype_can_be_asked_for_but_none_that_cannot_hold_the_values(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", "llama, tied")
    model = plain(base)
    with torch.no_grad():
        model.model.embed_tokens.weight[7, 7] = 1e6
    model.save_pretrained(base)
    adapter, basis = adapt(base)
    export.to_gguf(adapter, basis, tmp_path / "a.gguf", dtype="bfloat16")
    assert {tensor.tensor_type.name for tensor in GGUFReader(tmp_path / "a.gguf").tensors} == {"BF16", "F32"}
    with pytest.raises(UserError, match=r"token_embd\.weight has values that are no finite numbers in float16"):
        export.to_gguf(adapter, basis, tmp_path / "b.gguf", dtype="float16")
    assert {path.name for path in tmp_path.iterdir()} == {"base", "a.gguf"}


def test_the_same_adapter_gives_the_same_bytes(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", "qwen3")
    adapter, basis = adapt(base)
    hashes = set()
    for name in ("a", "b"):
        export.to_gguf(adapter, basis, tmp_path / f"{name}.gguf")
        hashes.add(hashlib.sha256((tmp_path / f"{name}.gguf").read_bytes()).hexdigest())
    assert len(hashes) == 1


def test_another_base_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    adapter, basis = adapt(make_base(tmp_path / "base", "qwen3"))
    other = make_base(tmp_path / "other", "qwen3", torch.bfloat16)
    (tmp_path / "out").mkdir()
    with pytest.raises(IdentityMismatch, match=adapter.base_fingerprint):
        export.to_gguf(adapter, basis, tmp_path / "out" / "a.gguf", base=str(other))
    assert list((tmp_path / "out").iterdir()) == []


def test_a_file_says_what_the_model_is_called_how_long_it_reads_and_what_ends_an_answer(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", "mistral")
    adapter, basis = adapt(base)
    export.to_gguf(adapter, basis, tmp_path / "a.gguf", name="tickets")
    fields = GGUFReader(tmp_path / "a.gguf").fields
    tokenizer = AutoTokenizer.from_pretrained(base)
    told = {name: fields[name].contents() for name in fields}
    assert told["general.name"] == "tickets"
    assert told["llama.context_length"] == WINDOW  # llama.cpp has no window for it, so texts must not be longer
    assert told["tokenizer.ggml.eos_token_id"] == tokenizer.eos_token_id
    assert told["tokenizer.chat_template"] == tokenizer.chat_template
    assert told["tokenizer.ggml.add_bos_token"] is False


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        (StableLmConfig(), "'stablelm', only of gemma, gemma2"),
        (MptConfig(), "'mpt'"),
        (LlamaConfig(hidden_act="gelu"), "activation is 'gelu'"),
        (LlamaConfig(rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}), "'dynamic'"),
        (Qwen2Config(hidden_size=64, num_attention_heads=4, head_dim=32), "head_dim is 32"),
        (GemmaConfig(tie_word_embeddings=False), "tie_word_embeddings is False"),
    ],
)
def test_what_llama_cpp_would_compute_otherwise_is_refused(config: PretrainedConfig, problem: str) -> None:
    with pytest.raises(UnsupportedBase, match=re.escape(problem)) as refused:
        family_of(config)
    assert "convert_hf_to_gguf.py" in (refused.value.next_action or "")
    assert refused.value.param == "format"


@pytest.mark.parametrize(
    ("name", "change", "problem"),
    [
        ("gemma2", {"attn_logit_softcapping": None}, "attn_logit_softcapping"),
        ("gemma2", {"query_pre_attn_scalar": 144}, "query_pre_attn_scalar is 144"),
        ("gemma3", {"layer_types": ["full_attention"] * 6}, "layer_types"),
        ("gemma3", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        ("llama", {"partial": 0.5}, "partial_rotary_factor is 0.5"),
    ],
)
def test_settings_that_llama_cpp_does_not_have_are_refused(
    name: str, change: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    config = plain(make_base(tmp_path / "base", name)).config
    family_of(config)
    for key, value in change.items():
        if key == "partial":
            config.rope_parameters["partial_rotary_factor"] = value
        else:
            setattr(config, key, value)
    with pytest.raises(UnsupportedBase, match=problem):
        family_of(config)


def test_a_bias_that_llama_cpp_has_no_place_for_is_refused(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", "qwen3")
    model = plain(base)
    model.config.attention_bias = True
    AutoModelForCausalLM.from_config(model.config).save_pretrained(base)
    adapter, basis = adapt(base)
    with pytest.raises(UnsupportedBase, match=r"no place for model.layers.0.self_attn.q_proj.bias in a qwen3"):
        export.to_gguf(adapter, basis, tmp_path / "a.gguf")


def test_windows_bound_the_length_only_where_layers_have_one() -> None:
    for config, length in (
        (Qwen2Config(use_sliding_window=False, sliding_window=100, max_position_embeddings=500), 500),
        (
            Qwen2Config(use_sliding_window=True, sliding_window=100, max_position_embeddings=500, max_window_layers=1),
            100,
        ),
        (LlamaConfig(max_position_embeddings=500), 500),
    ):
        assert exact_length(config, family_of(config)) == length
