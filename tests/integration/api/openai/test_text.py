"""Chats and completions through OpenAI's door: what is asked, and how answers and refusals come."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import openai as package
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionMessage

from registry.models import Adapter
from tests.integration.api.conftest import error_of
from tests.integration.api.fake_inference import RESULT, FakeInference

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

Fakes = dict[str, FakeInference]
MESSAGES: Any = [{"role": "user", "content": "I was charged twice."}]
CHAT = "/v1/chat/completions"


@pytest.fixture
def inference_urls(inference: Fakes) -> str:
    return next(iter(inference))


def chat(openai: OpenAI, **asked: Any) -> Any:
    return openai.chat.completions.create(**{"model": "osora-tiny", "messages": MESSAGES, **asked})


def test_what_is_asked_for_in_a_chat(openai: OpenAI, fake: FakeInference, adapter: Adapter) -> None:
    own = {"top_p": 0.9, "presence_penalty": 0.5, "frequency_penalty": -0.5, "seed": 7, "n": 2}
    schema = {"type": "object", "properties": {"queue": {"type": "string"}}, "additionalProperties": False}
    messages = [
        {"role": "developer", "content": [{"type": "text", "text": "Sort "}, {"type": "text", "text": "the ticket."}]},
        *MESSAGES,
        {"role": "assistant", "content": "billing"},
        *MESSAGES,
    ]
    answer = chat(
        openai,
        model=adapter.name,
        messages=messages,
        max_completion_tokens=9,
        stop="\n",
        logit_bias={"17": -5},
        logprobs=True,
        top_logprobs=3,
        response_format={"type": "json_schema", "json_schema": {"name": "ticket", "strict": True, "schema": schema}},
        user="customer-7",
        store=False,
        extra_body={"osora": {"strength": 0.5, "top_k": 4}},
        **own,
    )
    (asked,) = fake.asked
    assert asked["adapter"]["id"] == adapter.id
    assert asked["messages"] == [{"role": "system", "content": "Sort the ticket."}, messages[2 - 1], *messages[2:]]
    assert asked["json_schema"] == schema
    assert (asked["max_tokens"], asked["stop"], asked["logit_bias"]) == (9, ["\n"], {"17": -5})
    assert (asked["strength"], asked["top_k"], asked["temperature"]) == (0.5, 4, 1.0)
    assert (asked["logprobs"], asked["top_logprobs"], asked["stream"]) == (True, 3, False)
    assert {name: asked[name] for name in own} == own
    assert asked["request_id"] == answer.id
    assert answer.id.startswith("chatcmpl-")
    assert (answer.object, answer.model, answer.choices[0].message.role) == (
        "chat.completion",
        adapter.name,
        "assistant",
    )
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("category: billing", "stop")
    assert answer.usage.model_dump(exclude_unset=True) == RESULT["usage"]
    assert answer.osora["receipt"] == RESULT["receipt"]


def test_without_a_limit_the_answer_ends_by_itself(openai: OpenAI, fake: FakeInference) -> None:
    chat(openai)
    chat(openai, max_tokens=5, response_format={"type": "json_object"})
    openai.completions.create(model="osora-tiny", prompt=["x"], logprobs=0, echo=True)
    unbounded, older, completion = fake.asked
    assert unbounded["max_tokens"] == 2**31 - 1
    assert (older["max_tokens"], older["json_schema"]) == (5, {"type": "object"})
    assert (completion["prompt"], completion["max_tokens"]) == (["x"], 16)
    assert (completion["logprobs"], completion["top_logprobs"], completion["echo"]) == (True, 0, True)


@pytest.mark.parametrize("prompt", [["a", "b"], [[1, 2], [3]], [1, 2]])
def test_prompts_are_passed_on_in_their_order(openai: OpenAI, fake: FakeInference, prompt: Any) -> None:
    choice = fake.result["choices"][0]
    fake.result = {**RESULT, "choices": [{**choice, "index": index, "text": str(index)} for index in range(4)]}
    answer = openai.completions.create(model="osora-tiny", prompt=prompt, n=2)
    assert (fake.asked[0]["prompt"], fake.asked[0]["n"]) == (prompt, 2)
    assert [(choice.index, choice.text) for choice in answer.choices] == [(index, str(index)) for index in range(4)]
    fake.pieces = [{"index": index, "text": str(index)} for index in (1, 0, 3, 2)]
    chunks = list(openai.completions.create(model="osora-tiny", prompt=prompt, n=2, stream=True))
    assert [chunk.choices[0].index for chunk in chunks] == [1, 0, 3, 2, 0, 1, 2, 3]


def test_a_streamed_chat(openai: OpenAI) -> None:
    chunks = list(chat(openai, stream=True, stream_options={"include_usage": True}))
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
    *said, counted = chunks
    deltas = [(chunk.choices[0].delta.role, chunk.choices[0].delta.content) for chunk in said]
    assert deltas == [("assistant", ""), (None, "category: "), (None, "billing"), (None, None)]
    assert [chunk.choices[0].finish_reason for chunk in said] == [None, None, None, "stop"]
    assert [chunk.usage for chunk in said] == [None] * 4
    assert said[-1].osora["receipt"] == RESULT["receipt"]
    assert (counted.choices, counted.usage.model_dump(exclude_unset=True)) == ([], RESULT["usage"])
    assert [chunk for chunk in chat(openai, stream=True) if not chunk.choices] == []


def test_a_streamed_completion(openai: OpenAI, client: httpx.Client) -> None:
    chunks = list(openai.completions.create(model="osora-tiny", prompt="x", stream=True))
    assert {chunk.object for chunk in chunks} == {"text_completion"}
    assert "".join(chunk.choices[0].text for chunk in chunks) == "category: billing"
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None, None, "stop"]  # type: ignore[comparison-overlap]
    response = client.post("/v1/completions", json={"model": "osora-tiny", "prompt": "x", "stream": True})
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.text.endswith("}\n\ndata: [DONE]\n\n")


def test_a_stream_that_breaks_off_raises(openai: OpenAI, fake: FakeInference) -> None:
    fake.mood = "breaking"
    stream = chat(openai, stream=True)
    assert [next(stream).choices[0].delta.content for _ in range(2)] == ["", "category: "]
    with pytest.raises(package.APIError, match="broke off"):
        next(stream)


def test_leaving_a_stream_cancels(openai: OpenAI, fake: FakeInference) -> None:
    fake.mood = "hanging"
    with chat(openai, stream=True) as stream:
        next(stream)
    assert fake.abandoned.wait(60)


@pytest.mark.parametrize(("mood", "error"), [("busy", package.InternalServerError), ("full", package.RateLimitError)])
def test_a_busy_server(openai: OpenAI, fake: FakeInference, mood: Any, error: type[package.APIStatusError]) -> None:
    fake.mood = mood
    with pytest.raises(error) as caught:
        chat(openai)
    assert caught.value.response.headers["retry-after"]
    with pytest.raises(error):
        chat(openai, stream=True)


def test_a_refusal_of_the_inference_server(openai: OpenAI, fake: FakeInference) -> None:
    fake.mood = "refusing"
    with pytest.raises(package.BadRequestError, match="max_tokens is 9: too many"):
        chat(openai)


@pytest.mark.parametrize(
    ("param", "value"),
    [
        ("functions", [{"name": "f"}]),
        ("function_call", "auto"),
        ("audio", {"voice": "alloy", "format": "wav"}),
        ("prediction", {"type": "content", "content": "x"}),
        ("reasoning_effort", "low"),
        ("web_search_options", {}),
        ("metadata", {"a": "b"}),
    ],
)
def test_what_is_not_supported_is_named(openai: OpenAI, client: httpx.Client, param: str, value: Any) -> None:
    with pytest.raises(package.BadRequestError, match=f"{param} is not supported here: ") as caught:
        chat(openai, **{param: value})
    assert (caught.value.param, caught.value.code) == (param, "unsupported_parameter")
    assert caught.value.type == "invalid_request_error"
    body = {"model": "osora-tiny", "messages": MESSAGES, param: None}
    assert client.post(CHAT, json=body).status_code == 200


def test_a_call_that_has_a_key_twice_can_be_sent_back(openai: OpenAI, fake: FakeInference) -> None:
    """A model may write such arguments where the schema names no properties."""
    call: Any = {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1, "x": 2}'}}
    asked = [{"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "a", "content": "y"}]
    chat(openai, messages=[*MESSAGES, *asked])
    assert fake.asked[-1]["messages"][1]["tool_calls"] == [call]


def test_an_answer_of_theirs_can_be_sent_back_with_all_its_fields(openai: OpenAI, fake: FakeInference) -> None:
    message = ChatCompletionMessage(role="assistant", content="billing", annotations=[])
    history = [*MESSAGES, message.model_dump(), *MESSAGES]
    openai.chat.completions.create(model="osora-tiny", messages=history)
    assert fake.asked[-1]["messages"][1] == {"role": "assistant", "content": "billing"}


@pytest.mark.parametrize(
    ("changed", "param"),
    [
        ({"modalities": ["audio"]}, "modalities[0]"),
        ({"store": True}, "store"),
        ({"temperature": 2.5}, "temperature"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"stream_options": {"include_usage": True}}, None),
        ({"max_tokens": 4, "max_completion_tokens": 5}, None),
        ({"osora": {"strength": 0.5}}, None),
        ({"osora": {"strenght": 0.5}}, "osora.strenght"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "scheme": {}}}},
         "response_format.json_schema.scheme"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": "x", "name": "Ann"}]}, "messages[0].name"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
         "messages[0].content[0].image_url"),
        ({"messages": [{"role": "assistant", "content": None, "tool_calls": [{}]}]}, "messages[0].tool_calls[0].id"),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"tools": []}, "tools"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}] * 2}, "tools"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}],
          "tool_choice": {"type": "function", "function": {"name": "g"}}}, "tool_choice"),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "string"}}}]},
         "tools[0].function.parameters"),
        ({"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools[0].custom"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "maybe"}, "tool_choice"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}],
          "tool_choice": {"type": "allowed_tools", "allowed_tools": {}}}, "tool_choice.allowed_tools"),
    ],
)  # fmt: skip
def test_wrong_values_are_named(client: httpx.Client, changed: dict[str, Any], param: str | None) -> None:
    response = client.post(CHAT, json={"model": "osora-tiny", "messages": MESSAGES, **changed})
    assert error_of(response, 400)["param"] == param


@pytest.mark.parametrize(
    ("changed", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt[1]"),
        ({"prompt": 1}, "prompt"),
        ({"prompt": [-1]}, "prompt[0]"),
        ({"prompt": [[1], []]}, "prompt[1]"),
        ({"prompt": ["a"] * 129}, "prompt"),
        ({"prompt": ["a"] * 65, "n": 2}, None),
        ({"suffix": "x"}, "suffix"),
        ({"best_of": 2}, "best_of"),
        ({"logprobs": 21}, "logprobs"),
    ],
)
def test_wrong_values_of_a_completion_are_named(
    client: httpx.Client, changed: dict[str, Any], param: str | None
) -> None:
    response = client.post("/v1/completions", json={"model": "osora-tiny", "prompt": "x", **changed})
    assert error_of(response, 400)["param"] == param


def test_a_model_that_is_not_there(
    openai: OpenAI, client_with: Callable[..., httpx.Client], adapter: Adapter, fake: FakeInference
) -> None:
    for model in ("gpt-4o-mini", f"{adapter.name}:ckpt-step-5", "adp-1"):
        with pytest.raises(package.NotFoundError) as caught:
            chat(openai, model=model)
        assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    stranger = client_with("generate", tenant="stranger")
    for path, asked in ((CHAT, {"messages": MESSAGES}), ("/v1/completions", {"prompt": "x"})):
        for model in (adapter.name, adapter.id, adapter.job_id):
            error_of(stranger.post(path, json={"model": model, **asked}), 404)
    assert fake.asked == []


def test_a_job_is_no_model(openai: OpenAI, adapter: Adapter) -> None:
    with pytest.raises(package.NotFoundError, match="is a job"):
        chat(openai, model=adapter.job_id)


def test_the_body_is_read_as_strictly_as_elsewhere(client: httpx.Client) -> None:
    sent = json.dumps({"model": "osora-tiny", "messages": MESSAGES})[:-1] + ', "seed": 1, "seed": 2}'
    response = client.post(CHAT, content=sent, headers={"content-type": "application/json"})
    assert error_of(response, 400)["param"] == "seed"
