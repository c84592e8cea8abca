"""What can be uploaded."""

import io
import zipfile
from email.message import Message
from email.parser import BytesParser
from pathlib import Path
from typing import Any

import httpx
import pytest

from osora import OsoraAPIError, OsoraUsageError

from .conftest import Connect


def parts(request: httpx.Request) -> dict[str, Message]:
    """A multipart form's fields by name."""
    head = b"content-type: " + request.headers["content-type"].encode() + b"\n\n"
    form = BytesParser().parsebytes(head + request.read())
    return {str(part.get_param("name", header="content-disposition")): part for part in form.get_payload()}  # type: ignore[union-attr]


@pytest.fixture
def asked() -> list[dict[str, Message]]:
    return []


@pytest.fixture
def answer(asked: list[dict[str, Message]]) -> Any:
    def play(request: httpx.Request) -> httpx.Response:
        asked.append(parts(request))
        return httpx.Response(200, json={"id": "x-1"})

    return play


@pytest.mark.parametrize("file", [io.StringIO("{}"), 3, object()], ids=["text", "number", "object"])
def test_what_is_no_file_is_refused(connect: Connect, answer: Any, asked: list[Any], file: Any) -> None:
    client = connect(answer)
    with pytest.raises(OsoraUsageError, match="opened with 'rb'"):
        client.got(client.osora.files.upload(file))
    assert asked == []


def test_a_path_that_is_not_there(connect: Connect, answer: Any, tmp_path: Path) -> None:
    client = connect(answer)
    with pytest.raises(FileNotFoundError):
        client.got(client.osora.files.upload(tmp_path / "none.jsonl"))


def test_a_file_is_sent_from_where_it_stands(connect: Connect, answer: Any, asked: list[dict[str, Message]]) -> None:
    client, file = connect(answer), io.BytesIO(b"skipped sent")
    file.seek(8)
    client.got(client.osora.files.upload(file, filename="é.jsonl"))
    assert asked[0]["file"].get_payload(decode=True) == b"sent"


@pytest.mark.parametrize("key", [None, "mine"])
def test_parts_that_are_there_stay_for_a_caller_who_has_a_key_to_come_back_with(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, key: str | None
) -> None:
    """Cancelled, the upload would be what the same key is answered with."""
    monkeypatch.setattr("osora.sdk.files._PART_BYTES", 4)
    asked: list[str] = []

    def play(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        if request.url.path.endswith("/parts") and asked.count(request.url.path) == 2:
            return httpx.Response(507, json={"error": {"message": "full"}})
        return httpx.Response(200, json={"id": "x-1"})

    client = connect(play)
    with pytest.raises(OsoraAPIError):
        client.got(client.osora.files.upload(b"12345678", idempotency_key=key))
    assert ("/uploads/x-1/cancel" in asked) is (key is None)


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_an_adapter_from_elsewhere(
    connect: Connect, answer: Any, asked: list[dict[str, Message]], tmp_path: Path, kind: str
) -> None:
    folder = tmp_path / "my-lora"
    (folder / "checkpoint-20").mkdir(parents=True)
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(b"\0" * 5000)
    (folder / "README.md").write_text("mine")
    source: Any = folder
    if kind == "zip":
        source = tmp_path / "my-lora.zip"
        with zipfile.ZipFile(source, "w") as archive:
            archive.write(folder / "adapter_config.json", "adapter_config.json")
            archive.write(folder / "adapter_model.safetensors", "adapter_model.safetensors")
    client, progress = connect(answer), []
    client.got(client.osora.adapters.upload(source, "tiny", "mine", on_progress=lambda *told: progress.append(told)))
    (form,) = asked
    assert form["file"].get_filename() == "my-lora.zip"
    content = form["file"].get_payload(decode=True)
    assert isinstance(content, bytes)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.namelist() == ["adapter_config.json", "adapter_model.safetensors"]
    assert [form[name].get_payload() for name in ("base", "suffix")] == ["tiny", "mine"]
    assert progress[-1] == (len(content), len(content))


def test_a_folder_that_is_no_adapter(connect: Connect, answer: Any, asked: list[Any], tmp_path: Path) -> None:
    (tmp_path / "adapter_model.bin").touch()
    client = connect(answer)
    with pytest.raises(OsoraUsageError, match=r"no adapter_config\.json and no adapter_model\.safetensors"):
        client.got(client.osora.adapters.upload(tmp_path))
    assert asked == []


def test_a_page_is_not_saved_for_what_was_asked(connect: Connect, tmp_path: Path) -> None:
    """A proxy that wants somebody to log in answers everything with 200."""
    client = connect(lambda _: httpx.Response(200, html="<html>Log in</html>"))
    for download in (client.osora.adapters.download, client.osora.files.download):
        with pytest.raises(OsoraAPIError, match="is not Osora") as caught:
            client.got(download("x-1", tmp_path / "a.zip"))
        assert caught.value.code == "not_osora"
    assert list(tmp_path.iterdir()) == []
