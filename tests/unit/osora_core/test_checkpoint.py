"""The identity of a base is its checkpoint's, in whichever dtype that was loaded."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from osora_core.basis import BasisCache
from osora_core.checkpoint import own_values
from osora_core.weights import ALL_LINEAR, fingerprint_base
from tests.support.tiny_base import make_base

CPU = torch.device("cpu")


def load(path: Path, dtype: torch.dtype) -> Any:
    return AutoModelForCausalLM.from_pretrained(path, dtype=dtype)


def identity(path: Path, dtype: torch.dtype) -> str:
    return fingerprint_base(own_values(load(path, dtype)))


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shards", [1, 3])
def test_a_base_is_the_same_in_every_dtype(stored: torch.dtype, shards: int, tmp_path: Path) -> None:
    path = make_base(tmp_path / "base")
    model = load(path, stored)
    (path / "model.safetensors").unlink()
    model.save_pretrained(path, max_shard_size=40_000 if shards > 1 else "1GB")
    assert (path / "model.safetensors.index.json").exists() == (shards > 1)
    expected = fingerprint_base(load(path, torch.float32))
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        assert identity(path, dtype) == expected
    # And so is its basis.
    bases = [
        BasisCache(tmp_path / str(dtype)).get(load(path, dtype), ALL_LINEAR, 8, CPU)
        for dtype in (torch.float32, torch.bfloat16)
    ]
    assert bases[0].stored == bases[1].stored


def test_a_head_that_the_checkpoint_does_not_have_is_no_part_of_it(tmp_path: Path) -> None:
    path = make_base(tmp_path / "base")
    wide, narrow = (
        AutoModelForSequenceClassification.from_pretrained(path, dtype=dtype)
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert fingerprint_base(own_values(narrow)) == fingerprint_base(wide)


def test_what_was_changed_since_it_was_loaded_is_another_base(tmp_path: Path) -> None:
    path = make_base(tmp_path / "base")
    model = load(path, torch.bfloat16)
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] += 1
    assert own_values(model) is model
    assert fingerprint_base(model) != identity(path, torch.bfloat16)


def test_a_base_without_its_checkpoint_has_its_own_values(tmp_path: Path) -> None:
    model = load(make_base(tmp_path / "base"), torch.bfloat16)
    shutil.rmtree(tmp_path / "base")
    assert own_values(model) is model
    model.config._name_or_path = "../no such/name at all"
    assert own_values(model) is model
