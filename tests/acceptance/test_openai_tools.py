"""Tools through OpenAI's own client, unmodified, against the real service."""

import json
from collections.abc import Iterator
from typing import Any, Literal

import openai as package
import pytest
from openai import OpenAI
from pydantic import BaseModel

from tests.acceptance.conftest import Service

ASKED: Any = [{"role": "user", "content": "Where is order 48213?"}]
LOOK_UP: Any = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Looks up an order.",
        "parameters": {
            "type": "object",
            "properties": {
                "order": {"type": "integer", "minimum": 0, "maximum": 99999},
                "queue": {"enum": ["billing", "shipping"]},
            },
            "required": ["order", "queue"],
        },
    },
}
CLOSE: Any = {"type": "function", "function": {"name": "close", "parameters": {"type": "object", "properties": {}}}}
TOOLS: Any = [LOOK_UP, CLOSE]


class Order(BaseModel):
    """Looks up an order."""

    order: int
    queue: Literal["billing", "shipping"]


@pytest.fixture
def client(service: Service) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{service.url}/v1", api_key=service.key, max_retries=0, timeout=60) as client:
        yield client


def ask(client: OpenAI, **asked: Any) -> Any:
    asked = {"model": "osora-tiny", "messages": ASKED, "tools": TOOLS, "temperature": 0, **asked}
    return client.chat.completions.create(max_completion_tokens=200, **asked)


def is_valid(call: Any) -> bool:
    arguments = json.loads(call.function.arguments)
    if call.function.name == "close":
        return bool(arguments == {})
    assert call.function.name == "look_up"
    return set(arguments) == {"order", "queue"} and arguments["queue"] in ("billing", "shipping")


def test_a_base_that_knows_no_tools_calls_them_all_the_same(client: OpenAI) -> None:
    for seed in range(3):
        answer = ask(
            client, tool_choice="required", parallel_tool_calls=False, temperature=1.5, seed=seed, n=2, logprobs=True
        )
        for choice in answer.choices:
            assert choice.finish_reason == "tool_calls"
            assert choice.message.content is None
            (call,) = choice.message.tool_calls
            assert (call.type, call.id.startswith("call_")) == ("function", True)
            assert is_valid(call)
            assert choice.logprobs.content  # of all tokens, those of calls too
    named = {"type": "function", "function": {"name": "look_up"}}
    (call,) = ask(client, tool_choice=named).choices[0].message.tool_calls
    assert is_valid(call)
    assert call.function.name == "look_up"


def test_no_calls_where_none_are_wanted(client: OpenAI) -> None:
    for asked in ({"tool_choice": "none"}, {"tool_choice": "auto"}):
        choice = ask(client, **asked).choices[0]
        assert choice.message.tool_calls is None
        assert choice.finish_reason in ("stop", "length")
        assert choice.message.content


def test_a_streamed_call_is_put_together_by_the_client(client: OpenAI) -> None:
    asked: Any = {"model": "osora-tiny", "messages": ASKED, "temperature": 0, "tool_choice": "required"}
    tool = package.pydantic_function_tool(Order, name="look_up")
    with client.chat.completions.stream(**asked, tools=[tool], parallel_tool_calls=False) as stream:
        events = [event.type for event in stream]
        final = stream.get_final_completion().choices[0]
    assert "tool_calls.function.arguments.done" in events
    assert final.finish_reason == "tool_calls"
    assert final.message.tool_calls is not None
    assert isinstance(final.message.tool_calls[0].function.parsed_arguments, Order)
    parsed = client.chat.completions.parse(**asked, tools=[tool], parallel_tool_calls=False).choices[0].message
    assert parsed.tool_calls is not None
    assert isinstance(parsed.tool_calls[0].function.parsed_arguments, Order)
    # What the client makes of an answer can be sent back as it is, with the result behind it.
    result: Any = {"role": "tool", "tool_call_id": parsed.tool_calls[0].id, "content": "It is in Oslo."}
    messages: Any = [*ASKED, parsed, result]
    after = ask(client, messages=messages, tool_choice="none").choices[0].message
    assert after.content
    streamed: Any = [*ASKED, final.message, {**result, "tool_call_id": final.message.tool_calls[0].id}]
    assert ask(client, messages=streamed, tool_choice="none").choices[0].message.content == after.content


def test_an_answer_that_is_cut_has_no_half_call(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model="osora-tiny", messages=ASKED, tools=TOOLS, tool_choice="required", max_completion_tokens=8
    )
    (choice,) = answer.choices
    assert choice.finish_reason == "length"
    assert choice.message.tool_calls is None
    assert (choice.message.content or "").startswith("<tool_call>")
    assert "<tool_call>" in (choice.message.content or "")


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([*ASKED, {"role": "tool", "tool_call_id": "call_x", "content": "y"}], "messages[1].tool_call_id"),
        (
            [*ASKED, {"role": "assistant", "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "look_up", "arguments": "{"}}]}],
            "messages[1].tool_calls[0].function.arguments",
        ),
    ],
)  # fmt: skip
def test_messages_that_do_not_belong_together_are_refused(client: OpenAI, messages: Any, param: str) -> None:
    with pytest.raises(package.BadRequestError) as refused:
        ask(client, messages=messages)
    assert refused.value.param == param


def rows() -> list[dict[str, Any]]:
    """Whoever asks for a parcel is looked up in shipping, and for money in billing."""
    made = []
    for index in range(12):
        what, queue = (("parcel", "shipping"), ("refund", "billing"))[index % 2]
        arguments = json.dumps({"order": 7, "queue": queue})
        call = {"id": f"call_{index}", "type": "function", "function": {"name": "look_up", "arguments": arguments}}
        made.append(
            {
                "messages": [
                    {"role": "user", "content": f"Where is my {what}?"},
                    {"role": "assistant", "content": None, "tool_calls": [call]},
                    {"role": "tool", "tool_call_id": f"call_{index}", "content": "found"},
                    {"role": "assistant", "content": "It was found."},
                ],
                "tools": [LOOK_UP],
                "parallel_tool_calls": False,
            }
        )
    return made


@pytest.fixture(scope="module")
def trained(service: Service, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of a model that has learned to call, made with nothing but OpenAI's client."""
    path = tmp_path_factory.mktemp("tools") / "calls.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows()))
    with OpenAI(base_url=f"{service.url}/v1", api_key=service.key, timeout=60) as client:
        file = client.files.create(file=path, purpose="fine-tune")
        job = client.fine_tuning.jobs.create(
            model="osora-tiny",
            training_file=file.id,
            seed=1,
            method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 8, "batch_size": 4}}},
        )
        for _ in service.sdk.jobs.events(job.id):  # until it ends
            pass
        job = client.fine_tuning.jobs.retrieve(job.id)
    assert job.status == "succeeded", job.error
    assert job.fine_tuned_model is not None
    return job.fine_tuned_model


def test_what_is_trained_on_calls_calls_and_goes_on_from_the_result(client: OpenAI, trained: str) -> None:
    for what, queue in (("parcel", "shipping"), ("refund", "billing")):
        messages: Any = [{"role": "user", "content": f"Where is my {what}?"}]
        first = ask(client, model=trained, messages=messages, tools=[LOOK_UP]).choices[0]
        assert first.finish_reason == "tool_calls"
        (call,) = first.message.tool_calls
        assert call.function.name == "look_up"
        assert json.loads(call.function.arguments) == {"order": 7, "queue": queue}
        messages += [first.message, {"role": "tool", "tool_call_id": call.id, "content": "found"}]
        second = ask(client, model=trained, messages=messages, tools=[LOOK_UP]).choices[0]
        assert (second.finish_reason, second.message.content) == ("stop", "It was found.")
        with client.chat.completions.stream(
            model=trained, messages=messages[:1], tools=[LOOK_UP], temperature=0, parallel_tool_calls=False
        ) as stream:
            streamed = stream.get_final_completion().choices[0].message.tool_calls
        assert streamed is not None
        assert json.loads(streamed[0].function.arguments) == {"order": 7, "queue": queue}
