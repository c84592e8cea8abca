"""Anthropic's own client, unmodified, against the real service. It says what OpenAI's chats say."""

import asyncio
import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, Literal

import anthropic as package
import pytest
from anthropic import Anthropic, AsyncAnthropic
from openai import OpenAI
from pydantic import BaseModel

from tests.acceptance.conftest import Service

MODEL = "osora-tiny"
LIMIT = 4  # where it would go on
MESSAGES: Any = [{"role": "user", "content": "Which city?"}]
Client = Any
Run = Callable[[Any], Any]


@pytest.fixture(params=[Anthropic, AsyncAnthropic])
def door(request: pytest.FixtureRequest, service: Service) -> Iterator[tuple[Client, Run]]:
    """A client, and what waits for what it gives."""
    client = request.param(base_url=service.url, api_key=service.key, max_retries=0, timeout=60)
    with asyncio.Runner() as runner, ExitStack() as stack:

        def run(made: Any) -> Any:
            return runner.run(_awaited(made)) if inspect.isawaitable(made) else made

        stack.callback(lambda: run(client.close()))
        yield client, run


async def _awaited(made: Any) -> Any:
    return await made


def streamed(client: Client, **asked: Any) -> Any:
    """The events of the client's own helper, and the message that it puts together from them."""
    manager = client.messages.stream(**asked)
    if not hasattr(manager, "__aenter__"):
        with manager as stream:
            return list(stream), stream.get_final_message()

    async def read() -> Any:
        async with manager as stream:
            return [event async for event in stream], await stream.get_final_message()

    return read()


def test_a_message_says_what_a_chat_says(door: tuple[Client, Run], service: Service) -> None:
    client, run = door
    asked = {"model": MODEL, "max_tokens": LIMIT, "messages": MESSAGES, "extra_body": {"temperature": 0}}
    message = run(client.messages.create(**asked, system="Be brief."))
    with OpenAI(base_url=f"{service.url}/v1", api_key=service.key) as openai:
        chat = openai.chat.completions.create(
            model=MODEL,
            messages=[{"role": "system", "content": "Be brief."}, *MESSAGES],
            max_tokens=LIMIT,
            temperature=0,
        )
    assert chat.usage is not None
    (block,) = message.content
    assert block.text == chat.choices[0].message.content
    assert message.stop_reason == "max_tokens"
    assert message.usage.input_tokens == chat.usage.prompt_tokens
    assert message.usage.output_tokens == chat.usage.completion_tokens == LIMIT
    events, final = run(streamed(client, **asked, system="Be brief."))
    assert [event.type for event in events if event.type != "text"] == [
        "message_start",
        "content_block_start",
        *["content_block_delta"] * len([event for event in events if event.type == "text"]),
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert (final.content[0].text, final.stop_reason) == (block.text, "max_tokens")
    assert final.usage.input_tokens == message.usage.input_tokens


class City(BaseModel):
    name: Literal["Oslo", "Lima"]
    is_capital: bool


def test_an_answer_of_a_form(door: tuple[Client, Run]) -> None:
    client, run = door
    parsed = run(client.messages.parse(model=MODEL, max_tokens=200, messages=MESSAGES, output_format=City))
    assert isinstance(parsed.parsed_output, City)


def test_what_goes_wrong_raises_what_it_raises_there(door: tuple[Client, Run]) -> None:
    client, run = door
    asked = {"model": MODEL, "max_tokens": LIMIT, "messages": MESSAGES}
    with pytest.raises(package.AuthenticationError):
        run(client.with_options(api_key="osk-wrong").messages.create(**asked))
    with pytest.raises(package.NotFoundError):
        run(client.messages.create(**{**asked, "model": "claude"}))
    with pytest.raises(package.BadRequestError) as refused:
        run(client.messages.create(**{**asked, "messages": [{"role": "user", "content": "word " * 5000}]}))
    assert refused.value.type == "invalid_request_error"
