"""Anthropic's own client, as it is installed, with nothing changed but where it sends its requests."""

from collections.abc import Iterator

import httpx
import pytest
from anthropic import Anthropic


@pytest.fixture
def anthropic(url: str, client: httpx.Client) -> Iterator[Anthropic]:
    """With a key that may do everything, which it sends as `x-api-key`. It retries nothing."""
    key = client.headers["authorization"].removeprefix("Bearer ")
    with Anthropic(base_url=url, api_key=key, max_retries=0, timeout=60) as anthropic:
        yield anthropic
