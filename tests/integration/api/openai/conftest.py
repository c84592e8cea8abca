"""OpenAI's own client, as it is installed, with nothing changed but where it sends its requests."""

from collections.abc import Iterator

import httpx
import pytest
from openai import OpenAI


@pytest.fixture
def openai(url: str, client: httpx.Client) -> Iterator[OpenAI]:
    """With a key that may do everything. It retries nothing, so that what is refused is seen."""
    key = client.headers["authorization"].removeprefix("Bearer ")
    with OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=60) as openai:
        yield openai
