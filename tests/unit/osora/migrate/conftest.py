"""An account there, and a client of it."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from osora.migrate.openai_api import OpenAIClient
from tests.support.fake_openai import KEY, FakeOpenAI, playing


@pytest.fixture
def there() -> Iterator[FakeOpenAI]:
    with playing() as fake:
        yield fake


@pytest.fixture
def client(there: FakeOpenAI) -> Iterator[OpenAIClient]:
    with closing(OpenAIClient(there.url, KEY)) as client:
        yield client
