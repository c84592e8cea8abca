"""`osora adapters import`: a folder or a ZIP becomes one call, and what the service has to say is shown."""

import json
from pathlib import Path
from typing import Any

import pytest

from osora import sdk
from tests.support.archives import CONFIG, WEIGHTS, archive, lora_weights
from tests.unit.osora.conftest import FakeService
from tests.unit.osora.test_cli import osora

MADE = {"id": "adp-1", "name": "ft:tiny:default:mine:x", "type": "lora", "rank": 4, "warnings": ["another base"]}


@pytest.fixture
def sent(service: FakeService, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    calls: list[tuple[Any, ...]] = []

    def upload(_: object, source: Path, base: str | None = None, suffix: str | None = None) -> dict[str, Any]:
        calls.append((source, base, suffix))
        return MADE

    adapters = type(sdk.Osora(service.url, "osk-x").adapters)
    monkeypatch.setattr(adapters, "upload", upload, raising=False)
    return calls


def test_a_folder_and_a_zip(sent: list[tuple[Any, ...]], tmp_path: Path) -> None:
    folder, packed = tmp_path / "lora", tmp_path / "lora.zip"
    folder.mkdir()
    (folder / CONFIG).write_text("{}")
    (folder / WEIGHTS).write_bytes(lora_weights())
    packed.write_bytes(archive())
    told = osora("adapters", "import", str(folder), "--suffix", "mine")
    assert told.exit_code == 0
    assert "ft:tiny:default:mine:x" in told.output
    assert "Note: another base." in told.output
    assert json.loads(osora("adapters", "import", str(packed), "--base", "tiny", "--json").stdout) == MADE
    assert sent == [(folder, None, "mine"), (packed, "tiny", None)]


def test_what_is_no_adapter_is_not_sent(sent: list[tuple[Any, ...]], tmp_path: Path) -> None:
    empty = osora("adapters", "import", str(tmp_path))
    assert empty.exit_code == 2
    assert "save_pretrained wrote" in " ".join(empty.output.split())
    assert osora("adapters", "import", str(tmp_path / "gone")).exit_code == 2
    assert sent == []
