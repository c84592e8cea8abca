"""The worker's command."""

import logging
import os
from pathlib import Path

import pytest
import torch

from osora_core.runtime import Runtime
from registry.settings import get_settings
from worker import __main__ as command


@pytest.mark.parametrize(
    ("jobs", "advice"),
    [("auto", "Next: give this process more memory"), ("5000", "Next: lower OSORA_WORKER_JOBS, which is 5000")],
)
def test_memory_that_cannot_be_had_ends_it_with_one_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], jobs: str, advice: str
) -> None:
    """And with the status that says that to try again is no use."""

    def load(*_: object, **__: object) -> Runtime:
        torch.empty(2**50)
        raise AssertionError

    monkeypatch.setenv("OSORA_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("OSORA_WORKER_JOBS", jobs)
    monkeypatch.setattr(Runtime, "load", load)
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
    monkeypatch.setattr(command, "set_threads", lambda _: None)
    monkeypatch.setattr(command, "leave_out_values", lambda: None)
    get_settings.cache_clear()
    with pytest.raises(SystemExit) as ended:
        command.main()
    get_settings.cache_clear()
    assert ended.value.code == os.EX_CONFIG
    told = capsys.readouterr().err
    assert told.startswith(f"there is not enough memory for the bases in OSORA_BASES and their jobs. {advice}")
    assert told.count("\n") == 1
