"""Messages through Anthropic's door: what is asked, the object and the events, and what is refused."""

import json
import sys
from collections.abc import Callable
from typing import Any

import anthropic as package
import httpx
import pytest
from anthropic import Anthropic
from anthropic.types import Message, RawMessageStreamEvent
from pydantic import BaseModel, TypeAdapter

from registry.models import Adapter
from tests.integration.api.fake_inference import RESULT, FakeInference, result

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

Fakes = dict[str, FakeInference]
PATH = "/v1/messages"
JSON = {"content-type": "application/json"}
MESSAGES: Any = [{"role": "user", "content": "I was charged twice."}]
BODY: dict[str, Any] = {"model": "osora-tiny", "max_tokens": 9, "messages": MESSAGES}
WEATHER: Any = {
    "name": "weather",
    "description": "The weather now.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
CALLS = [
    {"id": f"call_{city}", "type": "function", "function": {"name": "weather", "arguments": f'{{"city": "{city}"}}'}}
    for city in ("Oslo", "Lima")
]


@pytest.fixture
def inference_urls(inference: Fakes) -> str:
    return next(iter(inference))


def refusal(response: httpx.Response, status: int) -> dict[str, Any]:
    """The error of an answer, in Anthropic's shape."""
    assert response.status_code == status, response.text
    body = response.json()
    assert (list(body), body["type"]) == (["type", "error"], "error")
    assert response.headers["request-id"] == response.headers["x-request-id"]
    error: dict[str, Any] = body["error"]
    assert error["message"]
    return error


def test_what_is_asked_for(anthropic: Anthropic, fake: FakeInference, adapter: Adapter) -> None:
    schema = {"type": "object", "properties": {"queue": {"type": "string"}}, "additionalProperties": False}
    message = anthropic.messages.create(
        model=adapter.name,
        max_tokens=9,
        system=[{"type": "text", "text": "Sort ", "cache_control": {"type": "ephemeral"}},
                {"type": "text", "text": "the ticket."}],
        messages=[
            {"role": "user", "content": [{"type": "text", "text": "I was "}, {"type": "text", "text": "charged."}]},
            {"role": "assistant", "content": "billing"},
            *MESSAGES,
        ],
        stop_sequences=["\n"],
        output_config={"format": {"type": "json_schema", "schema": schema}},
        metadata={"user_id": "customer-7"},
        thinking={"type": "disabled"},
        extra_body={"temperature": 0.5, "top_p": 0.9, "top_k": 4, "osora": {"strength": 0.5, "seed": 7}},
    )  # fmt: skip
    (asked,) = fake.asked
    assert asked["adapter"]["id"] == adapter.id
    assert asked["messages"] == [
        {"role": "system", "content": "Sort the ticket."},
        {"role": "user", "content": "I was charged."},
        {"role": "assistant", "content": "billing"},
        *MESSAGES,
    ]
    assert (asked["max_tokens"], asked["stop"], asked["json_schema"]) == (9, ["\n"], schema)
    assert (asked["temperature"], asked["top_p"], asked["top_k"]) == (0.5, 0.9, 4)
    assert (asked["strength"], asked["seed"], asked["n"], asked["stream"]) == (0.5, 7, 1, False)
    assert asked["request_id"] == message.id


def test_a_system_without_text_says_nothing(client: httpx.Client, fake: FakeInference) -> None:
    for system in ([], ""):
        assert client.post(PATH, json={**BODY, "system": system}).status_code == 200
        assert [message["role"] for message in fake.asked[-1]["messages"]] == ["user"]


def test_a_message(anthropic: Anthropic, client: httpx.Client, fake: FakeInference) -> None:
    message = anthropic.messages.create(**BODY)
    assert message.id.startswith("msg_")
    assert (message.type, message.role, message.model) == ("message", "assistant", "osora-tiny")
    assert [block.model_dump(exclude_none=True) for block in message.content] == [
        {"type": "text", "text": "category: billing"}
    ]
    assert (message.stop_reason, message.stop_sequence) == ("end_turn", None)
    assert (message.usage.input_tokens, message.usage.output_tokens) == (3, 2)
    assert message.model_extra == {"osora": {"timing": RESULT["timing"], "receipt": RESULT["receipt"]}}
    assert message._request_id
    # Everything is of the types that the client declares; it does not check for itself.
    Message.model_validate(client.post(PATH, json=BODY).json(), strict=True)
    for changed, reason, stop in (
        ({"finish_reason": "length"}, "max_tokens", None),
        ({"stop": "\n"}, "stop_sequence", "\n"),
        ({"text": ""}, "end_turn", None),
    ):
        fake.result = result(**changed)
        message = anthropic.messages.create(**BODY)
        assert (message.stop_reason, message.stop_sequence) == (reason, stop)
    assert message.content == []


def test_tools(anthropic: Anthropic, fake: FakeInference) -> None:
    fake.result = result(text="I look.", tool_calls=CALLS, finish_reason="tool_calls")
    asked: dict[str, Any] = {**BODY, "tools": [WEATHER]}
    message = anthropic.messages.create(
        **asked, tool_choice={"type": "tool", "name": "weather", "disable_parallel_tool_use": True}
    )
    assert message.stop_reason == "tool_use"
    text, *calls = message.content
    assert text.type == "text"
    assert [call.model_dump(exclude_none=True) for call in calls] == [
        {"type": "tool_use", "id": f"call_{city}", "name": "weather", "input": {"city": city}}
        for city in ("Oslo", "Lima")
    ]
    assert fake.asked[0]["tools"] == [
        {"type": "function", "function": {"name": "weather", "description": WEATHER["description"],
                                          "parameters": WEATHER["input_schema"]}}
    ]  # fmt: skip
    assert fake.asked[0]["tool_choice"] == {"type": "function", "function": {"name": "weather"}}
    assert fake.asked[0]["parallel_tool_calls"] is False
    followed: Any = [
        *MESSAGES,
        {"role": "assistant", "content": message.content},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "call_Oslo", "content": "rain"},
            {"type": "tool_result", "tool_use_id": "call_Lima", "is_error": True,
             "content": [{"type": "text", "text": "no "}, {"type": "text", "text": "answer"}]},
            {"type": "text", "text": "And now?"},
        ]},
    ]  # fmt: skip
    anthropic.messages.create(**{**asked, "messages": followed}, tool_choice={"type": "any"})
    assert fake.asked[1]["messages"] == [
        *MESSAGES,
        {"role": "assistant", "content": "I look.", "tool_calls": CALLS},
        {"role": "tool", "tool_call_id": "call_Oslo", "content": "rain"},
        {"role": "tool", "tool_call_id": "call_Lima", "content": "no answer"},
        {"role": "user", "content": "And now?"},
    ]
    assert fake.asked[1]["tool_choice"] == "required"


def events_of(response: httpx.Response) -> list[dict[str, Any]]:
    """The events of a stream, each of a type that the client declares."""
    said = [json.loads(line.removeprefix("data: ")) for line in response.text.split("\n") if line.startswith("data: ")]
    adapter: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
    for event in said:
        if event["type"] != "ping":
            adapter.validate_python(event)
    return said


def test_numbers_of_any_size_in_a_call(client: httpx.Client, fake: FakeInference) -> None:
    function = {"name": "f", "arguments": f'{{"a": -1e999, "b": {"9" * 5000}, "c": 0.5, "d": {10**30}}}'}
    call = {"id": "call_1", "type": "function", "function": function}
    fake.result = result(text="", tool_calls=[call], finish_reason="tool_calls")
    (block,) = client.post(PATH, json=BODY).json()["content"]
    largest = sys.float_info.max
    assert block["input"] == {"a": -largest, "b": largest, "c": 0.5, "d": 10**30}


def test_the_events_of_a_stream(anthropic: Anthropic, client: httpx.Client, fake: FakeInference) -> None:
    fake.result = result(text="I look.", tool_calls=CALLS, finish_reason="tool_calls")
    fake.pieces = [
        {"index": 0, "text": "I "},
        {"index": 0, "text": "look."},
        *({"index": 0, "tool_calls": [{"index": index, **call}]} for index, call in enumerate(CALLS)),
    ]
    start, ping, *events, delta, stop = events_of(client.post(PATH, json={**BODY, "tools": [WEATHER], "stream": True}))
    message = start.pop("message")
    assert (start, ping, stop) == ({"type": "message_start"}, {"type": "ping"}, {"type": "message_stop"})
    assert (message["content"], message["stop_reason"], message["usage"]["input_tokens"]) == ([], None, 0)
    assert [(event["type"].removeprefix("content_block_"), event["index"]) for event in events] == [
        ("start", 0),
        ("delta", 0),
        ("delta", 0),
        ("stop", 0),
        ("start", 1),
        ("delta", 1),
        ("stop", 1),
        ("start", 2),
        ("delta", 2),
        ("stop", 2),
    ]
    assert events[4]["content_block"] == {"type": "tool_use", "id": "call_Oslo", "name": "weather", "input": {}}
    assert events[5]["delta"] == {"type": "input_json_delta", "partial_json": '{"city": "Oslo"}'}
    assert delta["delta"] == {"stop_reason": "tool_use", "stop_sequence": None}
    assert (delta["usage"]["input_tokens"], delta["usage"]["output_tokens"]) == (3, 2)
    with anthropic.messages.stream(**BODY, tools=[WEATHER]) as stream:
        assert list(stream.text_stream) == ["I ", "look."]
        final = stream.get_final_message()
    assert [block.type for block in final.content] == ["text", "tool_use", "tool_use"]
    assert [block.input for block in final.content if block.type == "tool_use"] == [{"city": "Oslo"}, {"city": "Lima"}]
    assert (final.usage.input_tokens, final.usage.output_tokens, final.stop_reason) == (3, 2, "tool_use")


def test_answers_of_a_form(anthropic: Anthropic, fake: FakeInference) -> None:
    class Ticket(BaseModel):
        queue: str

    fake.result = result(text='{"queue": "billing"}')
    assert anthropic.messages.parse(**BODY, output_format=Ticket).parsed_output == Ticket(queue="billing")
    assert fake.asked[0]["json_schema"]["required"] == ["queue"]


def test_a_stream_that_breaks_off_raises(anthropic: Anthropic, fake: FakeInference) -> None:
    fake.mood = "breaking"
    stream = anthropic.messages.create(**BODY, stream=True)
    with pytest.raises(package.APIStatusError, match="broke off") as caught:
        list(stream)
    assert caught.value.type == "overloaded_error"


def test_leaving_a_stream_cancels(anthropic: Anthropic, fake: FakeInference) -> None:
    fake.mood = "hanging"
    with anthropic.messages.create(**BODY, stream=True) as stream:
        next(iter(stream))
    assert fake.abandoned.wait(60)


@pytest.mark.parametrize(
    ("mood", "error", "kind"),
    [
        ("full", package.RateLimitError, "rate_limit_error"),
        ("busy", package.InternalServerError, "overloaded_error"),
        ("refusing", package.BadRequestError, "invalid_request_error"),
    ],
)
def test_a_server_that_refuses(
    anthropic: Anthropic, fake: FakeInference, mood: Any, error: type[package.APIStatusError], kind: str
) -> None:
    fake.mood = mood
    for stream in (False, True):
        with pytest.raises(error) as caught:
            anthropic.messages.create(**BODY, stream=stream)
        assert caught.value.type == kind


def test_errors_have_the_shape_that_is_expected_there(
    anthropic: Anthropic, client: httpx.Client, client_with: Callable[..., httpx.Client], adapter: Adapter
) -> None:
    with pytest.raises(package.AuthenticationError) as unknown:
        anthropic.with_options(api_key="osk-wrong").messages.create(**BODY)
    assert (unknown.value.type, unknown.value.error_code) == ("authentication_error", "invalid_api_key")
    assert unknown.value.request_id
    assert refusal(httpx.post(client.base_url.join(PATH), json=BODY), 401)["details"]["error_code"] == "missing_api_key"
    with pytest.raises(package.NotFoundError) as missing:
        anthropic.messages.create(**{**BODY, "model": "claude"})
    assert (missing.value.type, missing.value.error_code) == ("not_found_error", "model_not_found")
    refusal(client_with("generate", tenant="stranger").post(PATH, json={**BODY, "model": adapter.name}), 404)
    with pytest.raises(package.NotFoundError, match="not offered"):
        anthropic.messages.count_tokens(model="osora-tiny", messages=MESSAGES)
    with pytest.raises(package.NotFoundError, match="not offered"):
        anthropic.messages.batches.list()
    assert refusal(client.put(PATH), 405)["type"] == "invalid_request_error"
    assert refusal(client.post(PATH, content=b"{", headers=JSON), 400)["details"]["error_code"] == "invalid_json"
    refusal(client.post(PATH, content=b" " * 5_000_000, headers=JSON), 413)


def test_the_key_comes_in_either_header(client: httpx.Client, url: str) -> None:
    """The bearer goes first where both are sent."""
    key = client.headers["authorization"].removeprefix("Bearer ")
    with Anthropic(base_url=url, auth_token=key, max_retries=0) as anthropic:
        assert anthropic.messages.create(**BODY).content
    sent: list[tuple[dict[str, str], int]] = [
        ({"x-api-key": key}, 200),
        ({"x-api-key": "osk-wrong"}, 401),
        ({"authorization": "Bearer osk-wrong", "x-api-key": key}, 401),
        ({"x-api-key": ""}, 401),
    ]
    for headers, status in sent:
        assert httpx.get(f"{url}/v1/models", headers=headers).status_code == status, headers


@pytest.mark.parametrize(
    ("changed", "param"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [*MESSAGES, {"role": "assistant", "content": "It is"}]}, None),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "user", "content": [{"type": "tool_use", "id": "a", "name": "f", "input": {}}]}]},
         "messages[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a"}]}]}, "messages"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "thinking.budget_tokens"),
        ({"temperature": 1.5}, "temperature"),
        ({"output_config": {"effort": "low"}}, "output_config.effort"),
        ({"mcp_servers": [{"type": "url"}]}, "mcp_servers"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search", "max_uses": 2}]}, "tools[0].type"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": {"type": "tool"}}, "tool_choice"),
        ({"stop": "x"}, "stop"),
        ({"osora": {"strength": 0.5}}, None),
    ],
)  # fmt: skip
def test_wrong_values_are_named(client: httpx.Client, changed: dict[str, Any], param: str | None) -> None:
    error = refusal(client.post(PATH, json={**BODY, **changed}), 400)
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
