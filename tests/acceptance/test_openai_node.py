"""OpenAI's client for Node, unmodified, against the real service."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.acceptance.conftest import BASE, Service, queue_at_rest

SUITE = Path(__file__).parent / "openai_node"


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs, with the client that they use beside them."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("Node and npm are not installed")
    folder = shutil.copytree(SUITE, tmp_path_factory.mktemp("node") / "suite")
    command = [npm, "install", "--no-audit", "--no-fund", "--no-package-lock", "--silent"]
    installed = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=200, check=False)
    if installed.returncode:
        pytest.skip(f"npm could not install OpenAI's client: {installed.stdout}{installed.stderr}")
    return folder


def test_what_the_client_for_node_can_do(suite: Path, service: Service, trained: str) -> None:
    reader = service.sdk.keys.create(name="node", tenant="default", scopes=["read"])["key"]
    env = {
        **os.environ,
        "OPENAI_BASE_URL": f"{service.url}/v1",
        "OPENAI_API_KEY": service.key,
        "READER_KEY": reader,
        "BASE": BASE,
        "MODEL": trained,
    }
    command = ["node", "--test", "--test-reporter=spec"]
    with queue_at_rest(service):  # the job that is made there is cancelled before there is a checkpoint
        done = subprocess.run(command, cwd=suite, env=env, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "pass 10" in done.stdout, done.stdout
