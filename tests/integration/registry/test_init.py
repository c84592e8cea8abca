"""`python -m registry init`."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from registry import tenants
from registry.__main__ import init
from registry.context import Registry
from registry.settings import Settings


def holder(settings: Settings) -> tenants.Principal:
    with Registry.open(settings) as registry, registry.reading() as session:
        return tenants.authenticate(session, settings.local_key_path.read_text().strip())


def test_init_from_several_processes_at_once(tmp_path: Path) -> None:
    data_dir = tmp_path / "new" / "osora"
    environment = {**os.environ, "OSORA_DATA_DIR": str(data_dir)}
    command = [sys.executable, "-m", "registry", "init"]
    started = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for _ in range(3)
    ]
    assert [(process.communicate()[0], process.returncode) for process in started] == [(b"", 0)] * 3
    settings = Settings(data_dir=data_dir)
    assert stat.S_IMODE(settings.local_key_path.stat().st_mode) == 0o600
    assert stat.S_IMODE((data_dir / "osora.db").stat().st_mode) == 0o600
    assert stat.S_IMODE(data_dir.stat().st_mode) == 0o700
    who = holder(settings)
    assert (who.tenant_name, who.scopes) == ("default", frozenset(tenants.ALL_SCOPES))
    with Registry.open(settings) as registry, registry.reading() as session:
        assert len(tenants.list_keys(session, who)[0].data) == 1


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("OSORA_DATABASE_URL", "postgresql+psycopg://u:secret@127.0.0.1:1/x", b"u:***@127.0.0.1:1/x does not answer"),
        ("OSORA_LEASE_SECONDS", "soon", b"OSORA_LEASE_SECONDS is 'soon'"),
    ],
)
def test_a_wrong_setting_is_one_sentence(tmp_path: Path, name: str, value: str, said: bytes) -> None:
    environment = {**os.environ, "OSORA_DATA_DIR": str(tmp_path), name: value}
    done = subprocess.run([sys.executable, "-m", "registry", "init"], env=environment, capture_output=True, check=False)
    assert done.returncode != 0
    assert said in done.stderr
    assert done.stderr.count(b"\n") == 1
    assert b"secret" not in done.stderr


@pytest.mark.parametrize("leftover", ["osk-of-another-database\n", "", None])
def test_init_replaces_a_key_that_does_not_work(settings: Settings, leftover: str | None) -> None:
    init(settings)
    if leftover is None:
        settings.local_key_path.unlink()
    else:
        settings.local_key_path.write_text(leftover)
        settings.local_key_path.chmod(0o644)
    init(settings)
    assert holder(settings).tenant_name == "default"
    assert stat.S_IMODE(settings.local_key_path.stat().st_mode) == 0o600


def test_init_keeps_a_key_that_works(settings: Settings) -> None:
    init(settings)
    before = settings.local_key_path.read_text()
    init(settings)
    assert settings.local_key_path.read_text() == before
