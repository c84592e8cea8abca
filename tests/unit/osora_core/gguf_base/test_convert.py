"""GGUF files made into folders of safetensors: the same values, in parts that outlast a kill."""

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from transformers import AutoModelForCausalLM

from osora_core import gguf_base
from osora_core.errors import UnsupportedBase, UserError
from osora_core.gguf_base.head import GgufFile
from tests.support.gguf import make_base
from tests.support.gguf_bases import write_gguf

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.frombuffer.*:UserWarning"),
]
TOKENS = torch.randint(3, 250, (1, 60), generator=torch.Generator().manual_seed(1))
SMALL = 16 * 1024


def nothing(_: float) -> None:
    """Nobody watches."""


def logits(folder: Path) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)(TOKENS).logits
    return found


@pytest.mark.parametrize(
    "kind",
    ["llama", "llama, tied", "llama, llama3", "llama, linear", "llama, yarn", "qwen2, yarn", "qwen3", "gemma"],
)
def test_a_base_comes_back_as_it_was(tmp_path: Path, kind: str) -> None:
    base = make_base(tmp_path / "base", kind)
    file = write_gguf(base, tmp_path / "a.gguf")
    gguf_base.convert(file, "x" * 64, tmp_path / "out", nothing)
    before = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).state_dict()
    after = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).state_dict()
    assert before.keys() == after.keys()
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=0, atol=1e-6)  # shifted norms round
    torch.testing.assert_close(logits(tmp_path / "out"), logits(base), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q5_0", "Q8_0", "BF16", "F16"])
def test_quantised_values_are_those_of_the_library(tmp_path: Path, kind: str) -> None:
    base = make_base(tmp_path / "base", "llama, tied")
    quantised = gguf.GGMLQuantizationType[kind]
    file = write_gguf(base, tmp_path / "a.gguf", quantised)
    assert quantised in {tensor.tensor_type for tensor in gguf.GGUFReader(file).tensors}
    gguf_base.convert(file, "x" * 64, tmp_path / "out", nothing)
    exact = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).state_dict()
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).state_dict()
    for name, value in exact.items():
        own = value.numpy()
        if own.ndim == 2 and own.shape[-1] % gguf.GGML_QUANT_SIZES[quantised][0] == 0:
            # Rows are in another order in the file, and each is quantised by itself.
            own = gguf.dequantize(gguf.quantize(own, quantised), quantised)
        torch.testing.assert_close(found[name], torch.from_numpy(own), rtol=0, atol=0)


def refused(file: Path, folder: Path) -> UserError:
    with pytest.raises(UserError) as caught:
        gguf_base.convert(file, "x" * 64, folder, nothing)
    assert not folder.exists()
    assert caught.value.next_action
    return caught.value


def test_what_is_not_known_is_refused_by_name(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", "llama")
    family = write_gguf(base, tmp_path / "family.gguf", architecture="mamba")
    assert "'mamba'" in refused(family, tmp_path / "1").message
    scaled = write_gguf(base, tmp_path / "scale.gguf", more=lambda writer: writer.add_logit_scale(2.0))
    assert "llama.logit_scale" in refused(scaled, tmp_path / "2").message

    def expert(writer: gguf.GGUFWriter) -> None:
        writer.add_tensor("blk.0.ffn_gate_inp.weight", torch.ones(4, 32).numpy())

    error = refused(write_gguf(base, tmp_path / "expert.gguf", more=expert), tmp_path / "3")
    assert "blk.0.ffn_gate_inp.weight" in error.message
    assert isinstance(error, UnsupportedBase)
    renamed = write_gguf(base, tmp_path / "renamed.gguf", renamed={"blk.1.attn_k.weight": "blk.1.attn_x.weight"})
    assert "model.layers.1.self_attn.k_proj.weight" in refused(renamed, tmp_path / "4").message


def test_what_is_no_whole_gguf_file_is_refused(tmp_path: Path) -> None:
    whole = write_gguf(make_base(tmp_path / "base", "llama"), tmp_path / "a.gguf").read_bytes()
    for number, content in enumerate((b"", b"GGUF", b"not one at all" * 100, whole[: len(whole) // 2])):
        file = tmp_path / f"{number}.gguf"
        file.write_bytes(content)
        assert "cannot be read as a GGUF file" in refused(file, tmp_path / "out").message


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


ENDLESS = {
    "a list": text("a") + struct.pack("<IIQ", 9, 0, 2**60),
    "a list of texts": text("a") + struct.pack("<IIQ", 9, 8, 2**60),
    "a text": text("a") + struct.pack("<IQ", 8, 2**62),
    "its settings": b"",
}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("what", ENDLESS)
def test_counts_that_the_file_has_no_room_for_are_not_believed(tmp_path: Path, what: str) -> None:
    file = tmp_path / "a.gguf"
    file.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 1, 1 if ENDLESS[what] else 2**60) + ENDLESS[what])
    assert "it is cut short or damaged" in refused(file, tmp_path / "out").message


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("block_count", 2**31, "2147483648 layers, and only 1 tensors"),
        ("block_count", 0, "llama.block_count of 0"),
        ("attention.head_count", 0, "llama.attention.head_count of 0"),
        ("attention.head_count_kv", 0, "llama.attention.head_count_kv of 0"),
        ("embedding_length", "wide", "llama.embedding_length of 'wide'"),
        ("feed_forward_length", [8, 16], "another llama.feed_forward_length in each layer"),
    ],
)
def test_sizes_that_no_model_has_are_refused(tmp_path: Path, setting: str, value: Any, said: str) -> None:
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "llama")
    sizes: dict[str, Any] = {
        "block_count": 1, "context_length": 64, "embedding_length": 32, "feed_forward_length": 64,
        "attention.head_count": 4,
    }  # fmt: skip
    for name, size in {**sizes, setting: value}.items():
        add = {int: writer.add_uint32, str: writer.add_string, list: writer.add_array}[type(size)]
        add(f"llama.{name}", size)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tensor("token_embd.weight", torch.ones(8, 32).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert said in refused(tmp_path / "a.gguf", tmp_path / "out").message


def test_a_conversion_that_was_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", "llama")
    file, out = write_gguf(base, tmp_path / "a.gguf"), tmp_path / "out"
    program = (
        "import os, signal, sys; from pathlib import Path; from osora_core import gguf_base\n"
        "def stop(part):\n"
        "    if part > 0.5: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"gguf_base.convert(Path({str(file)!r}), 'x' * 64, Path({str(out)!r}), stop, {SMALL})\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[4], check=False, timeout=300)
    assert done.returncode == -signal.SIGKILL
    assert not gguf_base.is_converted(out)
    assert not out.exists()
    draft = out.with_name("out.partial")
    made = {path.name: path.stat().st_mtime_ns for path in draft.glob("*.safetensors")}
    assert len(made) > 2
    spoilt = sorted(made)[0]
    (draft / spoilt).write_bytes(b"swallowed by the disk")
    gguf_base.convert(file, "x" * 64, out, nothing, SMALL)
    kept = {name for name, at in made.items() if (out / name).stat().st_mtime_ns == at}
    assert kept == made.keys() - {spoilt}
    torch.testing.assert_close(logits(out), logits(base))


def test_parts_of_another_file_are_not_gone_on_with(tmp_path: Path) -> None:
    out, kinds = tmp_path / "out", ("llama", "llama, tied")
    first, second = (write_gguf(make_base(tmp_path / kind, kind), tmp_path / f"{kind}.gguf") for kind in kinds)

    def interrupted(part: float) -> None:
        if part > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gguf_base.convert(first, "1" * 64, out, interrupted, SMALL)
    gguf_base.convert(second, "2" * 64, out, nothing, SMALL)
    torch.testing.assert_close(logits(out), logits(tmp_path / "llama, tied"))


def test_what_has_lost_a_file_is_made_anew(tmp_path: Path) -> None:
    file, out = write_gguf(make_base(tmp_path / "base", "llama"), tmp_path / "a.gguf"), tmp_path / "out"
    told: list[float] = []
    gguf_base.convert(file, "x" * 64, out, told.append)
    assert told == sorted(told)
    assert told[-1] == 1.0
    gguf_base.convert(file, "x" * 64, out, lambda _: pytest.fail("it was there"))
    (out / "tokenizer.json").unlink()
    assert not gguf_base.is_converted(out)
    gguf_base.convert(file, "x" * 64, out, nothing)
    assert gguf_base.is_converted(out)
    manifest = json.loads((out / "converted.json").read_text())
    assert set(manifest["files"]) == {name for name in os.listdir(out) if name != "converted.json"}


def test_a_disk_without_room_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_gguf(make_base(tmp_path / "base", "llama"), tmp_path / "a.gguf")
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert "1,000 are free" in refused(file, tmp_path / "out").message


def test_several_parts_are_refused(tmp_path: Path) -> None:
    file = write_gguf(
        make_base(tmp_path / "base", "llama"), tmp_path / "a.gguf", more=lambda w: w.add_uint16("split.count", 3)
    )
    with pytest.raises(UserError, match="one of 3 parts"):
        GgufFile.open(file)
