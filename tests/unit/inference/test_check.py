"""A base that cannot be used is said at once. The hub is a small server here, which does as real ones do."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from inference.check import main
from tests.support.servers import LocalServer, QuietHandler, serving

CONFIG = json.dumps({"model_type": "llama"}).encode()
# The command, for which the hub has a minute: here it is a thread that may be kept waiting.
PATIENT = """
import runpy
from osora_common import base_hub
base_hub._SECONDS = 60.0
runpy.run_module("inference.check", run_name="__main__")
"""
FILES = {"config.json": CONFIG, "model.safetensors": b"", "tokenizer.json": b"{}"}


def test_bases_that_are_there(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("OSORA_BASES", f"osora-tiny, mine={Path(__file__).parents[3] / 'models' / 'osora-tiny'}")
    main()
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("bases", ["osora-tinny", "mine=/nowhere/at/all", "osora-tiny,other=./missing"])
def test_a_base_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], bases: str
) -> None:
    monkeypatch.setenv("OSORA_BASES", bases)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == os.EX_CONFIG
    told = capsys.readouterr().err
    assert told.startswith(f"no base model called {bases.rpartition('=')[2]!r}")
    assert told.count("\n") == 1


class Hub:
    """Models by name: their files, or the status and the reason that the hub gives instead of any."""

    def __init__(self) -> None:
        self.models: dict[str, dict[str, bytes] | tuple[int, str]] = {}
        self.requests: list[str] = []
        hub = self

        class Handler(QuietHandler):
            def do_HEAD(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                hub.requests.append(f"{self.command} {self.path}")
                parts = self.path.partition("?")[0].strip("/").split("/")
                listing = parts[:2] == ["api", "models"]
                found = hub.models.get("/".join(parts[2:4] if listing else parts[:2]), (401, "RepoNotFound"))
                gated = isinstance(found, tuple) and found[1] == "GatedRepo"
                if listing and (gated or isinstance(found, dict)):
                    names = FILES if gated or not isinstance(found, dict) else found
                    return self.answer(200, json.dumps({"id": "x", "siblings": [{"rfilename": n} for n in names]}))
                if isinstance(found, tuple):
                    return self.answer(found[0], "{}", {"X-Error-Code": found[1]})
                headers = {"X-Repo-Commit": "a" * 40, "ETag": f'"{parts[-1]}"'}
                return self.answer(200, found[parts[-1]], headers)

            def answer(self, status: int, body: str | bytes, headers: dict[str, str] | None = None) -> None:
                content = body.encode() if isinstance(body, str) else body
                self.send_response(status)
                for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(content)

        self.handler, self.url = Handler, ""


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()
    with serving(LocalServer(("127.0.0.1", 0), hub.handler)) as hub.url:
        yield hub


@pytest.fixture
def check(hub: Hub, tmp_path: Path) -> Callable[..., tuple[int, str]]:
    def run(bases: str, **env: str) -> tuple[int, str]:
        """Status and last words of the command, as a process: the hub's library reads its settings at its import."""
        own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "HF_TOKEN": "", "HF_HUB_DOWNLOAD_TIMEOUT": "60"}
        done = subprocess.run(
            [sys.executable, "-c", PATIENT],
            env={**os.environ, **own, "OSORA_BASES": bases, **env},
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stderr

    return run


def test_a_model_of_the_hub_is_looked_at_before_it_is_downloaded(hub: Hub, check: Callable[..., Any]) -> None:
    hub.models["owner/fine"] = FILES
    hub.models["owner/mamba"] = {**FILES, "config.json": json.dumps({"model_type": "mamba"}).encode()}
    hub.models["owner/pickled"] = {"config.json": CONFIG, "pytorch_model.bin": b"", "tokenizer.json": b"{}"}
    hub.models["owner/adapter"] = {"adapter_config.json": b"{}"}
    assert check("owner/fine") == (0, "")
    assert not any("safetensors" in request for request in hub.requests)
    for name, said in {
        "mamba": "the base 'owner/mamba' cannot be used: the attention of its family 'mamba'",
        "pickled": "the base model 'owner/pickled' cannot be loaded: its weights are pickles (pytorch_model.bin)",
        "adapter": "the base model 'owner/adapter' cannot be loaded: the hub has no config.json of it",
    }.items():
        status, told = check(f"owner/{name}")
        assert (status, told.count("\n")) == (os.EX_CONFIG, 1)
        assert told.startswith(said)
        assert ". Next: " in told


@pytest.mark.parametrize(
    ("answer", "said", "next_step"),
    [
        ((401, "GatedRepo"), "the base model 'owner/name' is gated", "HF_TOKEN"),
        ((403, "GatedRepo"), "the base model 'owner/name' is gated", "HF_TOKEN"),
        ((404, "RepoNotFound"), "no base model called 'owner/name'", "HF_TOKEN"),
        ((500, ""), "the base model 'owner/name' is no directory here and cannot be downloaded", "the network"),
    ],
)
def test_a_hub_that_gives_nothing(
    hub: Hub, check: Callable[..., Any], answer: tuple[int, str], said: str, next_step: str
) -> None:
    hub.models["owner/name"] = answer
    status, told = check("owner/name")
    assert (status, told.count("\n")) == (os.EX_CONFIG, 1)
    assert told.startswith(said)
    assert next_step in told.partition("Next: ")[2]
    assert len(hub.requests) <= 3, hub.requests  # nothing is asked again


def test_without_a_network_what_was_downloaded_is_taken(hub: Hub, check: Callable[..., Any], tmp_path: Path) -> None:
    nowhere = {"HF_ENDPOINT": "http://127.0.0.1:9"}
    status, told = check("owner/name", **nowhere)
    assert (status, told.count("\n")) == (os.EX_CONFIG, 1)
    assert "http://127.0.0.1:9 does not answer" in told
    status, told = check("owner/name", HF_HUB_OFFLINE="1")
    assert (status, told.count("\n")) == (os.EX_CONFIG, 1)
    assert "was never downloaded, and HF_HUB_OFFLINE is set" in told
    assert hub.requests == []
    hub.models["owner/name"] = FILES
    assert check("owner/name") == (0, "")
    for off in (nowhere, {"HF_HUB_OFFLINE": "1"}):  # its small files alone are here: it was never loaded
        status, told = check("owner/name", **off)
        assert told.startswith("the base model 'owner/name' cannot be loaded: it has no model.safetensors")
    (snapshot,) = tmp_path.glob("hub/models--owner--name/snapshots/*")
    (snapshot / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    (snapshot / "tokenizer.json").write_text("{}")
    for off in (nowhere, {"HF_HUB_OFFLINE": "1"}):
        assert check("owner/name", **off) == (0, "")
