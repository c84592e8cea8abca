"""Alive, and of use."""

import httpx
import pytest

from registry.context import Registry

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def test_health(anonymous: httpx.Client) -> None:
    assert anonymous.get("/health").json() == {"status": "ok"}


def test_ready_names_what_is_down(anonymous: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.health.endpoints._PATIENCE_SECONDS", 60)  # what is slow for once is not down
    response = anonymous.get("/ready")
    assert response.status_code == 503
    checks = response.json()["checks"]
    assert {name: check["ok"] for name, check in checks.items()} == {
        "broker": False,
        "database": True,
        "disk": True,
        "inference": False,
        "store": True,
    }
    assert checks["broker"]["needed"] is False


def test_a_database_without_tables(anonymous: httpx.Client, registry: Registry) -> None:
    with registry.transaction() as session:
        session.connection().exec_driver_sql("ALTER TABLE tenants RENAME TO elsewhere")
    assert anonymous.get("/ready").json()["checks"]["database"]["ok"] is False


def test_bases_without_a_server(client: httpx.Client) -> None:
    (base,) = client.get("/bases").json()["data"]
    assert (base["name"], base["loaded"], base["basis"]) == ("osora-tiny", False, None)
