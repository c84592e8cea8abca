import os
from pathlib import Path

import pytest

from inference.check import main


def test_bases_that_are_there_or_may_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setenv("OSORA_BASES", f"osora-tiny, mine={tmp_path}, Qwen/Qwen3-0.6B")
    main()


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
