"""Libraries that stand on OpenAI's client, each asked the least that its users ask of it."""

import asyncio
from typing import Literal

import pytest
from agents import Agent, ModelSettings, OpenAIChatCompletionsModel, Runner, set_tracing_disabled
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI
from openai import AsyncOpenAI
from pydantic import BaseModel, SecretStr

from tests.acceptance.conftest import Service


class City(BaseModel):
    """A city."""

    name: Literal["Oslo", "Lima"]
    is_capital: bool


@pytest.fixture
def chat(service: Service, trained: str) -> ChatOpenAI:
    return ChatOpenAI(
        model=trained,
        base_url=f"{service.url}/v1",
        api_key=SecretStr(service.key),
        temperature=0,
        max_completion_tokens=64,
        max_retries=0,
    )


def test_langchain_invokes_streams_and_batches(chat: ChatOpenAI) -> None:
    chain = ChatPromptTemplate.from_messages([("user", "{question}")]) | chat | StrOutputParser()
    question = {"question": "Which city?"}
    assert chain.invoke(question) == "Oslo"
    assert "".join(chain.stream(question)) == "Oslo"
    assert chain.batch([question] * 3) == ["Oslo"] * 3
    answer = chat.invoke("Which city?")
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["total_tokens"] > answer.usage_metadata["input_tokens"]


def test_langchain_gets_answers_of_a_form(chat: ChatOpenAI) -> None:
    assert isinstance(chat.with_structured_output(City, method="json_schema").invoke("Which city?"), City)


def test_an_agent_of_openais_library_answers(service: Service, trained: str) -> None:
    set_tracing_disabled(True)

    async def run() -> str:
        async with AsyncOpenAI(base_url=f"{service.url}/v1", api_key=service.key, max_retries=0) as client:
            agent = Agent(
                name="Guide",
                model=OpenAIChatCompletionsModel(trained, client),
                model_settings=ModelSettings(temperature=0, max_tokens=12),
            )
            return str((await Runner.run(agent, "Which city?")).final_output)

    assert asyncio.run(run()) == "Oslo"
