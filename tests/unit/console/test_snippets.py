"""Code to be copied runs as it is, and asks for the model that it is about."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from console.snippets import snippets
from tests.support.servers import LocalServer, QuietHandler, serving

MODEL = 'ft:osora-tiny:acme:it\'s "ours":1a2b'
ANSWER = {
    "text": "Hello back", "choices": [{"index": 0, "text": "Hello back", "finish_reason": "stop", "logprobs": None,
    "message": {"role": "assistant", "content": "Hello back"}}], "id": "x", "object": "x", "created": 1, "model": "x",
}  # fmt: skip


@pytest.fixture
def service() -> Iterator[tuple[str, list[tuple[str, str, Any]]]]:
    """An address, and what was asked there: path, key and body."""
    asked: list[tuple[str, str, Any]] = []

    class Handler(QuietHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            asked.append((self.path, self.headers["authorization"], body))
            answer = json.dumps(ANSWER).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

    with serving(LocalServer(("127.0.0.1", 0), Handler)) as url:
        yield url, asked


@pytest.mark.parametrize("is_chat", [True, False])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_snippet_runs_and_calls_the_model_at_its_strength(
    service: tuple[str, list[tuple[str, str, Any]]], number: int, is_chat: bool, tmp_path: Path
) -> None:
    url, asked = service
    snippet = snippets(url, MODEL, strength=0.5, is_chat=is_chat)[number]
    command = ["bash", "-c", snippet.text] if snippet.language == "bash" else [sys.executable, "-c", snippet.text]
    environment = {**os.environ, "OSORA_API_KEY": "osk-mine", "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert "Hello back" in run.stdout
    ((path, key, body),) = asked
    assert key == "Bearer osk-mine"
    if snippet.name == "openai":
        assert (path, body["model"]) == ("/v1/chat/completions" if is_chat else "/v1/completions", MODEL)
        assert body["osora"] == {"strength": 0.5}
    else:
        assert (path, body["adapter_id"], body["strength"]) == ("/generate", MODEL, 0.5)
    assert ("messages" in body, "prompt" in body) == (is_chat, not is_chat)


def test_nothing_is_said_of_a_strength_of_one() -> None:
    assert not any("strength" in snippet.text for snippet in snippets("http://osora.test", MODEL))
