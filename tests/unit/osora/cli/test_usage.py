"""`osora usage`: a table for people, JSON and CSV for programs."""

import json
from typing import Any
from urllib.parse import parse_qs

import pytest
from typer.testing import CliRunner, Result

from osora.cli import app

from ..conftest import Answer, FakeService

ROW: dict[str, Any] = {
    "id": "x", "object": "usage", "day": "2026-11-27", "tenant": None, "key_id": "key-1", "key_name": "ci",
    "base": "osora-tiny", "adapter_id": "adp-1", "kind": None, "requests": 12, "prompt_tokens": 340,
    "completion_tokens": 96, "trained_tokens": 0, "steps": 0, "compute_seconds": 0.0,
}  # fmt: skip


def osora(*words: str) -> Result:
    return CliRunner().invoke(app, ["usage", *words])


def test_a_line_for_each_sum_by_what_was_asked_for(service: FakeService) -> None:
    service.on("GET", "/usage", Answer(body={"data": [ROW, {**ROW, "adapter_id": None}], "has_more": False}))
    shown = osora("--by", "model", "--by", "key", "--since", "2026-11-01", "--tenant", "acme")
    head, first, second = shown.stdout.splitlines()
    assert head.split()[:3] == ["key", "model", "requests"]
    assert first.split() == ["ci", "adp-1", "12", "340", "96", "0", "0", "0.0"]
    assert second.split()[:2] == ["ci", "osora-tiny"]
    assert {name: values for name, values in parse_qs(service.requests[0].query).items() if name != "limit"} == {
        "group_by": ["model", "key"],
        "since": ["2026-11-01"],
        "tenant": ["acme"],
    }
    assert json.loads(osora("--json").stdout)[0] == ROW


def test_nothing_used_is_a_sentence(service: FakeService) -> None:
    service.on("GET", "/usage", Answer(body={"data": [], "has_more": False}))
    assert osora().stdout == "Nothing was used in these days.\n"


def test_csv_is_the_services_own_and_steers_no_terminal(service: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    service.on("GET", "/usage", Answer(body=b"day,key_name\r\n2026-11-27,\x1b[31mred\r\n"))
    assert osora("--csv").stdout == "day,key_name\n2026-11-27,\x1b[31mred\n"
    assert parse_qs(service.requests[0].query)["format"] == ["csv"]
    monkeypatch.setattr("osora.cli.output.is_terminal", lambda: True)
    assert "\x1b" not in osora("--csv").stdout
    both = osora("--csv", "--json")
    assert both.exit_code == 2
    assert "cannot be had together" in both.stderr
