"""A retry that reaches another process than the first attempt: that one was killed."""

import os
import subprocess
import sys
from collections.abc import Iterator

import httpx2
import pytest
from openai import OpenAI

from registry.context import Registry
from registry.settings import Settings
from tests.acceptance.conftest import free_port
from tests.integration.api.openai.lost_answers import LosesAnswers

ROWS = b'{"prompt": "I was charged twice.", "completion": " billing"}\n' * 12

# Hangs where it has said what it is about to make, and has not made it.
_HANGING = """
import sys, time
from registry import idempotency, jobs

def hang(*given, **asked):
    print("hanging", file=sys.stderr, flush=True)
    time.sleep(600)

idempotency.LEASE_SECONDS = 2
jobs.submit = hang
from api.__main__ import main
main()
"""


class Api:
    """The API as processes on one port, one after the other."""

    def __init__(self, settings: Settings) -> None:
        self.port = free_port()
        self._process: subprocess.Popen[str] | None = None
        self._environment = {
            **os.environ,
            "OSORA_DATA_DIR": str(settings.data_dir),
            "OSORA_DATABASE_URL": settings.database_url,
            "OSORA_BROKER_URL": settings.broker_url,
            "OSORA_PORT": str(self.port),
        }

    def start(self, program: str = "from api.__main__ import main; main()") -> None:
        command = [sys.executable, "-c", program]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=self._environment)
        self.wait_for("ready\n")

    def wait_for(self, line: str) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        assert line in self._process.stderr, "it has ended"

    def kill(self) -> None:
        if self._process is not None:
            with self._process as process:
                process.kill()

    def restart(self) -> None:
        self.kill()
        self.start()


@pytest.fixture
def api(settings: Settings, registry: Registry) -> Iterator[Api]:
    api = Api(settings)
    yield api
    api.kill()


def client(api: Api, key: str, transport: LosesAnswers) -> OpenAI:
    return OpenAI(
        base_url=f"http://127.0.0.1:{api.port}/v1",
        api_key=key,
        timeout=60,
        http_client=httpx2.Client(transport=transport),
    )


def test_after_it_was_made(api: Api, api_key: str) -> None:
    api.start()
    with client(api, api_key, transport := LosesAnswers(meanwhile=api.restart)) as openai:
        file = openai.files.create(file=("a.jsonl", ROWS), purpose="fine-tune")
        assert [one.id for one in openai.files.list()] == [file.id]
    assert transport.replayed == 1


def test_before_it_was_made(api: Api, api_key: str) -> None:
    api.start(_HANGING)
    transport = LosesAnswers(gives_up=lambda: api.wait_for("hanging\n"), meanwhile=api.restart)
    with client(api, api_key, LosesAnswers(attempts=0)) as openai:
        file = openai.files.create(file=("a.jsonl", ROWS), purpose="fine-tune")
    with client(api, api_key, transport) as openai:
        job = openai.fine_tuning.jobs.create(model="osora-tiny", training_file=file.id)
        assert [one.id for one in openai.fine_tuning.jobs.list()] == [job.id]
    assert transport.replayed == 0
