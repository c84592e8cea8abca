"""`osora tenant limits` and `osora key limits`, against a service that is played."""

import pytest
from typer.testing import CliRunner, Result

from osora.cli import app

from .conftest import Answer, FakeService

LIMITS = {
    "owner": "tenant-1",
    "limits": {"requests_per_minute": 600, "stored_bytes": "unlimited"},
    "overrides": {"requests_per_minute": 600},
    "used": {"stored_bytes": 4321},
}
PATHS = [(["tenant", "limits", "acme"], "/tenants/acme/limits"), (["key", "limits", "key-1"], "/keys/key-1/limits")]


def osora(*words: str) -> Result:
    return CliRunner().invoke(app, words)


@pytest.mark.parametrize(("command", "path"), PATHS)
def test_they_are_shown_set_one_by_one_and_reset(service: FakeService, command: list[str], path: str) -> None:
    for method in ("GET", "PUT", "DELETE"):
        service.on(method, path, Answer(body=LIMITS))
    shown = osora(*command)
    assert shown.exit_code == 0, shown.output
    lines = {line.split()[0]: line.split()[1:] for line in shown.output.splitlines()}
    assert lines["requests_per_minute"] == ["600", "yes"]
    assert lines["stored_bytes"] == ["unlimited", "4321"]

    assert osora(*command, "--set", "stored_bytes=unlimited", "--set", "queued_jobs=7").exit_code == 0
    # What is not named stays as it was set.
    assert service.requests[-1].json == {"requests_per_minute": 600, "stored_bytes": "unlimited", "queued_jobs": 7}
    assert osora(*command, "--reset").exit_code == 0
    assert service.requests[-1].method == "DELETE"


@pytest.mark.parametrize(
    ("words", "said"), [(["--set", "queued_jobs"], "NAME=VALUE"), (["--set", "a=1", "--reset"], "--reset")]
)
def test_wrong_usage_asks_the_service_nothing(service: FakeService, words: list[str], said: str) -> None:
    result = osora("tenant", "limits", "acme", *words)
    assert result.exit_code == 2
    assert said in result.output
    assert service.requests == []
