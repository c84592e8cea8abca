"""The documentation that `/docs` is made of."""

import re
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


def test_every_operation_is_in_one_section(schema: dict[str, Any]) -> None:
    sections = {name: operation["tags"] for name, operation in operations(schema)}
    assert (sections["post /files"], sections["post /v1/files"]) == (["files"], ["openai"])
    assert sections["post /v1/messages"] == ["anthropic"]
    assert all(len(tags) == 1 for tags in sections.values())


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
def test_the_pages_are_served_without_a_network(anonymous: httpx.Client) -> None:
    """Every address in the page is one of this server, and is there."""
    page = anonymous.get("/docs").text
    named = set(re.findall(r"""["']((?:https?:)?/[^"'<>]*)["']""", page))
    assert {"/openapi.json", "/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css"} <= named
    for address in named:
        assert address.startswith("/"), address
        assert not address.startswith("//"), address
        assert anonymous.get(address).status_code == 200, address
    assert "SwaggerUIBundle" in anonymous.get("/docs/swagger-ui-bundle.js").text
    style = anonymous.get("/docs/swagger-ui.css")
    assert style.headers["content-type"].startswith("text/css")
    assert re.findall(r"url\((?!\"?data:)[^)]*\)", style.text) == []
    assert anonymous.get("/openapi.json").json()["info"]["title"] == "Osora"
