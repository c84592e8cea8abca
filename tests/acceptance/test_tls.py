"""The proxy as docs/deploy.md has it: a real Caddy with docker/Caddyfile before the real service."""

import contextlib
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from osora import Osora
from tests.acceptance.conftest import BASE, Service
from tests.support.ports import free_port

CADDYFILE = Path(__file__).parents[2] / "docker" / "Caddyfile"
CADDY = shutil.which("caddy", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")

pytestmark = pytest.mark.skipif(CADDY is None, reason="there is no Caddy for this machine")


@pytest.fixture(scope="module")
def proxy(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, ssl.SSLContext]]:
    """Its address, and what trusts the certificate that it made for `localhost`."""
    folder = tmp_path_factory.mktemp("caddy")
    port = free_port()
    env = {
        **os.environ,
        "OSORA_DOMAIN": f"localhost:{port}",
        "OSORA_API": service.url.removeprefix("http://"),
        "XDG_DATA_HOME": str(folder),
        "XDG_CONFIG_HOME": str(folder),
    }
    adapted = subprocess.run(
        [str(CADDY), "adapt", "--config", CADDYFILE], env=env, capture_output=True, check=True, timeout=60
    )
    config = json.loads(adapted.stdout)
    (server,) = config["apps"]["http"]["servers"].values()
    server["automatic_https"] = {"disable_redirects": True}  # port 80 is not the tests' to take
    (folder / "caddy.json").write_text(json.dumps(config))
    command = [str(CADDY), "run", "--config", str(folder / "caddy.json")]
    with (
        (folder / "caddy.log").open("wb") as log,
        subprocess.Popen(command, env=env, stderr=log) as caddy,
    ):
        try:
            trust = wait_until_ready(caddy, port, folder)
            yield f"https://localhost:{port}", trust
        finally:
            caddy.terminate()
            caddy.wait(60)


def wait_until_ready(caddy: "subprocess.Popen[bytes]", port: int, folder: Path) -> ssl.SSLContext:
    """What trusts its certificate, once it answers with that: what it logs of it comes before."""
    root = folder / "caddy" / "pki" / "authorities" / "local" / "root.crt"
    deadline = time.monotonic() + 120
    while caddy.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError):  # no file, nobody at the port, no certificate
            trust = ssl.create_default_context(cafile=str(root))
            with socket.create_connection(("localhost", port), timeout=60) as connection:
                trust.wrap_socket(connection, server_hostname="localhost").close()
            return trust
        time.sleep(0.1)
    raise AssertionError((folder / "caddy.log").read_text())


def test_a_client_reaches_the_service_by_tls_alone(proxy: tuple[str, ssl.SSLContext], service: Service) -> None:
    url, trust = proxy
    with httpx.Client(base_url=url, verify=trust, timeout=60) as http:
        assert http.get("/health").json()["status"] == "ok"
        assert http.get("/jobs").status_code == 401
        assert http.get("/jobs", headers={"Authorization": f"Bearer {service.key}"}).status_code == 200
        inside = http.get("/internal/objects/x", headers={"Authorization": "Bearer x"})
        assert (inside.status_code, inside.content) == (404, b"")  # the proxy's: the service would ask for a token
    with httpx.Client(base_url=url.replace("https", "http"), timeout=60) as http:
        assert http.get("/health").status_code == 400


def test_tokens_come_through_the_proxy_as_they_are_made(proxy: tuple[str, ssl.SSLContext], service: Service) -> None:
    url, trust = proxy
    with Osora(url, service.key, http_client=httpx.Client(verify=trust, timeout=60)) as osora:
        pieces = list(osora.stream("Once upon a time", base=BASE, max_tokens=8, stop=[]))
        assert len(pieces) > 1
