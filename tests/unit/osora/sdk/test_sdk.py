import json
from pathlib import Path

import pytest

from osora import Osora, OsoraAPIError, OsoraConnectionError
from osora.discovery import discover

from ..conftest import Answer, FakeService, sse

EVENT = {"id": "ftevent-1", "message": "one", "type": "message", "data": {}}


def event(number: int) -> str:
    return sse("message", {**EVENT, "id": f"ftevent-{number}"}, number)


def done() -> str:
    return sse("done", {"id": "ftjob-1", "status": "succeeded"})


def test_an_error_answer_becomes_one_exception_with_every_field(service: FakeService) -> None:
    error = {
        "message": "Line 3: no assistant message.",
        "code": "invalid_file",
        "param": "file",
        "line": 3,
        "next_action": "Add one.",
    }
    service.on("GET", "/jobs/ftjob-1", Answer(400, {"error": error}))
    with Osora() as osora, pytest.raises(OsoraAPIError) as caught:
        osora.jobs.get("ftjob-1")
    raised = caught.value
    assert (raised.status, raised.code, raised.param, raised.line) == (400, "invalid_file", "file", 3)
    assert (raised.message, raised.next_action, raised.request_id) == (error["message"], "Add one.", "req-1")


def test_an_answer_that_is_not_ours_is_still_an_api_error(service: FakeService) -> None:
    service.on("GET", "/bases", Answer(502, b"<html>"))
    with Osora() as osora, pytest.raises(OsoraAPIError, match="Bad Gateway") as caught:
        osora.bases()
    assert caught.value.status == 502


def test_no_service_is_a_connection_error_that_names_the_url() -> None:
    with Osora("http://127.0.0.1:1") as osora, pytest.raises(OsoraConnectionError, match=r"127\.0\.0\.1:1"):
        osora.ready()


def test_an_unready_service_is_an_answer(service: FakeService) -> None:
    service.on("GET", "/ready", Answer(503, {"status": "unready"}))
    with Osora() as osora:
        assert osora.ready() == {"status": "unready"}


def test_upload_sends_name_purpose_and_bytes(service: FakeService, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"prompt": "x"}\n')
    service.on("POST", "/files", Answer(200, {"id": "file-1"}))
    with Osora() as osora:
        assert osora.files.upload(tmp_path / "a.jsonl")["id"] == "file-1"
    request = service.requests[0]
    assert request.headers["authorization"] == "Bearer osk-test"
    assert b'filename="a.jsonl"' in request.body
    assert b"fine-tune" in request.body
    assert b'{"prompt": "x"}\n' in request.body


def test_only_what_was_given_is_sent(service: FakeService) -> None:
    service.on("POST", "/jobs", Answer(200, {"id": "ftjob-1"}))
    service.on("POST", "/generate", Answer(200, {"text": "hi"}))
    with Osora() as osora:
        osora.jobs.create("osora-tiny", "file-1", suffix=None, osora={"rank": 8})
        osora.generate("Hello", adapter="adp-1", max_tokens=4)
        osora.generate([{"role": "user", "content": "Hello"}])
    assert [request.json for request in service.requests] == [
        {"model": "osora-tiny", "training_file": "file-1", "osora": {"rank": 8}},
        {"prompt": "Hello", "adapter_id": "adp-1", "max_tokens": 4},
        {"messages": [{"role": "user", "content": "Hello"}]},
    ]


def test_a_job_is_queued_once_by_its_key(service: FakeService) -> None:
    service.on("POST", "/jobs", Answer(200, {"id": "ftjob-1"}))
    with Osora() as osora:
        osora.jobs.create("osora-tiny", "file-1", idempotency_key="mine")
        osora.jobs.create("osora-tiny", "file-1")
        osora.jobs.create("osora-tiny", "file-1")
    mine, *own = service.requests
    assert mine.headers["idempotency-key"] == "mine"
    assert len({request.headers["idempotency-key"] for request in service.requests}) == 3
    assert all(request.json == mine.json for request in own)


def test_a_files_content(service: FakeService) -> None:
    service.on("GET", "/files/file-1/content", Answer(body=b"step,loss\n"))
    with Osora() as osora:
        assert osora.files.content("file-1") == b"step,loss\n"


def test_a_name_with_a_slash_stays_one_path_segment(service: FakeService) -> None:
    with Osora() as osora, pytest.raises(OsoraAPIError):
        osora.adapters.get("ft:org/base:t::ab")
    assert service.requests[0].path == "/adapters/ft:org%2Fbase:t::ab"


@pytest.mark.parametrize("cut", [True, False], ids=["connection lost", "stream ended early"])
def test_events_go_on_after_the_last_one_received(service: FakeService, cut: bool) -> None:
    service.on(
        "GET",
        "/jobs/ftjob-1/events",
        Answer(events=[event(1), event(2)], cut=cut),
        Answer(503, {"error": {"message": "starting"}}),
        Answer(events=[event(3), done()]),
    )
    lost: list[str] = []
    with Osora() as osora:
        ids = [seen["id"] for seen in osora.jobs.events("ftjob-1", on_lost=lambda error: lost.append(str(error)))]
    (said,) = lost
    assert said.startswith(f"The connection to Osora at {service.url} broke off")
    assert ids == ["ftevent-1", "ftevent-2", "ftevent-3"]
    assert [request.headers.get("last-event-id") for request in service.requests] == [None, "2", "2"]


def test_events_after_a_known_one(service: FakeService) -> None:
    service.on("GET", "/jobs/ftjob-1/events", Answer(events=[done()]))
    with Osora() as osora:
        assert list(osora.jobs.events("ftjob-1", after="ftevent-41")) == []
    assert service.requests[0].headers["last-event-id"] == "41"


def test_events_of_an_unknown_job_are_not_waited_for(service: FakeService) -> None:
    with Osora() as osora, pytest.raises(OsoraAPIError, match="No /jobs/ftjob-9/events"):
        list(osora.jobs.events("ftjob-9"))
    assert len(service.requests) == 1


def test_events_give_up_when_patience_ends() -> None:
    with Osora("http://127.0.0.1:1") as osora, pytest.raises(OsoraConnectionError):
        list(osora.jobs.events("ftjob-1", patience_seconds=0.1))


def test_a_stream_yields_pieces_and_then_has_the_result(service: FakeService) -> None:
    pieces = [sse("token", {"text": "a"}), sse("token", {"text": "b"}), sse("done", {"text": "ab"})]
    service.on("POST", "/generate", Answer(events=pieces))
    with Osora() as osora:
        stream = osora.stream("Hello")
        assert list(stream) == ["a", "b"]
    assert stream.result == {"text": "ab"}


def test_a_stream_of_several_answers_yields_the_first(service: FakeService) -> None:
    pieces = [sse("token", {"index": i, "text": text}) for i, text in ((0, "a"), (1, "x"), (0, "b"))]
    service.on("POST", "/generate", Answer(events=[*pieces, sse("done", {"text": "ab"})]))
    with Osora() as osora:
        assert list(osora.stream("Hello", n=2)) == ["a", "b"]
    assert service.requests[0].json == {"prompt": "Hello", "n": 2, "stream": True}


def test_an_error_in_a_stream_is_raised(service: FakeService) -> None:
    failure = sse("error", {"error": {"message": "out of memory", "code": "engine"}})
    service.on("POST", "/generate", Answer(events=[sse("token", {"text": "a"}), failure]))
    with Osora() as osora, pytest.raises(OsoraAPIError, match="out of memory"):
        list(osora.stream("Hello"))


def test_a_stream_without_an_end_is_an_error(service: FakeService) -> None:
    service.on("POST", "/generate", Answer(events=[sse("token", {"text": "a"})]))
    with Osora() as osora, pytest.raises(OsoraConnectionError, match="broke off"):
        list(osora.stream("Hello"))


def test_comments_that_keep_a_stream_open_are_no_events(service: FakeService) -> None:
    service.on("GET", "/jobs/ftjob-1/events", Answer(events=[event(1), ": ping\n\n", event(2), done()]))
    with Osora() as osora:
        assert [told["id"] for told in osora.jobs.events("ftjob-1")] == ["ftevent-1", "ftevent-2"]


def test_download_is_whole_or_absent(service: FakeService, tmp_path: Path) -> None:
    service.on("GET", "/adapters/adp-1/download", Answer(body=b"zip!"))
    with Osora() as osora:
        assert osora.adapters.download("adp-1", tmp_path / "a.zip") == 4
        with pytest.raises(OsoraAPIError):
            osora.adapters.download("adp-2", tmp_path / "b.zip")
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_an_adapter_is_fetched_as_it_is_unless_a_form_is_named(service: FakeService, tmp_path: Path) -> None:
    service.on("GET", "/adapters/adp-1/download", Answer(body=b"zip!"))
    with Osora() as osora:
        osora.adapters.download("adp-1", tmp_path / "a.zip")
        osora.adapters.download("adp-1", tmp_path / "b.zip", "lora")
    assert [request.query for request in service.requests] == ["", "format=lora"]


def test_discovery_reads_arguments_then_environment_then_data_dir(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert discover().url == "http://127.0.0.1:8000"
    assert discover().key is None
    (data_dir / "run").mkdir(parents=True)
    (data_dir / "run" / "serve.json").write_text(json.dumps({"url": "http://127.0.0.1:8003"}))
    (data_dir / "local.key").write_text("osk-local\n")
    assert (discover().url, discover().key) == ("http://127.0.0.1:8003", "osk-local")
    monkeypatch.setenv("OSORA_URL", "http://localhost:9000/")
    monkeypatch.setenv("OSORA_API_KEY", "osk-env")
    assert (discover().url, discover().key) == ("http://localhost:9000", "osk-env")
    found = discover("http://[::1]:1", "osk-argument")
    assert (found.url, found.key) == ("http://[::1]:1", "osk-argument")


def test_the_local_key_does_not_leave_this_machine(data_dir: Path) -> None:
    data_dir.mkdir()
    (data_dir / "local.key").write_text("osk-local")
    assert discover("https://osora.example.com").key is None
    assert discover("http://127.0.0.2:80").key == "osk-local"


def test_a_broken_serve_file_is_ignored(data_dir: Path) -> None:
    (data_dir / "run").mkdir(parents=True)
    (data_dir / "run" / "serve.json").write_text("[]")
    assert discover().url == "http://127.0.0.1:8000"
