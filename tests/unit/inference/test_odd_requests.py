"""What cannot be used is refused by name, in the one error shape, and the connection lives on."""

from typing import Any

import pytest

from inference.inputs import characters_of_tokens
from tests.support.tiny_base import make_tokenizer
from tests.unit.inference.conftest import InferenceServer

HALF = "\ud83d"


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


def messages(**fields: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": "fine"}, {"role": "user", "content": "fine", **fields}]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": f"a{HALF}b"}, "prompt"),
        ({"messages": messages(content=f"a{HALF}b")}, "messages.1.content"),
        ({"messages": messages(role=HALF)}, "messages.1.role"),
        ({"messages": messages(**{HALF: "x"})}, "messages.1"),
        ({"json_schema": {"properties": {"a": {"const": HALF}}}}, "json_schema.properties.a.const"),
        ({"json_schema": {"properties": {HALF: {}}}}, "json_schema.properties"),
        ({"regex": HALF}, "regex"),
        ({"stop": ["fine", HALF]}, "stop"),
        ({"logit_bias": {HALF: 1}}, "logit_bias"),
        ({"json_schema": nested(64)}, "json_schema"),
    ],
)
def test_a_text_that_is_none_is_refused_by_name(server: InferenceServer, fields: dict[str, Any], param: str) -> None:
    error = server.error(400, **fields)
    assert error["param"].startswith(param)
    assert error["type"] == "invalid_request_error"
    assert server.text(), "on the same connection"


def test_an_unknown_field_is_of_no_interest_whatever_it_is_called(server: InferenceServer) -> None:
    assert server.text(**{HALF: HALF})


def test_what_nobody_foresaw_has_the_one_shape_and_leaves_the_connection_open(
    server: InferenceServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(text: str) -> list[int]:
        raise LookupError("a secret")

    monkeypatch.setattr(server.served.renderer, "encode", fail)
    for stream in (False, True):
        error = server.error(500, stream=stream)
        assert error["code"] == "internal_error"
        assert "secret" not in str(error)
    monkeypatch.undo()
    assert server.text()


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nowhere", 404), ("GET", "/generate", 405)])
def test_a_path_or_method_that_is_none_has_the_one_shape(
    server: InferenceServer, method: str, path: str, status: int
) -> None:
    answer = server.http.request(method, path)
    assert answer.status_code == status
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_a_body_that_is_no_json_has_the_one_shape(server: InferenceServer) -> None:
    for content in (b"{", b"[" * 100_000, b'{"a": "\xff"}'):
        answer = server.http.post("/generate", content=content, headers={"content-type": "application/json"})
        assert answer.status_code == 400
        assert answer.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("strength", [1e30, -1e30, 1e38, 1e300])
def test_a_strength_that_no_number_bears_is_the_callers_mistake(server: InferenceServer, strength: float) -> None:
    ref = server.publish("a")
    error = server.error(400, adapter=ref, strength=strength)
    assert error["param"] == "strength"
    assert f"{strength:g}" in error["message"]
    assert server.text(adapter=ref, strength=0.5)


def test_a_tiny_temperature_is_greedy(server: InferenceServer) -> None:
    assert server.text(temperature=1e-40, seed=1) == server.text()


def test_no_text_of_so_many_tokens_has_more_characters() -> None:
    tokenizer = make_tokenizer()
    text = "the customer asks for help with the order " * 50 + "👍🏽é\n\n\t" * 30
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert len(text) <= characters_of_tokens(tokenizer, len(tokens))
