"""Bases without a chat template, and bases that cannot be used: said when a file or a job comes, not when it runs."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from registry.settings import Settings
from tests.integration.api.conftest import error_of
from tests.integration.api.servers import running
from tests.support.jobs import CHAT_ROW

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

COMPLETIONS = '{"prompt": "a", "completion": "b"}\n'
CHATS = json.dumps(CHAT_ROW) + "\n"
PREFERENCES = json.dumps(
    {
        "input": {"messages": [{"role": "user", "content": "a"}]},
        "preferred_output": [{"role": "assistant", "content": "b"}],
        "non_preferred_output": [{"role": "assistant", "content": "c"}],
    }
)


def folder(path: Path, family: str = "llama") -> Path:
    path.mkdir()
    (path / "config.json").write_text(json.dumps({"model_type": family}))
    return path


@pytest.fixture
def bases(tmp_path: Path) -> str:
    return f"plain={folder(tmp_path / 'plain')}"


@pytest.fixture
def settings(settings: Settings, bases: str) -> Settings:
    return settings.model_copy(update={"bases": bases})


def upload(client: httpx.Client, text: str) -> httpx.Response:
    return client.post("/files", data={"purpose": "fine-tune"}, files={"file": ("rows.jsonl", text)})


def start(client: httpx.Client, base: str, text: str, **more: object) -> httpx.Response:
    file_id = upload(client, text).json()["id"]
    return client.post("/jobs", json={"model": base, "training_file": file_id, **more})


@pytest.mark.parametrize("text", [CHATS, PREFERENCES])
def test_conversations_are_refused_at_upload_where_no_base_has_a_template(client: httpx.Client, text: str) -> None:
    error = error_of(upload(client, text), 400)
    assert (error["code"], error["param"]) == ("invalid_file", "file")
    assert error["message"] == "the file's rows are conversations, and no base here has a chat template (plain)"
    assert "prompt" in error["next_action"]
    assert client.get("/files").json()["data"] == []
    assert start(client, "plain", COMPLETIONS).status_code == 200


class TestTwoBases:
    @pytest.fixture
    def bases(self, tmp_path: Path) -> str:
        broken, elsewhere = folder(tmp_path / "broken", "mamba"), tmp_path / "elsewhere"
        return f"osora-tiny,plain={folder(tmp_path / 'plain')},broken={broken},elsewhere={elsewhere}"

    def test_a_job_is_refused_where_its_base_has_no_template(self, client: httpx.Client) -> None:
        error = error_of(start(client, "plain", CHATS), 400)
        assert (error["code"], error["param"]) == ("invalid_training_data", "training_file")
        assert "holds conversations, and the base 'plain' has no chat template" in error["message"]
        assert error["next_action"].endswith("or choose a base with a chat template: osora-tiny")
        assert start(client, "osora-tiny", CHATS).status_code == 200

    def test_a_job_is_refused_on_a_base_that_cannot_be_used(self, client: httpx.Client) -> None:
        error = error_of(start(client, "broken", COMPLETIONS), 400)
        assert (error["code"], error["param"]) == ("model_unusable", "model")
        assert "family 'mamba'" in error["message"]
        assert client.get("/jobs").json()["data"] == []

    def test_of_a_base_that_only_its_worker_has_nothing_is_held_against_it(self, client: httpx.Client) -> None:
        assert start(client, "elsewhere", CHATS).status_code == 200

    def test_the_list_of_bases_tells(self, client: httpx.Client) -> None:
        listed = {base["name"]: base for base in client.get("/bases").json()["data"]}
        told = {name: (base["family"], base["has_chat_template"]) for name, base in listed.items()}
        nothing = (None, None)
        assert told == {
            "osora-tiny": ("llama", True), "plain": ("llama", False), "broken": nothing, "elsewhere": nothing
        }  # fmt: skip
        assert "family 'mamba'" in listed["broken"]["problem"]
        assert listed["plain"]["problem"] is None


class TestLoaded:
    """What the server says that has loaded a base counts, whatever its files say."""

    @pytest.fixture
    def inference_urls(self) -> Iterator[str]:
        app = FastAPI()
        told = {"name": "plain", "family": "llama", "has_chat_template": True}
        app.get("/bases")(lambda: {"data": [told]})
        with running(uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", loop="asyncio"))) as url:
            yield url

    def test_its_word_is_believed(self, client: httpx.Client) -> None:
        assert start(client, "plain", CHATS).status_code == 200
