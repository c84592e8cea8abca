"""What a base's own files say against it, and of its family and chat template."""

import errno
import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest

from osora_common.base_facts import BaseFacts
from osora_common.base_lookup import local_facts, look_up, resolve
from osora_common.unusable_base import NoSuchBaseError, UnsupportedFamilyError, UnusableBaseError

ENTRY = {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}


def weights(size: int = 8) -> bytes:
    header = json.dumps({"__metadata__": {"format": "pt"}, **ENTRY}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(size)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(weights())
    return folder


def refusal(base: Path | str, kind: type[UnusableBaseError] = UnusableBaseError) -> str:
    with pytest.raises(kind) as refused:
        look_up(str(base))
    assert type(refused.value) is kind
    assert "\n" not in refused.value.message + refused.value.next_action
    assert refused.value.next_action
    return refused.value.message


def test_a_directory_and_a_bundled_base_are_found(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert look_up(str(base)) == (str(base), BaseFacts("llama", False))
    assert look_up("osora-tiny")[1] == BaseFacts("llama", True)
    assert resolve("owner/name") == "owner/name"
    monkeypatch.setenv("HOME", str(base.parent))
    assert resolve("~/base") == str(base)


def test_what_is_no_base_says_why(base: Path) -> None:
    assert "no directory with a config.json" in refusal("osora-tinny", NoSuchBaseError)
    assert "that directory has no config.json" in refusal(base.parent, NoSuchBaseError)
    assert "that is a file" in refusal(base / "config.json", NoSuchBaseError)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("{", "config.json: it is not JSON"),
        ("[]", "config.json is no JSON object"),
        ("{}", "config.json names no `model_type`"),
    ],
)
def test_a_configuration_that_is_none(base: Path, config: str, said: str) -> None:
    (base / "config.json").write_text(config)
    assert said in refusal(base)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": "clip"}, "no causal language model of its family 'clip'"),
        ({"model_type": "mine", "auto_map": {}}, "of its family 'mine'; code that a model brings along is not run"),
        ({"model_type": "bart", "is_encoder_decoder": True}, "its family 'bart' has an encoder"),
        ({"model_type": "bloom"}, "the attention of its family 'bloom' is written into the model"),
    ],
)
def test_a_family_that_cannot_be_used_needs_no_weights_to_be_refused(
    base: Path, config: dict[str, Any], said: str
) -> None:
    (base / "config.json").write_text(json.dumps(config))
    (base / "model.safetensors").unlink()
    assert said in refusal(base, UnsupportedFamilyError)


def test_weights_that_are_not_there_or_not_whole(base: Path) -> None:
    file = base / "model.safetensors"
    file.write_bytes(weights(7))
    size = len(weights(8))
    assert f"model.safetensors has {size - 1} bytes and should have {size}" in refusal(base)
    file.write_bytes(weights()[:20])
    assert "cut short or no safetensors file" in refusal(base)
    file.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    assert "only a pointer of Git LFS" in refusal(base)
    file.unlink()
    assert "it has no model.safetensors" in refusal(base)
    (base / "model.gguf").touch()
    assert "it has no model.safetensors, only model.gguf" in refusal(base)
    (base / "pytorch_model.bin").touch()
    assert "its weights are pickles (pytorch_model.bin)" in refusal(base)


DEEP = '{"model_type": ' + "[" * 100_000


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("config.json", DEEP.encode(), "config.json: it is nested too deeply"),
        ("model.safetensors", struct.pack("<Q", len(DEEP)) + DEEP.encode(), "cut short or no safetensors file"),
        ("model.safetensors", weights().replace(b"[0, 8]", b'[0,""]'), "cut short or no safetensors file"),
        ("model.safetensors.index.json", DEEP.encode(), "is not a list of its weights"),
    ],
)
def test_a_file_that_no_reader_gets_through(base: Path, name: str, content: bytes, said: str) -> None:
    if name.endswith("index.json"):
        (base / "model.safetensors").unlink()
    (base / name).write_bytes(content)
    assert said in refusal(base)


@pytest.mark.parametrize("name", ["tokenizer_config.json", "chat_template.jinja", "model.safetensors.index.json"])
def test_a_pipe_among_its_files_is_refused_and_not_waited_for(base: Path, name: str) -> None:
    os.mkfifo(base / name)
    assert f"{name} is no regular file" in refusal(base)
    with pytest.raises(UnusableBaseError):
        local_facts(str(base))


def test_a_link_that_leads_nowhere_is_as_if_it_were_not_there(base: Path) -> None:
    (base / "notes.txt").symlink_to(base / "gone")
    assert look_up(str(base))[1] == BaseFacts("llama", False)


@pytest.mark.parametrize("inner", [False, True])
def test_more_layers_than_weights_are_refused_before_any_is_made(base: Path, inner: bool) -> None:
    layers = {"num_hidden_layers": 50_000_000}
    config = {"model_type": "llama", **({"text_config": layers} if inner else layers)}
    (base / "config.json").write_text(json.dumps(config))
    assert "says 50000000 layers, and its files of weights have only 1 tensors" in refusal(base)


def test_a_name_that_the_system_refuses_is_no_base() -> None:
    for name, said in (("x" * 300, "File name too long"), ("~nobody-of-this-name/base", "home directory")):
        assert said in refusal(name, NoSuchBaseError)
        assert local_facts(name) == BaseFacts()


@pytest.mark.parametrize(
    ("method", "file", "kind"),
    [("stat", "config.json", NoSuchBaseError), ("open", "model.safetensors", UnusableBaseError)],
)
def test_what_may_not_be_read_says_so(
    base: Path, monkeypatch: pytest.MonkeyPatch, method: str, file: str, kind: type[UnusableBaseError]
) -> None:
    """Of a folder in another user's home, as a service with an account of its own sees it."""
    allowed = getattr(Path, method)

    def asked(path: Path, *args: Any, **kwargs: Any) -> Any:
        if path == base / file:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return allowed(path, *args, **kwargs)

    monkeypatch.setattr(Path, method, asked)
    assert "Permission denied" in refusal(base, kind)


def test_a_folder_that_may_not_be_listed_says_so(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def scandir(folder: Path) -> list[str]:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))

    monkeypatch.setattr(os, "scandir", scandir)
    assert "Permission denied" in refusal(base)


def test_one_of_several_files_of_weights_is_missing(base: Path) -> None:
    (base / "model.safetensors").rename(base / "model-1-of-2.safetensors")
    index = base / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}}))
    assert "1 of its 2 files of weights is missing, model-2-of-2.safetensors among them" in refusal(base)
    (base / "model-2-of-2.safetensors").write_bytes(weights())
    assert look_up(str(base))[0] == str(base)
    index.write_text("{}")
    assert "is not a list of its weights" in refusal(base)


@pytest.mark.parametrize(
    ("template", "has"),
    [
        (None, False),
        ("{{ messages }}", True),
        ([{"name": "default", "template": "x"}, {"name": "tool_use", "template": "y"}], True),
        ([{"name": "tool_use", "template": "y"}], False),
    ],
)
def test_whether_there_is_a_chat_template(base: Path, template: Any, has: bool) -> None:
    (base / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    assert local_facts(str(base)) == BaseFacts("llama", has)
    (base / "chat_template.jinja").write_text("{{ messages }}")
    assert local_facts(str(base)).has_chat_template is True


def test_of_a_base_that_is_elsewhere_nothing_is_known() -> None:
    """The process that loads it may have it, where this one has not."""
    assert local_facts("/models/of-another-machine") == BaseFacts()
    assert local_facts("owner/never-downloaded") == BaseFacts()
