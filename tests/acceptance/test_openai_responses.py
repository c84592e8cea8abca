"""Responses: OpenAI's own client, unmodified, against the real service. They say what chats say."""

import asyncio
import json
from typing import Any, Literal

import openai as package
import pytest
from agents import Agent, ModelSettings, OpenAIResponsesModel, Runner, function_tool, set_tracing_disabled
from openai import AsyncOpenAI
from pydantic import BaseModel

from tests.acceptance.conftest import Service
from tests.acceptance.test_openai_client import MESSAGES, Caller, caller

__all__ = ["caller"]  # a fixture


MODEL = "osora-tiny"
LIMIT = 4  # where it would go on


class City(BaseModel):
    name: Literal["Oslo", "Lima"]
    is_capital: bool


def respond(caller: Caller, **asked: Any) -> Any:
    asked = {"model": MODEL, "input": MESSAGES, "temperature": 0, "max_output_tokens": LIMIT, **asked}
    return caller(caller.client.responses.create, **asked)


def streamed(caller: Caller, **asked: Any) -> tuple[list[Any], Any]:
    """All events of the client's own helper, and the response that it puts together from them."""
    manager = caller.client.responses.stream(**{"model": MODEL, "input": MESSAGES, "temperature": 0, **asked})

    async def read() -> tuple[list[Any], Any]:
        async with manager as stream:
            return [event async for event in stream], await stream.get_final_response()

    if hasattr(manager, "__aenter__"):
        events: tuple[list[Any], Any] = caller.runner.run(read())
        return events
    with manager as stream:
        return list(stream), stream.get_final_response()


def test_a_response_says_what_a_chat_says(caller: Caller) -> None:
    chat = caller.chat(MODEL, max_completion_tokens=LIMIT)
    response = respond(caller)
    assert response.output_text == chat.choices[0].message.content
    assert (response.usage.input_tokens, response.usage.output_tokens) == (
        chat.usage.prompt_tokens,
        chat.usage.completion_tokens,
    )
    assert (response.status, response.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert response.osora["receipt"] == chat.osora["receipt"]
    asked = [{"role": "system", "content": "Be brief."}, *MESSAGES]
    said = caller.chat(MODEL, messages=asked, max_completion_tokens=LIMIT).choices[0].message.content
    assert respond(caller, instructions="Be brief.", input=MESSAGES[0]["content"]).output_text == said
    followed = respond(caller, input=[*MESSAGES, *response.output, *MESSAGES])
    assert followed.usage.input_tokens > response.usage.input_tokens + response.usage.output_tokens


def test_a_streamed_response(caller: Caller) -> None:
    whole = respond(caller, top_logprobs=2)
    events = caller.every(
        caller.client.responses.create,
        model=MODEL,
        input=MESSAGES,
        temperature=0,
        max_output_tokens=LIMIT,
        top_logprobs=2,
        stream=True,
    )
    kinds = [event.type.removeprefix("response.") for event in events]
    assert kinds[:4] == ["created", "in_progress", "output_item.added", "content_part.added"]
    assert set(kinds[4:-4]) == {"output_text.delta"}
    assert kinds[-4:] == ["output_text.done", "content_part.done", "output_item.done", "incomplete"]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(event.delta for event in events[4:-4]) == whole.output_text
    (part,) = whole.output[0].content
    assert events[-1].response.output[0].content[0].logprobs == part.logprobs
    assert len(part.logprobs) == whole.usage.output_tokens == LIMIT
    assert all(len(score.top_logprobs) == 2 for score in part.logprobs)


def test_answers_of_a_form(caller: Caller) -> None:
    parsed = caller(caller.client.responses.parse, model=MODEL, input=MESSAGES, text_format=City, max_output_tokens=200)
    assert isinstance(parsed.output_parsed, City)
    events, final = streamed(caller, text_format=City, max_output_tokens=200)
    assert isinstance(final.output_parsed, City)
    (done,) = [event for event in events if event.type == "response.output_text.done"]
    assert (done.parsed, events[-1].type) == (final.output_parsed, "response.completed")


def test_what_goes_wrong_raises_what_it_raises_there(caller: Caller) -> None:
    with pytest.raises(package.NotFoundError) as missing:
        respond(caller, model="gpt-4o-mini")
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    for stream in (False, True):
        with pytest.raises(package.BadRequestError) as refused:
            respond(caller, input="word " * 5000, stream=stream)
        assert refused.value.param == "input"
    with pytest.raises(package.BadRequestError) as refused:
        respond(caller, text={"format": {"type": "json_schema", "name": "x", "schema": {"type": 1}}})
    assert refused.value.param == "text.format.schema"
    with pytest.raises(package.BadRequestError) as refused:
        respond(caller, previous_response_id="resp_1")
    assert refused.value.code == "unsupported_parameter"


WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"enum": ["Oslo", "Lima"]}}, "required": ["city"]},
    "strict": True,
}


def test_functions(caller: Caller) -> None:
    asked = {"tools": [WEATHER], "tool_choice": "required", "parallel_tool_calls": False, "max_output_tokens": 200}
    response = respond(caller, **asked)
    (call,) = response.output
    assert (call.type, call.name, response.status) == ("function_call", "weather", "completed")
    assert json.loads(call.arguments)["city"] in ("Oslo", "Lima")
    events, final = streamed(caller, **asked)
    assert [event.type.removeprefix("response.") for event in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    assert (final.output[0].name, final.output[0].arguments) == ("weather", call.arguments)
    follow = [*MESSAGES, call, {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}]
    assert respond(caller, **asked | {"tool_choice": "none"}, input=follow).output[0].type == "message"


def test_an_agent_calls_a_function_and_answers(service: Service) -> None:
    """OpenAI's library for agents, as it is used by default: through Responses."""
    set_tracing_disabled(True)
    asked: list[str] = []

    @function_tool
    def weather(city: Literal["Oslo", "Lima"]) -> str:
        """The weather in a city."""
        asked.append(city)
        return "rain"

    async def run() -> tuple[Any, Any]:
        async with AsyncOpenAI(base_url=f"{service.url}/v1", api_key=service.key, max_retries=0) as client:
            model = OpenAIResponsesModel(MODEL, client)
            brief = ModelSettings(temperature=0, max_tokens=200)
            must_call = brief.resolve(ModelSettings(tool_choice="required", parallel_tool_calls=False))
            caller = Agent(
                name="Caller",
                instructions="Ask for the weather.",
                model=model,
                model_settings=must_call,
                tools=[weather],
                tool_use_behavior="stop_on_first_tool",
            )
            called = await Runner.run(caller, "Which city?")
            writer = Agent(name="Writer", model=model, model_settings=brief, output_type=City)
            history: Any = [*called.to_input_list(), *MESSAGES]
            return called.final_output, (await Runner.run(writer, history)).final_output

    said, city = asyncio.run(run())
    assert said == "rain"
    assert isinstance(city, City)
    assert asked in (["Oslo"], ["Lima"])
