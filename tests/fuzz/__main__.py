"""`python -m tests.fuzz`: Schemathesis over the whole document, against a real API process. `make fuzz`.

The requests are the same in every run; `--seed N` asks for others. Arguments are passed on to `schemathesis run`.
What is checked, and what is not and why, is in schemathesis.toml beside this file.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from registry import migrate, tenants
from registry.context import Registry
from registry.settings import Settings
from registry.tenants import ALL_SCOPES
from tests.integration.api.fake_inference import BASIS_KEY, FakeInference, result
from tests.integration.api.servers import running
from tests.support import redis_server
from tests.support.estate import build
from tests.support.ports import free_port

HERE = Path(__file__).parent
_SEED = "2026"
_TOKEN = "internal-token-of-the-fuzzing"


def main(arguments: list[str]) -> int:
    """Returns what Schemathesis does: 0 if nothing was found."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="osora-fuzz-")))
        broker = stack.enter_context(redis_server.server())
        fake = FakeInference(_TOKEN)
        fake.result = result(stop=None, tool_calls=None)  # what a real one always says as well
        inference = stack.enter_context(running(fake.server()))
        port = free_port()
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("OSORA_")},
            "OSORA_DATA_DIR": str(directory),
            "OSORA_BROKER_URL": broker,
            "OSORA_INFERENCE_URLS": inference,
            "OSORA_INTERNAL_TOKEN": _TOKEN,
            "OSORA_PORT": str(port),
            "OSORA_LOG_LEVEL": "WARNING",
            "OSORA_TRUSTED_PROXIES": "127.0.0.1",  # the hooks say where each request comes from
            "OSORA_WEBHOOKS_ALLOW_PRIVATE": "true",  # what the estate has is on this machine
        }
        os.environ.clear()
        os.environ.update(environment)
        key, told = _fill(Settings())
        stack.enter_context(_api(environment))
        command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(HERE / "schemathesis.toml"), "run"]
        command += [f"http://127.0.0.1:{port}/openapi.json", "--header", f"Authorization: Bearer {key}"]
        seed = [] if any(given.startswith("--seed") for given in arguments) else ["--seed", _SEED]
        told["SCHEMATHESIS_HOOKS"] = "tests.fuzz.hooks"
        return subprocess.run([*command, *seed, *arguments], env={**environment, **told}).returncode


def _fill(settings: Settings) -> tuple[str, dict[str, str]]:
    """Makes a database with something of everything. Returns a key to it, and what the hooks are to know."""
    migrate.upgrade(settings.database_url)
    with Registry.open(settings) as registry:
        with registry.transaction() as session:
            key, plaintext = tenants.create_key(session, tenants.DEFAULT_TENANT, "fuzzing", ALL_SCOPES)
            key_id = key.id
        estate = build(registry, tenants.DEFAULT_TENANT)
        registry.store.put(BASIS_KEY, b"a basis, as far as the API knows")
    ids = {**estate.ids, "neighbour": estate.neighbour}
    return plaintext, {"FUZZING_KEY_ID": key_id, "FUZZING_IDS": json.dumps(ids)}


@contextmanager
def _api(environment: dict[str, str]) -> Iterator[None]:
    """A running `python -m api`; what it logs comes to our standard error once it is ready."""
    command = [sys.executable, "-m", "api"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "ready\n" in process.stderr, "the API did not start"
        logged = threading.Thread(target=lambda: [sys.stderr.write(line) for line in process.stderr or ()])
        logged.start()
        try:
            yield
        finally:
            process.terminate()
            assert process.wait(60) == 0, "the API did not end well"
            logged.join()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
