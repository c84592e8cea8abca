"""Reading plain LoRAs: what PEFT would compute otherwise than we do is refused by its name."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig as PeftConfig
from safetensors.torch import save
from torch import Tensor
from transformers import AutoModelForCausalLM

from osora_core import export
from osora_core.adapter import CONFIG_NAME, WEIGHTS_NAME, Adapter, pack
from osora_core.adapter_tensors import KEY_PREFIX
from osora_core.errors import CorruptArtifact, UserError
from osora_core.lora import Lora
from osora_core.lora_config import LoraConfig
from osora_core.runtime import Runtime
from tests.support.loras import make_lora, peft_answer

pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")

Q = "model.layers.0.self_attn.q_proj"
CONFIG: dict[str, Any] = {"peft_type": "LORA", "r": 2, "lora_alpha": 4}


def pair(module: str = Q, rank: int = 2, d_in: int = 32, d_out: int = 32) -> dict[str, Tensor]:
    key = f"{KEY_PREFIX}{module}"
    return {f"{key}.lora_A.weight": torch.ones(rank, d_in), f"{key}.lora_B.weight": torch.ones(d_out, rank)}


def read(tensors: dict[str, Tensor] | None = None, **config: Any) -> Lora:
    return Lora.from_files(json.dumps({**CONFIG, **config}).encode(), save(pair() if tensors is None else tensors))


def test_scales_are_those_of_peft() -> None:
    """By r, alpha, their patterns and rslora: the first key that stands for a module counts."""
    plain = LoraConfig.read(
        {
            **CONFIG,
            "rank_pattern": {"q_proj": 8, "layers.1.self_attn.q_proj": 16, "^model.layers.0.mlp.up_proj": 4},
            "alpha_pattern": {"v_proj": 10.5},
        }
    )
    names = [Q, "model.layers.1.self_attn.q_proj", "model.layers.0.mlp.up_proj", "model.layers.1.mlp.up_proj"]
    assert [plain.rank_of(name) for name in names] == [8, 8, 4, 2]
    assert [plain.rank_of(name) for name in ("xq_proj", "other.model.layers.0.mlp.up_proj")] == [2, 2]
    assert plain.scale_of(Q) == 0.5
    assert plain.scale_of("a.v_proj") == 5.25
    assert LoraConfig.read({**CONFIG, "use_rslora": True, "r": 16}).scale_of(Q) == 1.0


@pytest.mark.parametrize(
    "targets", [["q_proj"], ["layers.0.self_attn.q_proj"], [Q], ".*q_proj", "all-linear", None, []]
)
def test_tensors_of_its_target_modules_are_taken(targets: Any) -> None:
    assert read(target_modules=targets).target_modules == ["q_proj"]


@pytest.mark.parametrize("targets", [["v_proj"], ["proj"], ["model.layers"]])
def test_tensors_that_peft_would_drop_are_refused(targets: list[str]) -> None:
    with pytest.raises(UserError, match=r"q_proj', which is none of the target_modules"):
        read(target_modules=targets)


def test_every_setting_of_peft_is_known_or_refused() -> None:
    """What PEFT writes by default is taken. A setting of a version to come is refused once it says something."""
    LoraConfig.read({**json.loads(json.dumps(PeftConfig(r=2).to_dict(), default=list)), "a_new_setting": None})
    with pytest.raises(UserError, match="a_new_setting"):
        LoraConfig.read({**CONFIG, "a_new_setting": 3})


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("bias", "all"),
        ("bias", "lora_only"),
        ("use_dora", True),
        ("use_dora", 1),
        ("use_rslora", 1),
        ("use_rslora", "true"),
        ("lora_bias", True),
        ("modules_to_save", ["lm_head"]),
        ("trainable_token_indices", [1, 2]),
        ("trainable_token_indices", {"embed_tokens": [1]}),
        ("layer_replication", [[0, 1], [0, 1]]),
        ("target_parameters", ["mlp.experts.gate_up_proj"]),
        ("init_lora_weights", "pissa_niter_16"),
        ("init_lora_weights", "olora"),
        ("init_lora_weights", "corda"),
        ("init_lora_weights", "loftq"),
        ("alora_invocation_tokens", [1, 2]),
        ("use_qalora", True),
        ("arrow_config", {"top_k": 3}),
        ("r", 0),
        ("r", -1),
        ("r", True),
        ("r", "2"),
        ("r", 10**9),
        ("lora_alpha", "much"),
        ("lora_alpha", 1e300),
        ("rank_pattern", ["q_proj"]),
        ("rank_pattern", {"q_proj": 0}),
        ("rank_pattern", {"(a+)+$": 3}),
        ("alpha_pattern", {".*": 3}),
        ("alpha_pattern", {"q_proj": None}),
    ],
)
def test_what_is_no_plain_lora_is_refused_by_its_name(setting: str, value: Any) -> None:
    with pytest.raises(UserError, match=setting) as caught:
        read(**{setting: value})
    assert len(caught.value.message) < 300


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({}, "no tensors"),
        (pair("lm_head"), "the output head 'lm_head'"),
        ({f"{KEY_PREFIX}model.embed_tokens.lora_embedding_A": torch.ones(2, 4)}, "a LoRA of an embedding"),
        ({f"{KEY_PREFIX}lm_head.weight": torch.ones(2, 4)}, "a whole output head"),
        ({f"{KEY_PREFIX}model.embed_tokens.weight": torch.ones(2, 4)}, "a whole embedding"),
        ({**pair(), f"{KEY_PREFIX}{Q}.lora_magnitude_vector": torch.ones(4)}, "a part of DoRA"),
        ({**pair(), f"{KEY_PREFIX}{Q}.lora_B.bias": torch.ones(4)}, "a bias"),
        ({"model.q.lora_A.weight": torch.ones(2, 4)}, "no part of a plain LoRA"),
        ({**pair(), f"{KEY_PREFIX}x.lora_A.weight": torch.ones(2, 4)}, "x has only one of lora_A and lora_B"),
        (pair(rank=3), "A of rank 3 and B of rank 3; adapter_config.json says 2"),
        ({**pair(), f"{KEY_PREFIX}{Q}.lora_B.weight": torch.ones(32, 1)}, "A of rank 2 and B of rank 1"),
        ({**pair(), f"{KEY_PREFIX}{Q}.lora_B.weight": torch.ones(32, 2).long()}, "is int64 of shape"),
        ({**pair(), f"{KEY_PREFIX}{Q}.lora_B.weight": torch.ones(64)}, r"is float32 of shape \[64\]"),
    ],
)
def test_tensors_that_are_not_a_loras(tensors: dict[str, Tensor], said: str) -> None:
    with pytest.raises(UserError, match=said):
        read(tensors)


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        (pair("model.layers.0.self_attn.q_prog"), "no linear module .*q_prog'; the nearest is .*q_proj"),
        (pair(d_in=31), "maps 31 values to 32; this base's maps 32 to 32"),
        (pair(d_out=64), "maps 32 values to 64; this base's maps 32 to 32"),
        (pair("model.layers.9.self_attn.q_proj"), "no linear module"),
    ],
)
def test_a_lora_of_another_shape_does_not_fit(runtime: Runtime, tensors: dict[str, Tensor], said: str) -> None:
    with pytest.raises(UserError, match=said):
        read(tensors).check(runtime.basis)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_values_must_be_numbers_in_the_dtype_that_computes(runtime: Runtime, value: float) -> None:
    tensors = pair()
    tensors[f"{KEY_PREFIX}{Q}.lora_B.weight"][3, 1] = value
    lora = read(tensors)
    with pytest.raises(CorruptArtifact, match="q_proj holds values that are not numbers"):
        lora.factors(runtime.basis, torch.float16)
    if value == 1e30:
        lora.factors(runtime.basis, torch.bfloat16)


def test_broken_files_are_said_to_be_broken() -> None:
    for config, weights in ((b"[", save(pair())), (b"[]", save(pair())), (json.dumps(CONFIG).encode(), b"none")):
        with pytest.raises(CorruptArtifact):
            Lora.from_files(config, weights)
    with pytest.raises(CorruptArtifact, match="not that of a LoRA"):
        read(peft_type="OSORA")
    with pytest.raises(CorruptArtifact, match="hash"):
        Lora.from_zip(pack({CONFIG_NAME: json.dumps(CONFIG).encode(), WEIGHTS_NAME: save(pair())}), "0" * 64)


def test_a_merged_lora_says_what_peft_says(runtime: Runtime, base_path: Path, tmp_path: Path) -> None:
    folder = make_lora(
        base_path, tmp_path / "lora", r=3, lora_alpha=5, use_rslora=True, target_modules=["q_proj", "down_proj"]
    )
    lora = Lora.from_files((folder / CONFIG_NAME).read_bytes(), (folder / WEIGHTS_NAME).read_bytes())
    export.merge(lora, runtime.basis, tmp_path / "merged", base=str(base_path))
    prompt = (5, 17, 40, 23, 9)
    tokens, scores = peft_answer(base_path, folder, prompt, 10)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    with torch.inference_mode():
        found = merged(input_ids=torch.tensor([[*prompt, *tokens]])).logits[0].log_softmax(dim=-1)
    torch.testing.assert_close(found[len(prompt) - 1 : -1], scores, rtol=1e-4, atol=1e-4)


def test_our_own_export_comes_back_as_a_lora_that_computes_the_same(runtime: Runtime, base_path: Path) -> None:
    row = 0.1 * torch.randn(runtime.basis.row_length, generator=torch.Generator().manual_seed(4))
    adapter = Adapter.from_row(row, runtime.basis, rank=10, modules={"q_proj", "down_proj"}, base=str(base_path))
    files = export.to_lora(adapter, runtime.basis)
    lora = Lora.from_files(files[CONFIG_NAME], files[WEIGHTS_NAME])
    assert lora.rank == 16
    assert lora.target_modules == ["down_proj", "q_proj"]
    lora.check(runtime.basis)
