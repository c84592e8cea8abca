"""The documentation that `/docs` is made of."""

from typing import Any

import httpx
import pytest

from api.app import create_app
from registry.settings import Settings


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return create_app(Settings()).openapi()


def operations(schema: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{method} {path}", operation)
        for path, methods in schema["paths"].items()
        for method, operation in methods.items()
    ]


def test_every_operation_is_described(schema: dict[str, Any]) -> None:
    for name, operation in operations(schema):
        assert operation["summary"], name
        assert operation["description"], name
        assert operation["tags"], name


def test_every_operation_declares_its_errors(schema: dict[str, Any]) -> None:
    for name, operation in operations(schema):
        responses = operation["responses"]
        assert "422" not in responses, name
        assert responses["default"]["content"]["application/json"]["schema"] == {
            "$ref": "#/components/schemas/ErrorBody"
        }
        if operation["tags"] != ["health"]:
            assert {"401", "403"} <= responses.keys(), name
            assert operation["security"], name


def test_every_request_has_an_example(schema: dict[str, Any]) -> None:
    components = schema["components"]["schemas"]
    for name, operation in operations(schema):
        for parameter in operation.get("parameters", []):
            if parameter["in"] == "path":
                assert parameter["schema"]["examples"], f"{name}: {parameter['name']}"
        for body in operation.get("requestBody", {}).get("content", {}).values():
            found = components[body["schema"]["$ref"].rpartition("/")[2]] if "$ref" in body["schema"] else None
            fields = body["schema"].get("properties", {}).values()
            assert (found and found["examples"]) or all("examples" in field for field in fields), name


def test_internal_routes_are_not_listed(schema: dict[str, Any]) -> None:
    assert not any(path.startswith("/internal") for path in schema["paths"])


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_the_pages_are_served(anonymous: httpx.Client) -> None:
    assert "swagger" in anonymous.get("/docs").text
    assert anonymous.get("/openapi.json").json()["info"]["title"] == "Osora"
