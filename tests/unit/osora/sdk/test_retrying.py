"""What is sent again, how often and after how long; nothing here sleeps."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from osora import OsoraAPIError, OsoraConnectionError, OsoraUsageError

from .conftest import Connect

Reply = httpx.Response | Exception
JOB = {"id": "ftjob-1"}


class Replies:
    """Gives these replies in turn, the last one ever after, and keeps the requests."""

    def __init__(self, *replies: Callable[[], Reply]) -> None:
        self._replies = list(replies)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.requests.append(request)
        reply = (self._replies.pop(0) if len(self._replies) > 1 else self._replies[0])()
        if isinstance(reply, Exception):
            raise reply
        return reply


def answer(status: int = 200, body: Any = JOB, **headers: str) -> Callable[[], Reply]:
    error = {"error": {"message": "no", "code": "refused"}}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda: httpx.Response(status, json=body if status < 400 else error, headers=named)


def broken(kind: type[httpx.RequestError] = httpx.ReadError) -> Callable[[], Reply]:
    return lambda: kind("broken")


@pytest.mark.parametrize("passing", [408, 429, 500, 502, 503, 504])
def test_what_may_pass_is_asked_again(connect: Connect, passing: int) -> None:
    replies = Replies(answer(passing), answer(passing), answer())
    client = connect(replies)
    assert client.got(client.osora.jobs.get("ftjob-1")) == JOB
    assert len(client.pauses) == 2


@pytest.mark.parametrize("kind", [httpx.ConnectError, httpx.ConnectTimeout, httpx.ReadError, httpx.RemoteProtocolError])
def test_a_broken_connection_is_made_again(connect: Connect, kind: type[httpx.RequestError]) -> None:
    client = connect(Replies(broken(kind), answer()))
    assert client.got(client.osora.jobs.get("ftjob-1")) == JOB


@pytest.mark.parametrize("kind", [httpx.ConnectError, httpx.ConnectTimeout])
def test_a_service_of_this_machine_that_is_not_there_is_not_waited_for(
    connect: Connect, kind: type[httpx.RequestError]
) -> None:
    for url in ("http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1"):
        replies = Replies(broken(kind), answer())
        client = connect(replies, url=url)
        with pytest.raises(OsoraConnectionError, match="Cannot reach Osora"):
            client.got(client.osora.jobs.get("ftjob-1"))
        assert (len(replies.requests), client.pauses) == (1, [])


def test_one_that_was_there_may_be_starting_anew(connect: Connect) -> None:
    client = connect(Replies(broken(), broken(httpx.ConnectError), answer()), url="http://127.0.0.1:1")
    assert client.got(client.osora.jobs.get("ftjob-1")) == JOB


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422, 501, 507])
def test_an_error_of_the_caller_is_not_asked_again(connect: Connect, status: int) -> None:
    replies = Replies(answer(status))
    client = connect(replies)
    with pytest.raises(OsoraAPIError) as caught:
        client.got(client.osora.jobs.get("ftjob-1"))
    assert (caught.value.status, len(replies.requests), client.pauses) == (status, 1, [])


@pytest.mark.parametrize(("status", "said", "requests"), [(409, "true", 2), (409, "false", 1), (503, "false", 1)])
def test_a_server_that_says_whether_is_believed(connect: Connect, status: int, said: str, requests: int) -> None:
    replies = Replies(answer(status, x_should_retry=said), answer())
    client = connect(replies)
    if requests == 1:
        with pytest.raises(OsoraAPIError):
            client.got(client.osora.jobs.get("ftjob-1"))
    else:
        client.got(client.osora.jobs.get("ftjob-1"))
    assert len(replies.requests) == requests


@pytest.mark.parametrize("max_retries", [0, 1, 4])
def test_it_gives_up_after_max_retries(connect: Connect, max_retries: int) -> None:
    refused, lost = Replies(answer(503)), Replies(broken())
    client = connect(refused, max_retries=max_retries)
    with pytest.raises(OsoraAPIError, match="HTTP 503"):
        client.got(client.osora.jobs.get("ftjob-1"))
    client = connect(lost, max_retries=max_retries)
    with pytest.raises(OsoraConnectionError, match="Cannot reach Osora"):
        client.got(client.osora.jobs.get("ftjob-1"))
    assert len(refused.requests) == len(lost.requests) == max_retries + 1


def test_pauses_double_and_are_drawn_from_all_of_it(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    client = connect(Replies(broken()), max_retries=7)
    with monkeypatch.context() as patch:
        patch.setattr("osora.retries.backoff.__defaults__", (lambda: 1.0,))
        with pytest.raises(OsoraConnectionError):
            client.got(client.osora.jobs.get("ftjob-1"))
    assert client.pauses == [0.5, 1, 2, 4, 8, 8, 8]
    client.pauses.clear()
    for _ in range(100):  # so many that chance does not leave out a part
        with pytest.raises(OsoraConnectionError):
            client.got(client.osora.jobs.get("ftjob-1"))
    first = client.pauses[::7]
    assert 0 <= min(first) < 0.2 < 0.3 < max(first) <= 0.5


def test_never_sooner_than_it_is_asked_to(connect: Connect) -> None:
    client = connect(Replies(answer(429, retry_after="7"), answer(503, retry_after_ms="1500"), answer()))
    client.got(client.osora.jobs.get("ftjob-1"))
    first, second = client.pauses
    assert 7 <= first <= 7.5
    assert 1.5 <= second <= 2.5


def test_who_asks_for_more_than_a_minute_is_left_to_the_caller(connect: Connect) -> None:
    replies = Replies(answer(429, retry_after="3600"))
    client = connect(replies)
    with pytest.raises(OsoraAPIError) as caught:
        client.got(client.osora.jobs.get("ftjob-1"))
    assert (caught.value.retry_after, len(replies.requests)) == (3600, 1)


def test_silence_is_not_waited_for_twice(connect: Connect) -> None:
    replies = Replies(broken(httpx.ReadTimeout))
    client = connect(replies)
    with pytest.raises(OsoraConnectionError, match="no answer in time"):
        client.got(client.osora.generate("Hello"))
    assert len(replies.requests) == 1


def test_all_attempts_of_a_call_have_one_key(connect: Connect) -> None:
    replies = Replies(broken(), answer(503), answer())
    client = connect(replies)
    client.got(client.osora.jobs.create("osora-tiny", "file-1"))
    client.got(client.osora.jobs.create("osora-tiny", "file-1"))
    keys = [request.headers["idempotency-key"] for request in replies.requests]
    assert len(keys) == 4
    assert keys[0] == keys[1] == keys[2] != keys[3]


@pytest.mark.parametrize(
    ("reply", "requests"),
    [(answer(500), 1), (broken(), 1), (broken(httpx.ConnectError), 3), (answer(503), 3), (answer(429), 3)],
    ids=["failed", "lost", "not reached", "not ready", "not now"],
)
def test_what_may_have_been_done_is_not_done_twice(connect: Connect, reply: Callable[[], Reply], requests: int) -> None:
    """A sample webhook: the service takes no key for it."""
    replies = Replies(reply)
    client = connect(replies)
    with pytest.raises((OsoraAPIError, OsoraConnectionError)):
        client.got(client.osora.webhooks.test("webhook-1", "fine_tuning.job.failed"))
    assert len(replies.requests) == requests


def test_what_a_lost_answer_had_deleted_is_deleted(connect: Connect) -> None:
    client = connect(Replies(broken(), answer(404)))
    assert client.got(client.osora.files.delete("file-1")) is None
    client = connect(Replies(broken(httpx.ConnectError), answer(404)))  # nothing came to pass before
    with pytest.raises(OsoraAPIError, match="HTTP 404"):
        client.got(client.osora.files.delete("file-1"))


@pytest.mark.parametrize("kind", ["path", "bytes", "file", "pipe"])
def test_a_file_is_sent_whole_again(connect: Connect, kind: str, tmp_path: Path) -> None:
    content = b'{"prompt": "a", "completion": "b"}\n' * 5000
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    replies = Replies(broken(), answer(503), answer(body={"id": "file-1"}))
    client = connect(replies)

    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    with path.open("rb") as opened:
        file = {"path": path, "bytes": content, "file": opened, "pipe": Pipe(content)}[kind]
        assert client.got(client.osora.files.upload(file))["id"] == "file-1"
    assert [content in request.content for request in replies.requests] == [True] * 3
    name = {"path": b"a.jsonl", "file": b"a.jsonl"}.get(kind, b"data.jsonl")
    assert all(b'filename="' + name + b'"' in request.content for request in replies.requests)


def test_a_download_that_breaks_off_begins_anew(connect: Connect, tmp_path: Path) -> None:
    class Torn(httpx.SyncByteStream, httpx.AsyncByteStream):
        def __iter__(self) -> Any:
            yield b"half"
            raise httpx.ReadError("torn")

        async def __aiter__(self) -> Any:
            yield b"half"
            raise httpx.ReadError("torn")

    replies = Replies(lambda: httpx.Response(200, stream=Torn()), lambda: httpx.Response(200, content=b"whole"))
    client = connect(replies)
    assert client.got(client.osora.files.download("file-1", tmp_path / "a.csv")) == 5
    assert (tmp_path / "a.csv").read_bytes() == b"whole"
    client = connect(Replies(lambda: httpx.Response(200, stream=Torn())))
    with pytest.raises(OsoraConnectionError, match="broke off: torn"):
        client.got(client.osora.adapters.download("adp-1", tmp_path / "b.zip"))
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_a_stream_is_begun_again_and_not_gone_on_with(connect: Connect) -> None:
    def told(text: str) -> Callable[[], Reply]:
        return lambda: httpx.Response(200, text=text, headers={"content-type": "text/event-stream"})

    token = 'event: token\ndata: {"text": "a"}\n\n'
    whole = Replies(answer(503), told(token + 'event: done\ndata: {"text": "a"}\n\n'))
    client = connect(whole)
    stream = client.osora.stream("Hello")
    assert client.all(stream) == ["a"]
    assert stream.result == {"text": "a"}
    cut = Replies(told(token))
    client = connect(cut)
    with pytest.raises(OsoraConnectionError, match="has no end"):
        client.all(client.osora.stream("Hello"))
    assert (len(whole.requests), len(cut.requests)) == (2, 1)


def test_text_that_is_not_unicode_is_refused_here(connect: Connect) -> None:
    replies = Replies(answer())
    client = connect(replies)
    with pytest.raises(OsoraUsageError, match="Character 13 of a text to be sent is not Unicode"):
        client.got(client.osora.generate("a\ud800"))
    assert replies.requests == []


def test_timeouts_are_those_that_were_asked_for(connect: Connect) -> None:
    replies = Replies(answer())
    for settings in ({"timeout": 2.5}, {"timeout": httpx.Timeout(9, connect=1)}, {}):
        client = connect(replies, **settings)
        client.got(client.osora.jobs.get("ftjob-1"))
    asked, own, of_client = (request.extensions["timeout"] for request in replies.requests)
    assert (asked["read"], asked["connect"]) == (2.5, 2.5)
    assert (own["read"], own["connect"]) == (9, 1)
    assert of_client["read"] == 5  # of the HTTP client that was given


def test_a_client_of_ones_own_is_used_and_left_open() -> None:
    from osora import Osora

    replies = Replies(answer())
    with httpx.Client(transport=httpx.MockTransport(replies), headers={"x-team": "support"}) as http:
        with Osora("http://osora.test/base", "osk-test", http_client=http) as osora:
            osora.jobs.get("ftjob-1")
        assert not http.is_closed
    (request,) = replies.requests
    assert (str(request.url), request.headers["x-team"]) == ("http://osora.test/base/jobs/ftjob-1", "support")
    assert request.headers["authorization"] == "Bearer osk-test"


def test_every_problem_of_a_refused_file_is_there(connect: Connect) -> None:
    problem = {"line": 3, "field": "messages", "value": "[]", "problem": "is empty", "next_action": "add one"}
    error = {
        "message": "line 3: …, and 4 more",
        "line": 3,
        "field": "messages",
        "problems": [problem],
        "problem_count": 5,
    }
    client = connect(lambda _: httpx.Response(400, content=json.dumps({"error": error})))
    with pytest.raises(OsoraAPIError) as caught:
        client.got(client.osora.files.upload(b"{}"))
    raised = caught.value
    assert (raised.line, raised.field, raised.problems, raised.problem_count) == (3, "messages", [problem], 5)
