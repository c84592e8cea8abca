"""An API that answers as it is told, behind the real SDK."""

import json
from collections.abc import Callable
from typing import Any

import httpx

from osora.sdk import AsyncOsora

Answering = Callable[[dict[str, Any]], httpx.Response]


def client(answer: Answering) -> AsyncOsora:
    """A client whose every request is answered by `answer`, which is given its JSON body."""

    def handle(request: httpx.Request) -> httpx.Response:
        return answer(json.loads(request.content or b"{}"))

    http = httpx.AsyncClient(transport=httpx.MockTransport(handle))
    return AsyncOsora("http://osora.test", "osk-test", max_retries=0, http_client=http)


def said(text: str, **more: Any) -> httpx.Response:
    """A generation."""
    choice = {"index": 0, "text": text, "finish_reason": "stop", "logprobs": None, "tool_calls": None}
    return httpx.Response(200, json={"text": text, "base": "tiny", "choices": [choice], **more})


def streamed(*pieces: str, **done: Any) -> httpx.Response:
    """The same, piece by piece."""
    events = [f"event: token\ndata: {json.dumps({'index': 0, 'text': piece})}\n\n" for piece in pieces]
    whole = {"text": "".join(pieces), "choices": [{"index": 0, "logprobs": None}], **done}
    body = "".join([*events, f"event: done\ndata: {json.dumps(whole)}\n\n"])
    return httpx.Response(200, text=body, headers={"content-type": "text/event-stream"})


def refused(status: int, message: str) -> httpx.Response:
    """An error of the API's shape."""
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": "x"}
    return httpx.Response(status, json={"error": error})
