"""Responses through OpenAI's door: what is asked, the object and the events, and what is refused."""

from typing import Any

import httpx
import openai as package
import pytest
from openai import OpenAI
from openai.types.responses import Response
from pydantic import BaseModel

from registry.models import Adapter
from tests.integration.api.conftest import error_of
from tests.integration.api.fake_inference import RESULT, FakeInference, result

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

Fakes = dict[str, FakeInference]
PATH = "/v1/responses"
SCORES = [
    {"id": 7, "token": "x", "bytes": [120], "logprob": -0.5, "top_logprobs": [
        {"id": 8, "token": "y", "bytes": [121], "logprob": -1.5}]},
]  # fmt: skip
ITEM = {"output_index": 0}
PART = {**ITEM, "content_index": 0}


@pytest.fixture
def inference_urls(inference: Fakes) -> str:
    return next(iter(inference))


def respond(openai: OpenAI, **asked: Any) -> Any:
    return openai.responses.create(**{"model": "osora-tiny", "input": "I was charged twice.", **asked})


def test_what_is_asked_for(openai: OpenAI, fake: FakeInference, adapter: Adapter) -> None:
    schema = {"type": "object", "properties": {"queue": {"type": "string"}}, "additionalProperties": False}
    response = respond(
        openai,
        model=adapter.name,
        instructions="Sort the ticket.",
        input=[
            {"role": "developer", "content": "In one word."},
            {"role": "user", "content": [{"type": "input_text", "text": part} for part in ("I was ", "x")]},
            {"type": "message", "role": "assistant", "id": "msg_1", "status": "completed", "content": [
                {"type": "output_text", "text": "billing", "annotations": [], "logprobs": []}]},
            {"role": "user", "content": "And this?"},
        ],
        temperature=0.5,
        top_p=0.9,
        max_output_tokens=9,
        text={"format": {"type": "json_schema", "name": "ticket", "strict": True, "schema": schema}},
        top_logprobs=3,
        include=["message.output_text.logprobs", "reasoning.encrypted_content"],
        metadata={"team": "support"},
        truncation="disabled",
        user="customer-7",
        store=False,
        background=False,
        extra_body={"osora": {"strength": 0.5, "seed": 7, "stop": "\n", "frequency_penalty": 0.5}},
    )  # fmt: skip
    (asked,) = fake.asked
    assert asked["adapter"]["id"] == adapter.id
    assert asked["messages"] == [
        {"role": "system", "content": "Sort the ticket."},
        {"role": "system", "content": "In one word."},
        {"role": "user", "content": "I was x"},
        {"role": "assistant", "content": "billing"},
        {"role": "user", "content": "And this?"},
    ]
    assert asked["json_schema"] == schema
    assert (asked["max_tokens"], asked["temperature"], asked["top_p"]) == (9, 0.5, 0.9)
    assert (asked["logprobs"], asked["top_logprobs"], asked["n"], asked["stream"]) == (True, 3, 1, False)
    assert (asked["strength"], asked["seed"], asked["stop"], asked["frequency_penalty"]) == (0.5, 7, ["\n"], 0.5)
    assert asked["request_id"] == response.id
    assert response.metadata == {"team": "support"}
    assert response.text.format.schema_ == schema


def test_a_response(openai: OpenAI, client: httpx.Client) -> None:
    response = respond(openai, max_output_tokens=9)
    assert response.id.startswith("resp_")
    assert (response.object, response.status, response.error, response.incomplete_details) == (
        "response",
        "completed",
        None,
        None,
    )
    assert response.output_text == "category: billing"
    (message,) = response.output
    assert (message.type, message.role, message.status) == ("message", "assistant", "completed")
    assert response.usage.model_dump() == {
        "input_tokens": 3,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0, "cache_write_tokens_details": None},
        "output_tokens": 2,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 5,
    }
    assert (response.max_output_tokens, response.temperature, response.tool_choice) == (9, 1.0, "auto")
    assert response.osora == {"timing": RESULT["timing"], "receipt": RESULT["receipt"]}
    assert response.store is False
    # Everything is of the types that the client declares; it does not check for itself.
    sent = client.post(PATH, json={"model": "osora-tiny", "input": "x"}).json()
    Response.model_validate(sent, strict=True)
    assert respond(openai, input=[message.model_dump(), {"role": "user", "content": "x"}]).output_text


def test_without_a_limit_the_answer_ends_by_itself(openai: OpenAI, fake: FakeInference) -> None:
    respond(openai)
    respond(openai, text={"format": {"type": "json_object"}})
    assert [asked["max_tokens"] for asked in fake.asked] == [2**31 - 1] * 2
    assert fake.asked[1]["json_schema"] == {"type": "object"}


def test_a_response_that_was_cut(openai: OpenAI, fake: FakeInference) -> None:
    fake.result = result(text="category", finish_reason="length")
    response = respond(openai)
    assert (response.status, response.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert (response.output[0].status, response.output_text) == ("incomplete", "category")
    assert response.completed_at is None
    events = list(respond(openai, stream=True))
    assert (events[-1].type, events[-1].response.status) == ("response.incomplete", "incomplete")
    assert events[-2].item.status == "incomplete"


def test_likelihoods(openai: OpenAI, fake: FakeInference) -> None:
    fake.result = result(text="x", logprobs=SCORES)
    (part,) = respond(openai, top_logprobs=1).output[0].content
    (score,) = part.logprobs
    assert (score.token, score.bytes, score.logprob) == ("x", [120], -0.5)
    assert score.top_logprobs[0].model_dump() == {"token": "y", "bytes": [121], "logprob": -1.5}
    fake.pieces = [{"index": 0, "text": "", "logprobs": SCORES}, {"index": 0, "text": "x", "logprobs": SCORES}]
    events = list(respond(openai, stream=True, include=["message.output_text.logprobs"]))
    assert fake.asked[-1]["logprobs"]
    (delta,) = [event for event in events if event.type == "response.output_text.delta"]
    assert [score.token for score in delta.logprobs] == ["x", "x"], "those that came before there was text are kept"


def test_the_events_of_a_streamed_response(openai: OpenAI) -> None:
    events = list(respond(openai, stream=True, stream_options={"include_obfuscation": False}))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    shown = [
        (event.type, {name: value for name in ("output_index", "content_index", "delta", "text")
                      if (value := getattr(event, name, None)) is not None})
        for event in events
    ]  # fmt: skip
    assert shown == [
        ("response.created", {}),
        ("response.in_progress", {}),
        ("response.output_item.added", ITEM),
        ("response.content_part.added", PART),
        ("response.output_text.delta", {**PART, "delta": "category: "}),
        ("response.output_text.delta", {**PART, "delta": "billing"}),
        ("response.output_text.done", {**PART, "text": "category: billing"}),
        ("response.content_part.done", PART),
        ("response.output_item.done", ITEM),
        ("response.completed", {}),
    ]
    created, started, added, part, *_, done, completed = events
    assert (created.response.status, created.response.output, created.response.usage) == ("in_progress", [], None)
    assert started.response == created.response
    assert (added.item.status, added.item.content) == ("in_progress", [])
    assert part.part.text == ""
    assert {event.item_id for event in events[3:8]} == {added.item.id} == {done.item.id}
    assert (done.item.status, done.item.content[0].text) == ("completed", "category: billing")
    whole = completed.response
    assert (whole.id, whole.output, whole.output_text) == (created.response.id, [done.item], "category: billing")
    assert (whole.usage.total_tokens, whole.osora["receipt"]) == (5, RESULT["receipt"])


def test_the_helpers_of_the_client(openai: OpenAI, fake: FakeInference) -> None:
    class Ticket(BaseModel):
        queue: str

    said = '{"queue": "billing"}'
    fake.result, fake.pieces = result(text=said), [{"index": 0, "text": said[:9]}, {"index": 0, "text": said[9:]}]
    asked: dict[str, Any] = {"model": "osora-tiny", "input": "x", "text_format": Ticket}
    assert openai.responses.parse(**asked).output_parsed == Ticket(queue="billing")
    with openai.responses.stream(**asked) as stream:
        texts = [event.snapshot for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert texts == [said[:9], said]
    assert final.output_parsed == Ticket(queue="billing")


def test_an_answer_without_a_word_is_an_empty_message(openai: OpenAI, fake: FakeInference) -> None:
    fake.result, fake.pieces = result(text=""), [{"index": 0, "text": ""}]
    assert respond(openai).output[0].content[0].text == ""
    events = list(respond(openai, stream=True))
    assert [event.type for event in events][2:] == [
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]


def test_a_stream_that_breaks_off_fails(openai: OpenAI, fake: FakeInference) -> None:
    fake.mood = "breaking"
    *_, last = respond(openai, stream=True)
    assert (last.type, last.response.status, last.response.error.code) == ("response.failed", "failed", "server_error")
    assert "broke off" in last.response.error.message
    assert last.response.output_text == "category: ", "what came stays readable"


def test_leaving_a_stream_cancels(openai: OpenAI, fake: FakeInference) -> None:
    fake.mood = "hanging"
    with respond(openai, stream=True) as stream:
        next(stream)
    assert fake.abandoned.wait(60)


@pytest.mark.parametrize(
    ("mood", "error"),
    [("full", package.RateLimitError), ("busy", package.InternalServerError), ("refusing", package.BadRequestError)],
)
def test_a_server_that_refuses(openai: OpenAI, fake: FakeInference, mood: Any, error: type[package.APIError]) -> None:
    fake.mood = mood
    for stream in (False, True):
        with pytest.raises(error):
            respond(openai, stream=stream)


@pytest.mark.parametrize(
    ("param", "value"),
    [
        ("store", True),
        ("previous_response_id", "resp_1"),
        ("conversation", "conv_1"),
        ("background", True),
        ("prompt", {"id": "pmpt_1"}),
        ("reasoning", {"effort": "low"}),
        ("max_tool_calls", 2),
        ("context_management", [{"type": "compaction"}]),
    ],
)
def test_what_is_not_supported_is_named(openai: OpenAI, client: httpx.Client, param: str, value: Any) -> None:
    with pytest.raises(package.BadRequestError, match=f"{param} is not supported here: ") as caught:
        respond(openai, **{param: value})
    assert (caught.value.param, caught.value.code) == (param, "unsupported_parameter")
    assert caught.value.type == "invalid_request_error"
    for harmless in (None, False):
        assert client.post(PATH, json={"model": "osora-tiny", "input": "x", param: harmless}).status_code == 200


@pytest.mark.parametrize(
    ("changed", "param"),
    [
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": [{"role": "tool", "content": "x"}]}, "input[0].role"),
        ({"input": [{"type": "reasoning", "id": "rs_1", "summary": []}]}, "input[0]"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}, "input[0].content[0]"),
        ({"input": [{"role": "user", "content": [{"type": "input_text", "txt": "x"}]}]}, "input[0].content[0].txt"),
        ({"truncation": "auto"}, "truncation"),
        ({"temperature": 2.5}, "temperature"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"include": ["message"]}, "include[0]"),
        ({"text": {"verbosity": "low"}}, "text.verbosity"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"metadata": {"a": 1}}, "metadata.a"),
        ({"osora": {"strenght": 1}}, "osora.strenght"),
        ({"osora": {"strength": 0.5}}, None),
        ({"seed": 7}, "seed"),
    ],
)
def test_wrong_values_are_named(client: httpx.Client, changed: dict[str, Any], param: str | None) -> None:
    response = client.post(PATH, json={"model": "osora-tiny", "input": "x", **changed})
    assert error_of(response, 400)["param"] == param


def test_what_the_inference_server_refuses_is_named_as_it_is_here(openai: OpenAI, fake: FakeInference) -> None:
    fake.mood = "refusing"
    fake.refusal = {"error": {"message": "too long", "type": "invalid_request_error", "param": "messages"}}
    with pytest.raises(package.BadRequestError) as caught:
        respond(openai)
    assert caught.value.param == "input"


def test_models_of_others_are_not_there(openai: OpenAI, client_with: Any, adapter: Adapter) -> None:
    with pytest.raises(package.NotFoundError) as caught:
        respond(openai, model="gpt-4o-mini")
    assert caught.value.code == "model_not_found"
    stranger = client_with("generate", tenant="stranger")
    error_of(stranger.post(PATH, json={"model": adapter.name, "input": "x"}), 404)


WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "description": "The weather now.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": True,
}
CALLS = [
    {"id": f"call_{city}", "type": "function",
     "function": {"name": "weather", "arguments": f'{{"city": "{city}"}}'}}
    for city in ("Oslo", "Lima")
]  # fmt: skip
CALLED = {**result(text="", tool_calls=CALLS, finish_reason="tool_calls")}


def test_functions_that_are_asked_with(openai: OpenAI, fake: FakeInference) -> None:
    response = respond(
        openai,
        tools=[WEATHER],
        tool_choice={"type": "function", "name": "weather"},
        parallel_tool_calls=False,
        input=[
            {"role": "user", "content": "Oslo and Lima?"},
            {"role": "assistant", "content": "I look."},
            {"type": "function_call", "id": "fc_1", "status": "completed", "call_id": "call_1", "name": "weather",
             "arguments": '{"city": "Oslo"}'},
            {"type": "function_call", "call_id": "call_2", "name": "weather", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "call_1", "output": "rain"},
            {"type": "function_call_output", "call_id": "call_2", "output": [{"type": "input_text", "text": "sun"}]},
            {"type": "function_call", "call_id": "call_3", "name": "weather", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "call_3", "output": ""},
        ],
    )  # fmt: skip
    (asked,) = fake.asked
    function = {name: WEATHER[name] for name in ("name", "description", "parameters", "strict")}
    assert asked["tools"] == [{"type": "function", "function": function}]
    assert asked["tool_choice"] == {"type": "function", "function": {"name": "weather"}}
    assert asked["parallel_tool_calls"] is False

    def call(number: int, arguments: str) -> dict[str, Any]:
        function = {"name": "weather", "arguments": arguments}
        return {"id": f"call_{number}", "type": "function", "function": function}

    assert asked["messages"] == [
        {"role": "user", "content": "Oslo and Lima?"},
        {"role": "assistant", "content": "I look.", "tool_calls": [call(1, '{"city": "Oslo"}'), call(2, "{}")]},
        {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
        {"role": "tool", "tool_call_id": "call_2", "content": "sun"},
        {"role": "assistant", "tool_calls": [call(3, "{}")]},
        {"role": "tool", "tool_call_id": "call_3", "content": ""},
    ]
    assert response.tools[0].model_dump(exclude_none=True) == WEATHER
    assert response.tool_choice.name == "weather"


def test_calls_of_functions(openai: OpenAI, fake: FakeInference) -> None:
    fake.result = CALLED
    response = respond(openai, tools=[WEATHER])
    assert (response.status, response.output_text) == ("completed", "")
    shown = [(call.type, call.status, call.call_id, call.name, call.arguments) for call in response.output]
    assert shown == [
        ("function_call", "completed", "call_Oslo", "weather", '{"city": "Oslo"}'),
        ("function_call", "completed", "call_Lima", "weather", '{"city": "Lima"}'),
    ]
    fake.result = result(text="I look.", tool_calls=CALLS[:1], finish_reason="tool_calls")
    assert [item.type for item in respond(openai, tools=[WEATHER]).output] == ["message", "function_call"]
    follow: Any = [*response.output]
    with pytest.raises(package.BadRequestError, match="results of the calls") as caught:
        respond(openai, tools=[WEATHER], input=follow)
    assert caught.value.param == "input"
    follow += [{"type": "function_call_output", "call_id": call.call_id, "output": "rain"} for call in response.output]
    respond(openai, tools=[WEATHER], input=follow)
    assert fake.asked[-1]["messages"][0]["tool_calls"] == CALLS


def test_a_whole_call_is_completed_where_the_answer_was_cut_behind_it(openai: OpenAI, fake: FakeInference) -> None:
    fake.result = {**result(text="", tool_calls=CALLS[:1], finish_reason="length")}
    fake.pieces = [{"index": 0, "tool_calls": [{"index": 0, **CALLS[0]}]}]
    whole = respond(openai, tools=[WEATHER])
    *_, done, last = respond(openai, tools=[WEATHER], stream=True)
    assert whole.status == last.response.status == "incomplete"
    assert whole.output[0].status == done.item.status == last.response.output[0].status == "completed"


def test_the_events_of_calls(openai: OpenAI, fake: FakeInference) -> None:
    """Of one that comes whole, and of one that comes in pieces, after some text."""
    fake.result = CALLED
    oslo, lima = CALLS
    head = {**lima, "function": {"name": "weather", "arguments": '{"city"'}}
    fake.pieces = [
        {"index": 0, "text": "I look."},
        {"index": 0, "tool_calls": [{"index": 0, **oslo}]},
        {"index": 0, "tool_calls": [{"index": 1, **head}]},
        {"index": 0, "tool_calls": [{"index": 1, "function": {"arguments": ': "Lima"}'}}]},
    ]
    events = list(respond(openai, tools=[WEATHER], stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    shown = [(event.type.removeprefix("response."), getattr(event, "output_index", None)) for event in events]
    assert shown == [
        ("created", None),
        ("in_progress", None),
        ("output_item.added", 0),
        ("content_part.added", 0),
        ("output_text.delta", 0),
        ("output_text.done", 0),
        ("content_part.done", 0),
        ("output_item.done", 0),
        ("output_item.added", 1),
        ("function_call_arguments.delta", 1),
        ("function_call_arguments.done", 1),
        ("output_item.done", 1),
        ("output_item.added", 2),
        ("function_call_arguments.delta", 2),
        ("function_call_arguments.delta", 2),
        ("function_call_arguments.done", 2),
        ("output_item.done", 2),
        ("completed", None),
    ]
    assert (events[12].item.name, events[12].item.arguments, events[12].item.status) == ("weather", "", "in_progress")
    assert [event.delta for event in events[13:15]] == ['{"city"', ': "Lima"}']
    assert (events[15].arguments, events[15].name) == ('{"city": "Lima"}', "weather")
    assert events[-1].response.output == [event.item for event in events if event.type == "response.output_item.done"]
    with openai.responses.stream(model="osora-tiny", input="x", tools=[WEATHER]) as stream:
        final = stream.get_final_response()
    assert [item.parsed_arguments for item in final.output[1:]] == [{"city": "Oslo"}, {"city": "Lima"}]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("changed", "param", "code"),
    [
        ({"tools": [{"type": "web_search", "search_context_size": "low"}]}, "tools[0].type", "unsupported_parameter"),
        ({"tools": [{"type": "function", "name": "a b"}]}, "tools[0].name", "invalid_value"),
        ({"tools": [WEATHER], "tool_choice": {"type": "web_search"}}, "tool_choice.type", "unsupported_parameter"),
        ({"tool_choice": "required"}, "tool_choice", "invalid_value"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "name": "time"}}, "tool_choice", "invalid_value"),
        ({"input": [{"type": "function_call_output", "call_id": "call_1"}]}, "input[0].output", "missing_field"),
    ],
)
def test_functions_that_cannot_be_had(client: httpx.Client, changed: Any, param: str | None, code: str) -> None:
    error = error_of(client.post(PATH, json={"model": "osora-tiny", "input": "x", **changed}), 400)
    assert (error["param"], error["code"]) == (param, code)
    asked = {"model": "osora-tiny", "input": "x", "tools": [], "tool_choice": "auto", "parallel_tool_calls": False}
    assert client.post(PATH, json=asked).status_code == 200, "what clients send that have none"
