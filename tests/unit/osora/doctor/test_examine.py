"""`osora doctor` as a process, with the programs that it asks."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from registry import tenants
from registry.__main__ import init
from registry.added_bases import adding, preparing
from registry.context import Registry
from registry.settings import Settings
from tests.support.tiny_base import make_base

# A busy machine takes its time to import what the programs need: that is not what is looked at here.
PROGRAM = """
from osora.cli import main
from osora.doctor import examine, machine

examine._SECONDS = machine._TORCH_SECONDS = 300
main()
"""


def doctor(data_dir: Path, *words: str, **env: str) -> tuple[int, str]:
    command = [sys.executable, "-P", "-c", PROGRAM, "doctor", "--data-dir", str(data_dir), *words]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OSORA_")}
    done = subprocess.run(command, env={**clean, **env}, capture_output=True, text=True)
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_all_is_well_and_nothing_is_made(tmp_path: Path) -> None:
    code, said = doctor(tmp_path / "data")
    assert code == 0, said
    items = [line[7:].partition("  ")[0] for line in said.splitlines()]
    assert items == [
        "data directory", "settings", "database", "object store", "broker", "ports", "device", "base osora-tiny",
        "memory",
    ]  # fmt: skip
    assert all(line.startswith("ok") for line in said.splitlines())
    assert "family llama, a chat template" in said
    assert not (tmp_path / "data").exists()


def test_each_thing_that_is_wrong_has_a_next_step(tmp_path: Path) -> None:
    base = tmp_path / "mamba"
    base.mkdir()
    (base / "config.json").write_text('{"model_type": "mamba"}')
    code, said = doctor(
        tmp_path / "data",
        "--json",
        OSORA_BASES=f"osora-tiny,odd={base},typo=/nowhere",
        OSORA_DATABASE_URL="postgresql+psycopg://u:hush@127.0.0.1:9/x",
        OSORA_BROKER_URL="redis://127.0.0.1:9/0",
    )
    assert code == 1
    assert "hush" not in said
    told: dict[str, Any] = json.loads(said)
    assert told["ok"] is False
    found = {finding["item"]: finding for finding in told["findings"]}
    wrong = {item for item, finding in found.items() if not finding["ok"]}
    assert {"database", "broker", "base odd", "base typo"} <= wrong
    assert wrong.isdisjoint({"data directory", "settings", "object store", "device", "base osora-tiny"})
    assert all((finding["next_action"] is None) == finding["ok"] for finding in found.values())
    assert all("\n" not in finding["message"] for finding in found.values())


def test_settings_that_are_refused(tmp_path: Path) -> None:
    code, said = doctor(tmp_path / "data", OSORA_OBJECT_STORE="db:", OSORA_LEASE_SECONDS="inf")
    assert code == 1
    wrong = [line for line in said.splitlines() if line.startswith("WRONG")]
    assert len(wrong) == 2
    assert "OSORA_ARTIFACT_STORE" in wrong[0]
    assert "OSORA_LEASE_SECONDS is 'inf'" in wrong[1]
    assert all("Next: " in line for line in wrong)


def test_bases_that_were_added_are_looked_at_too(tmp_path: Path) -> None:
    data, base = tmp_path / "data", make_base(tmp_path / "base")
    settings = Settings(data_dir=data)
    init(settings)
    with Registry.open(settings) as registry:
        for name in ("second", "gone"):
            with registry.transaction() as session:
                operator = tenants.authenticate(session, settings.local_key_path.read_text().strip())
                adding.add(session, operator, settings, name, str(base if name == "second" else tmp_path / "gone"))
            with registry.transaction() as session:
                held = preparing.claim(session, "worker-1", 60)
            assert held is not None
            with registry.transaction() as session:
                assert preparing.finish(session, held, {})
    code, said = doctor(data, "--json")
    assert code == 1
    found = {finding["item"]: finding for finding in json.loads(said)["findings"]}
    assert found["base second"]["ok"]
    assert "family llama" in found["base second"]["message"]
    assert str(tmp_path / "gone") in found["base gone"]["message"]
    assert found["base gone"]["next_action"]
    assert set(found["base second"]) == set(found["memory"])
