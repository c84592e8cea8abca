"""A native stream in OpenAI's shape, however the network cuts it."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi.responses import StreamingResponse
from fastapi.sse import format_sse_event

from api.openai.answers import Answer
from api.openai.chat.answer import ChatAnswer
from api.openai.completions.answer import CompletionAnswer


def score(text: bytes) -> dict[str, Any]:
    token = {"id": 1, "token": text.decode(errors="replace"), "bytes": list(text), "logprob": -1.0}
    return {**token, "top_logprobs": [token]}


# The middle letter is two tokens.
SCORES = [score(b"a"), score(b"\xc3"), score(b"\xb8"), score(b"b\n\n")]
PIECES = [
    {"index": 0, "text": "a", "logprobs": SCORES[:1]},
    {"index": 0, "text": "", "logprobs": SCORES[1:2]},
    {"index": 0, "text": "øb\n\n", "logprobs": SCORES[2:]},
]
WHOLE = {
    "choices": [{"index": 0, "text": "aøb\n\n", "finish_reason": "stop", "logprobs": SCORES}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 4, "total_tokens": 5},
    "timing": {},
    "receipt": {},
}
EVENTS = [*(("token", piece) for piece in PIECES), ("done", WHOLE)]
ERROR = {"error": {"message": "broke off", "type": "server_error", "param": "json_schema"}}


def native(events: list[tuple[str, Any]]) -> bytes:
    return b"".join(
        format_sse_event(event=name, data_str=json.dumps(data, ensure_ascii=False)) for name, data in events
    )


def translated(answer: Answer, stream: bytes, size: int) -> list[Any]:
    """The chunks for a stream that comes in pieces of so many bytes."""

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(stream), size):
            yield stream[start : start + size]

    async def read() -> bytes:
        response = answer.translate(StreamingResponse(pieces(), media_type="text/event-stream"))
        assert isinstance(response, StreamingResponse)
        return b"".join([bytes(piece) async for piece in response.body_iterator])  # type: ignore[arg-type]

    *said, rest = asyncio.run(read()).split(b"\n\n")
    assert rest == b""
    data = [one.removeprefix(b"data: ") for one in said]
    return [one.decode() if one == b"[DONE]" else json.loads(one) for one in data]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 100_000])
def test_any_cut_gives_the_same_chunks(size: int) -> None:
    opening, *said, ending, counted, done = translated(ChatAnswer("x", "m", with_usage=True), native(EVENTS), size)
    assert opening["choices"][0]["delta"]["role"] == "assistant"
    assert [chunk["choices"][0]["delta"]["content"] for chunk in said] == ["a", "", "øb\n\n"]
    assert [len(chunk["choices"][0]["logprobs"]["content"]) for chunk in said] == [1, 1, 2]
    assert ending["choices"][0]["finish_reason"] == "stop"
    assert (counted["usage"], counted["choices"], done) == (WHOLE["usage"], [], "[DONE]")


def test_what_was_cut_off_is_left_out_and_the_error_comes_through() -> None:
    stream = native(EVENTS[:1]) + native(EVENTS[1:2])[:-12] + b"\n\n" + native([("error", ERROR)])
    _, said, error = translated(ChatAnswer("x", "m", with_usage=True), stream, 5)
    assert said["choices"][0]["delta"]["content"] == "a"
    assert error == {"error": {**ERROR["error"], "param": "response_format", "code": None}}


def test_the_places_of_tokens_are_those_of_characters() -> None:
    *said, ending, done = translated(CompletionAnswer("x", "m", with_usage=False), native(EVENTS), 9)
    streamed = [place for chunk in said for place in chunk["choices"][0]["logprobs"]["text_offset"]]
    whole = CompletionAnswer("x", "m", with_usage=False).whole_choice(WHOLE["choices"][0])  # type: ignore[index]
    assert streamed == whole["logprobs"]["text_offset"] == [0, 1, 1, 2]
    assert (ending["choices"][0]["finish_reason"], done) == ("stop", "[DONE]")


def test_calls_come_whole_and_their_message_says_nothing() -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    choice = {"index": 0, "text": "", "tool_calls": [call], "finish_reason": "tool_calls", "logprobs": None}
    whole = {**WHOLE, "choices": [choice]}
    answer = ChatAnswer("x", "m", with_usage=False)
    opening, said, ending, done = translated(
        answer, native([("token", {"index": 0, "tool_calls": [{"index": 0, **call}]}), ("done", whole)]), 64
    )
    assert opening["choices"][0]["delta"]["role"] == "assistant"
    assert said["choices"][0]["delta"] == {"tool_calls": [{"index": 0, **call}]}
    assert (ending["choices"][0]["finish_reason"], done) == ("tool_calls", "[DONE]")
    message = answer.whole_choice(choice)["message"]
    assert message == {"role": "assistant", "content": None, "refusal": None, "tool_calls": [call]}
    assert answer.whole_choice({**choice, "text": "See."})["message"]["content"] == "See."
