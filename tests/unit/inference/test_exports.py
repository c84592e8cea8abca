"""What is downloaded, unpacked: folders that PEFT and transformers read as they are, and that name their base."""

import hashlib
import json
import re
import shutil
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, cast

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from inference import exports
from inference.errors import ServerError
from inference.exports import Exporter
from inference.schemas import AdapterRef, ExportRequest
from osora_common.scratch import Scratch
from osora_core.adapter import Adapter
from osora_core.bank import Bank
from osora_core.basis import BasisCache
from osora_core.errors import UnsupportedBase
from osora_core.linear import use_slots
from osora_core.runtime import Runtime
from tests.support.tiny_base import make_base

TOKENS = torch.tensor([[5, 9, 200, 31, 7, 120]])
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.frombuffer.*:UserWarning"),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base as the hub's cache has it, with settings for generation of its own."""
    cached = tmp_path_factory.mktemp("hub") / "models--owner--some-name" / "snapshots" / "0123"
    path = make_base(cached)
    GenerationConfig(eos_token_id=[2, 7], repetition_penalty=1.5).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def runtime(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    return Runtime.load("alias", BasisCache(tmp_path_factory.mktemp("cache")), path=str(base), device="cpu", rank=8)


@pytest.fixture(scope="module")
def adapter(runtime: Runtime) -> Adapter:
    row = 0.1 * torch.randn(runtime.basis.row_length, generator=torch.Generator().manual_seed(4))
    return Adapter.from_row(row, runtime.basis, rank=6, modules={"q_proj", "down_proj"}, base="alias")


def unpacked(archive: Path, folder: Path) -> Path:
    with zipfile.ZipFile(archive) as opened:
        # What `unzip` gives the files: they can be read by whoever serves them.
        assert {info.external_attr >> 16 & 0o777 for info in opened.infolist()} == {0o644}
        assert all("/" not in name for name in opened.namelist())
        opened.extractall(folder)
    return folder


Form = Literal["lora", "merged", "gguf"]


def export(runtime: Runtime, adapter: Adapter, base: Path, form: Form, folder: Path) -> Path:
    fields = {
        "id": "adp-1",
        "name": "ft:alias:default:tickets:abc",
        "version": 1,
        "object_key": "k",
        "base_fingerprint": "",
        "basis_fingerprint": "",
    }
    data = adapter.to_zip()
    ref = AdapterRef(**fields, sha256=hashlib.sha256(data).hexdigest())
    made = Exporter(lambda _: data, {"alias": str(base)}, Scratch(folder.parent)).make(
        runtime, ExportRequest(base="alias", adapter=ref, format=form)
    )
    try:
        return unpacked(made, folder)
    finally:
        made.unlink()


def served(runtime: Runtime, adapter: Adapter) -> Tensor:
    bank = Bank(runtime.basis, 1, device=runtime.device)
    bank.write(1, adapter.to_row(runtime.basis), adapter.rank)
    with torch.no_grad(), use_slots(bank, torch.ones(1, dtype=torch.long)):
        return runtime.logits(runtime.hidden_states(TOKENS))


def plain(path: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        result: Tensor = model(input_ids=TOKENS).logits
    return result


def close(model: Any, runtime: Runtime, adapter: Adapter) -> None:
    torch.testing.assert_close(logits(model), served(runtime, adapter), rtol=1e-4, atol=1e-5)


def test_an_osora_zip_loads_in_peft(
    runtime: Runtime, adapter: Adapter, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OSORA_CACHE", str(tmp_path / "cache"))
    (tmp_path / "a.zip").write_bytes(adapter.to_zip())
    folder = unpacked(tmp_path / "a.zip", tmp_path / "a")
    assert {file.name for file in folder.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    close(PeftModel.from_pretrained(plain(base), folder), runtime, adapter)


def test_a_lora_zip_loads_in_peft_and_names_the_base_as_the_world_does(
    runtime: Runtime, adapter: Adapter, base: Path, tmp_path: Path
) -> None:
    folder = export(runtime, adapter, base, "lora", tmp_path / "lora")
    assert {file.name for file in folder.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "owner/some-name"
    close(PeftModel.from_pretrained(plain(base), folder), runtime, adapter)


def test_a_merged_zip_is_a_whole_model(runtime: Runtime, adapter: Adapter, base: Path, tmp_path: Path) -> None:
    before = {file.name: file.stat().st_mode for file in base.iterdir()}
    folder = export(runtime, adapter, base, "merged", tmp_path / "merged")
    names = {file.name for file in folder.iterdir()}
    assert {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    } <= names
    close(plain(folder), runtime, adapter)
    settings = GenerationConfig.from_pretrained(folder)
    assert (settings.eos_token_id, settings.repetition_penalty) == ([2, 7], 1.5)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    chat = [{"role": "user", "content": "help"}]
    assert tokenizer.apply_chat_template(chat, tokenize=False) == runtime.tokenizer.apply_chat_template(
        chat, tokenize=False
    )
    assert before == {file.name: file.stat().st_mode for file in base.iterdir()}


def test_a_gguf_zip_is_one_file_with_a_modelfile_that_names_it(
    runtime: Runtime, adapter: Adapter, base: Path, tmp_path: Path
) -> None:
    folder = export(runtime, adapter, base, "gguf", tmp_path / "gguf")
    file = "ft-alias-default-tickets-abc.gguf"
    assert {path.name for path in folder.iterdir()} == {file, "Modelfile", "README.md"}
    modelfile = (folder / "Modelfile").read_text(encoding="utf-8")
    assert modelfile.startswith(f"FROM ./{file}\nTEMPLATE ")
    stops = re.findall(r'^PARAMETER stop "(.+)"$', modelfile, re.MULTILINE)
    assert sorted(runtime.tokenizer.convert_tokens_to_ids(stops)) == sorted(runtime.eos_ids)
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert f"`{file}` is the base owner/some-name" in readme
    assert f"-c {runtime.max_length} " in readme
    assert "$" not in readme
    loaded = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32).eval()
    close(loaded, runtime, adapter)


def test_a_base_that_no_gguf_is_written_of_is_refused_and_leaves_no_file(
    runtime: Runtime, adapter: Adapter, base: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(base, other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"hidden_act": "relu"}))
    with pytest.raises(UnsupportedBase, match="activation is 'relu'"):
        export(runtime, adapter, other, "gguf", tmp_path / "gguf")
    assert list(tmp_path.glob("tmp/*/export-*")) == []


def test_an_export_without_room_names_where_to_make_it_and_no_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=7))
    with pytest.raises(ServerError) as refused:
        exports._require_room(tmp_path, cast(Any, SimpleNamespace(name="tiny", bytes=100)))
    assert str(tmp_path) not in str(refused.value)
    assert "OSORA_DATA_DIR" in refused.value.body["error"]["next_action"]
