"""Texts that a client chose, in headers and in streams of events: they stay texts."""

import json
from urllib.parse import unquote

import httpx
from fastapi.sse import format_sse_event
from httpx_sse import EventSource
from hypothesis import example, given, settings
from hypothesis import strategies as st

from api.downloads import attachment
from api.jobs.schemas import EventOut
from registry.models import JobEvent

TEXT = st.text(st.characters(codec="utf-8"), max_size=40)
few = settings(max_examples=200, deadline=None)


@few
@given(TEXT)
@example("a\r\nset-cookie: x=y")
@example('a"; filename="b')
def test_a_file_name_stays_within_its_header(name: str) -> None:
    answer = attachment(iter(()), filename=name, bytes=0, media_type="text/csv")
    (value,) = [value for header, value in answer.raw_headers if header == b"content-disposition"]
    before, _, quoted = value.decode("ascii").partition("utf-8''")
    assert before == "attachment; filename*="
    assert quoted.isprintable()
    assert not set(quoted) & set(' ";,\\')
    assert unquote(quoted) == name


@few
@given(TEXT, TEXT)
@example("a\n\nevent: done\ndata: {}", "x")
@example("a\r\ndata: b", "\u2028")
@example("\x85id: 7\r\r", "")
def test_a_message_stays_within_its_event(message: str, value: str) -> None:
    event = JobEvent(id=7, created_at=1, level="info", type="message", message=message, data={"a": value, message: 1})
    sent = format_sse_event(data_str=EventOut.of(event).model_dump_json(), event="message", id="7")
    response = httpx.Response(200, headers={"content-type": "text/event-stream"}, content=sent)
    (read,) = EventSource(response).iter_sse()
    assert (read.event, read.id) == ("message", "7")
    assert json.loads(read.data)["message"] == message
