"""A base prepared in a process of its own, which says what is wrong with it rather than die of it."""

import io
import json
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from osora_core import base_making
from osora_core.base_making import Order
from tests.support.tiny_base import make_base


def said(monkeypatch: pytest.MonkeyPatch, order: Order) -> dict[str, Any]:
    """The last line that comes out."""
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(asdict(order)) + "\n"))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(base_making, "_end_with_input", lambda: None)
    monkeypatch.setattr(base_making, "give_way", lambda: None)
    base_making.main()
    last: dict[str, Any] = json.loads(out.getvalue().splitlines()[-1])
    return last


@pytest.fixture
def order(tmp_path: Path) -> Order:
    folder = tmp_path / "base"
    make_base(folder)
    return Order("second", str(folder), None, str(tmp_path / "data"), "cpu", 4)


@pytest.mark.parametrize(("setting", "value"), [("num_attention_heads", 0), ("hidden_size", "wide")])
def test_a_configuration_that_cannot_be_is_told_in_a_sentence(
    order: Order, monkeypatch: pytest.MonkeyPatch, setting: str, value: Any
) -> None:
    path = Path(order.source, "config.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), setting: value}))
    error = said(monkeypatch, order)["error"]
    assert "cannot be loaded: " in error["message"]
    assert "\n" not in error["message"]
    assert error["next_action"]


def test_what_a_library_stumbles_over_is_the_bases_fault_and_not_a_lack_of_memory(
    order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stumble(*_: Any, **__: Any) -> None:
        raise IndexError("list index\nout of range")

    with monkeypatch.context() as patch:
        patch.setattr(base_making.Runtime, "load", stumble)
        error = said(monkeypatch, order)["error"]
    assert error["message"] == (
        "the base 'second' cannot be used: preparing it fails with IndexError: list index out of range"
    )
    assert "workers' logs" in error["next_action"]


def test_a_folder_that_is_gone_is_told_in_a_sentence(order: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(order.source)
    assert order.source in said(monkeypatch, order)["error"]["message"]
