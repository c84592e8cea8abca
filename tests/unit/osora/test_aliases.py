"""`osora aliases`, against a service that is played."""

import json

import pytest
from typer.testing import CliRunner, Result

from osora.cli import app

from .conftest import Answer, FakeService

NAME = "ft:gpt-4o-mini-2024-07-18:acme::abc"
OLD, NEW = "ft:osora-tiny:default::old", "ft:org/model:default::new"
ALIAS = {
    "object": "alias",
    "name": NAME,
    "targets": {OLD: 95, NEW: 5},
    "version": 2,
    "created_at": 1_700_000_000,
    "updated_at": 1_700_000_100,
}
VERSIONS = [
    {"version": 3, "targets": {}, "restored": None, "created_at": 1_700_000_200, "key_id": "key-1", "key_name": "ops"},
    {
        "version": 2,
        "targets": {OLD: 1},
        "restored": 1,
        "created_at": 1_700_000_100,
        "key_id": "key-2",
        "key_name": "ci",
    },
]


def osora(*words: str) -> Result:
    return CliRunner().invoke(app, ["aliases", *words])


@pytest.mark.parametrize(
    ("given", "targets"),
    [
        ([OLD], {OLD: 1}),
        ([f"{OLD}=95", f"{NEW}=5"], {OLD: 95, NEW: 5}),
        (["base=name", "osora-tiny"], {"base=name": 1, "osora-tiny": 1}),
    ],
)
def test_set(service: FakeService, given: list[str], targets: dict[str, int]) -> None:
    service.on("POST", "/aliases", Answer(body=ALIAS))
    result = osora("set", NAME, *given, "--expected-version", "1")
    assert result.exit_code == 0
    assert service.requests[-1].json == {"name": NAME, "targets": targets, "expected_version": 1}
    assert result.output == f"{NAME} stands for {OLD} 95%, {NEW} 5% (version 2)\n"


def test_a_target_twice(service: FakeService) -> None:
    result = osora("set", NAME, f"{OLD}=1", OLD)
    assert (result.exit_code, service.requests) == (2, [])
    assert "twice" in result.output


def test_list_and_show(service: FakeService) -> None:
    service.on("GET", "/aliases", Answer(body={"data": [ALIAS], "has_more": False}))
    for words in ([], ["list"]):
        heading, row = osora(*words).output.splitlines()
        assert heading.split() == ["name", "stands", "for", "version", "changed"]
        assert row.startswith(f"{NAME}  {OLD} 95%, {NEW} 5%  2")
    assert json.loads(osora("list", "--json").output) == [ALIAS]
    service.on("GET", f"/aliases/{NAME}", Answer(body=ALIAS))
    assert f"stands for     {OLD} 95%" in osora("show", NAME).output
    service.on("GET", "/aliases", Answer(body={"data": []}))
    assert "osora aliases set" in osora().output


def test_history(service: FakeService) -> None:
    service.on("GET", f"/aliases/{NAME}/history", Answer(body={"data": VERSIONS}))
    _, deleted, restored = osora("history", NAME).output.splitlines()
    assert "(deleted)" in deleted
    assert "ops" in deleted
    assert OLD in restored
    assert "roll-back to 1" in restored


def test_rollback_and_delete(service: FakeService) -> None:
    slashed = "acme/triage"
    service.on("POST", "/aliases/acme%2Ftriage/rollback", Answer(body={**ALIAS, "name": slashed}))
    assert osora("rollback", slashed).exit_code == 0
    assert service.requests[-1].json == {}
    assert osora("rollback", slashed, "--to", "2", "--expected-version", "5").exit_code == 0
    assert service.requests[-1].json == {"version": 2, "expected_version": 5}
    service.on("DELETE", "/aliases/acme%2Ftriage", Answer(body={"deleted": True}))
    assert f"osora aliases rollback {slashed}" in osora("delete", slashed).output


def test_what_is_not_there(service: FakeService) -> None:
    error = {"message": "no alias 'x'", "code": "alias_not_found", "next_action": "list the aliases for their names"}
    service.on("GET", "/aliases/x", Answer(404, {"error": error}))
    result = osora("show", "x")
    assert (result.exit_code, "no alias 'x'" in result.stderr) == (5, True)
