"""The response: its object, whole or as a stream of events."""

import json
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

from api.generate.generation import new_id
from api.generate.translation import Events, Translation, own_part
from api.openai.answers import renamed
from api.openai.responses.output import Output
from api.openai.responses.schemas import ResponseRequest

# How a field that the inference server may name is called by those who ask here.
_PARAMS = {
    "messages": "input",
    "json_schema": "text.format.schema",
    "max_tokens": "max_output_tokens",
    "strength": "osora.strength",
    "stop_tokens": "osora.stop_tokens",
    "logit_bias": "osora.logit_bias",
    "stop": "osora.stop",
}
# Those of OpenAI's codes for a response that failed that can happen here.
_CODES = {"rate_limit_error": "rate_limit_exceeded", "invalid_request_error": "invalid_prompt"}


class ResponseAnswer(Translation):
    """One response in the making."""

    def __init__(self, body: ResponseRequest) -> None:
        super().__init__(new_id("resp_"))
        self._body = body
        self._created = int(time.time())
        self._said = 0

    def whole(self, native: dict[str, Any]) -> dict[str, Any]:
        """The response with everything in it."""
        (choice,) = native["choices"]
        output = Output()
        for _ in output.take(choice):
            pass
        return self._ended(native, output)

    def refused(self, said: dict[str, Any], status: int) -> dict[str, Any]:
        """The one shape of errors."""
        return renamed(said, _PARAMS)

    async def streamed(self, events: Events) -> AsyncIterator[bytes]:
        """Every item and part is opened, continued and closed, in the order that OpenAI's clients expect."""
        output = Output()
        begun = self._response("in_progress", [])
        yield self._event("response.created", response=begun)
        yield self._event("response.in_progress", response=begun)
        async for name, data in events:
            match name:
                case "token":
                    for event in self._events(output.take(data)):
                        yield event
                case "error":
                    yield self._failed(data, output)
                case "done":
                    (choice,) = data["choices"]
                    for event in self._events(output.end(choice["finish_reason"])):
                        yield event
                    response = self._ended(data, output)
                    yield self._event(f"response.{response['status']}", response=response)

    def _ended(self, native: dict[str, Any], output: Output) -> dict[str, Any]:
        (choice,) = native["choices"]
        for _ in output.end(choice["finish_reason"]):
            pass
        is_cut = choice["finish_reason"] == "length"
        return self._response(
            "incomplete" if is_cut else "completed",
            output.items,
            completed_at=None if is_cut else int(time.time()),
            incomplete_details={"reason": "max_output_tokens"} if is_cut else None,
            usage=_usage(native["usage"]),
            osora=own_part(native),
        )

    def _failed(self, said: dict[str, Any], output: Output) -> bytes:
        error = renamed(said, _PARAMS)["error"]
        shown = {"code": _CODES.get(error["type"], "server_error"), "message": error["message"]}
        return self._event("response.failed", response=self._response("failed", output.items, error=shown))

    def _response(self, status: str, items: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "response",
            "created_at": self._created,
            "status": status,
            "background": False,
            "completed_at": None,
            "error": None,
            "incomplete_details": None,
            "max_tool_calls": None,
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None},
            "service_tier": "default",
            "store": False,
            "usage": None,
            **self._body.echo(),
            "output": items,
            **more,
        }

    def _events(self, changes: Iterator[tuple[str, dict[str, Any]]]) -> Iterator[bytes]:
        for name, fields in changes:
            yield self._event(name, **fields)

    def _event(self, kind: str, /, **fields: Any) -> bytes:
        data = json.dumps({"type": kind, "sequence_number": self._said, **fields})
        self._said += 1
        return f"event: {kind}\ndata: {data}\n\n".encode()


def _usage(native: dict[str, int]) -> dict[str, Any]:
    return {
        "input_tokens": native["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": native["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": native["total_tokens"],
    }
