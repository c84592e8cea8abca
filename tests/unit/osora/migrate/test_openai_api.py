import io
from contextlib import closing
from typing import Any

import pytest

from osora.errors import OpenAIError, OsoraUsageError
from osora.migrate.openai_api import OpenAIClient, address
from tests.support.fake_openai import KEY, Failure, FakeOpenAI


def test_all_pages_of_jobs(there: FakeOpenAI, client: OpenAIClient) -> None:
    for number in range(5):
        there.add_job(number)
    assert [job["id"] for job in client.jobs()] == [f"ftjob-{number}" for number in (4, 3, 2, 1, 0)]
    assert len(there.asked) == 3


def test_a_page_that_never_ends_is_left(there: FakeOpenAI, client: OpenAIClient) -> None:
    for _ in range(3):
        there.add_job(1)  # the next page begins after the first of them, again and again
    assert len(list(client.jobs())) <= 6


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503])
def test_what_may_pass_is_tried_again_when_it_says(there: FakeOpenAI, client: OpenAIClient, status: int) -> None:
    there.add_job(1)
    there.failures = [Failure("/fine_tuning", status, times=2, headers={"retry-after-ms": "150"})]
    assert len(list(client.jobs())) == 1
    first, second, third = (one.at for one in there.asked)
    assert second - first >= 0.15
    assert third - second >= 0.15


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (Failure("/", 400, message=f"about {KEY}\x1b[31m\nand so on"), "about … [31m and so on (HTTP 400)"),
        (Failure("/", 403, message="not allowed"), "not allowed (HTTP 403)"),
        (Failure("/", 429, code="insufficient_quota", message="You exceeded your quota"), "You exceeded your quota"),
        (Failure("/", 429, headers={"retry-after": "7200"}, message="Daily limit"), "Daily limit"),
    ],
)
def test_what_does_not_pass_is_said_at_once_and_without_the_key(
    there: FakeOpenAI, client: OpenAIClient, failure: Failure, words: str
) -> None:
    there.failures = [failure]
    with pytest.raises(OpenAIError) as refused:
        list(client.jobs())
    assert words in str(refused.value)
    assert KEY not in repr(vars(refused.value)) + str(refused.value)
    assert len(there.asked) == 1


def test_a_refused_key_is_not_repeated(there: FakeOpenAI) -> None:
    with closing(OpenAIClient(there.url, f"{KEY}x")) as client, pytest.raises(OpenAIError) as refused:
        list(client.jobs())
    assert refused.value.status == 401
    assert KEY not in str(refused.value)


def test_a_file_comes_whole_or_not_at_all(there: FakeOpenAI, client: OpenAIClient) -> None:
    there.files = {"file-1": ("a.jsonl", b"x" * 100_000)}
    there.failures = [Failure("/files", 500, headers={"retry-after": "0"})]
    out = io.BytesIO(b"of an earlier try")
    client.download("file-1", out, 100_000)
    assert out.getvalue() == b"x" * 100_000
    with pytest.raises(OpenAIError, match="has not the 10 bytes"):
        client.download("file-1", out, 10)


def test_a_file_is_never_in_memory_as_a_whole(there: FakeOpenAI, client: OpenAIClient) -> None:
    there.files = {"file-1": ("a.jsonl", b"x" * 8_000_000)}
    pieces: list[int] = []

    class Out(io.BytesIO):
        def write(self, piece: Any) -> int:
            pieces.append(len(piece))
            return super().write(piece)

    client.download("file-1", Out(), 8_000_000)
    assert sum(pieces) == 8_000_000
    assert max(pieces) < 1_000_000


def test_something_else_that_answers_is_told_so(there: FakeOpenAI) -> None:
    with closing(OpenAIClient(there.url, KEY)) as client:
        with pytest.raises(OpenAIError):
            client.request("GET", "/nothing")
        there.files = {"x": ("a", b"")}
        with pytest.raises(OpenAIError, match="does not speak OpenAI's API"):
            client.request("GET", "/files/x/content")


@pytest.mark.parametrize("key", ["sk-tést", "sk test", "osk-0123"])
def test_a_key_that_cannot_be_theirs_is_never_sent(there: FakeOpenAI, key: str) -> None:
    with pytest.raises(OsoraUsageError) as refused:
        OpenAIClient(there.url, key)
    assert key not in str(refused.value)


def test_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    here = "http://127.0.0.1:8000"
    assert address(None, here) == "https://api.openai.com/v1"
    monkeypatch.setenv("OPENAI_BASE_URL", "http://gateway/v1/")
    assert address(None, here) == "http://gateway/v1"
    assert address("http://127.0.0.1:9000/v1", here) == "http://127.0.0.1:9000/v1"
    monkeypatch.setenv("OPENAI_BASE_URL", f"{here}/v1")
    for given in (None, "http://localhost:8000/v1"):
        with pytest.raises(OsoraUsageError, match="this Osora itself"):
            address(given, here)
    with pytest.raises(OsoraUsageError, match="no http://"):
        address("api.openai.com/v1", here)
