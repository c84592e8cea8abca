"""The message that answers, whole or as a stream of events."""

import json
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

from api.anthropic.errors import shaped
from api.generate.generation import new_id
from api.generate.translation import Events, Translation, own_part

# How a field that the inference server may name is called by those who ask here.
_PARAMS = {
    "json_schema": "output_config.format.schema",
    "stop": "stop_sequences",
    **{name: f"osora.{name}" for name in ("strength", "stop_tokens", "logit_bias")},
}
# Of the errors that may come when the answer has begun.
_STATUSES = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "rate_limit_error": 429,
    "service_unavailable_error": 503,
}
_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


class MessageAnswer(Translation):
    """One message in the making."""

    def __init__(self, model: str) -> None:
        super().__init__(new_id("msg_"))
        self._model = model

    def whole(self, native: dict[str, Any]) -> dict[str, Any]:
        """The message with everything in it."""
        (choice,) = native["choices"]
        content: list[dict[str, Any]] = [{"type": "text", "text": choice["text"]}] if choice["text"] else []
        for call in choice.get("tool_calls") or ():
            content.append(_tool_use(call, _read(call["function"]["arguments"])))
        return self._message(content, _usage(native["usage"]), **_ending(choice), osora=own_part(native))

    def refused(self, said: dict[str, Any], status: int) -> dict[str, Any]:
        """An error in Anthropic's shape."""
        error = said["error"]
        return shaped({**error, "param": _PARAMS.get(error.get("param"), error.get("param"))}, status)

    async def streamed(self, events: Events) -> AsyncIterator[bytes]:
        """Every block is started, continued and stopped. How long the prompt is comes with the end."""
        blocks = _Blocks()
        start = self._message([], {**_NOTHING_USED}, stop_reason=None, stop_sequence=None)
        yield _event("message_start", message=start)
        yield _event("ping")
        async for name, data in events:
            match name:
                case "token":
                    for event in blocks.take(data):
                        yield event
                case "error":
                    status = _STATUSES.get(data["error"]["type"], 500)
                    yield _event("error", error=self.refused(data, status)["error"])
                case "done":
                    for event in blocks.stop():
                        yield event
                    (choice,) = data["choices"]
                    yield _event(
                        "message_delta", delta=_ending(choice), usage=_usage(data["usage"]), osora=own_part(data)
                    )
                    yield _event("message_stop")

    def _message(self, content: list[dict[str, Any]], usage: dict[str, int], **more: Any) -> dict[str, Any]:
        head = {"id": self.id, "type": "message", "role": "assistant", "model": self._model}
        return {**head, "content": content, "usage": usage, **more}


class _Blocks:
    """The blocks of a stream. Only the last is open."""

    def __init__(self) -> None:
        self._begun = 0
        self._open: tuple[str, int] | None = None  # what the open block is, and which of the calls

    def take(self, piece: dict[str, Any]) -> Iterator[bytes]:
        """A native piece."""
        if piece.get("text"):
            yield from self._switch(("text", 0), {"type": "text", "text": ""})
            yield self._delta({"type": "text_delta", "text": piece["text"]})
        for call in piece.get("tool_calls") or ():
            if self._open != ("tool_use", call["index"]):
                yield from self._switch(("tool_use", call["index"]), _tool_use(call, {}))
            yield self._delta({"type": "input_json_delta", "partial_json": call["function"]["arguments"]})

    def stop(self) -> Iterator[bytes]:
        """Closes what is open."""
        if self._open is not None:
            yield _event("content_block_stop", index=self._begun - 1)
            self._open = None

    def _switch(self, block: tuple[str, int], start: dict[str, Any]) -> Iterator[bytes]:
        if self._open == block:
            return
        yield from self.stop()
        self._open = block
        self._begun += 1
        yield _event("content_block_start", index=self._begun - 1, content_block=start)

    def _delta(self, delta: dict[str, Any]) -> bytes:
        return _event("content_block_delta", index=self._begun - 1, delta=delta)


def _tool_use(call: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    return {"type": "tool_use", "id": call["id"], "name": call["function"]["name"], "input": given}


def _read(arguments: str) -> Any:
    """The value of arguments. A number that Python cannot hold is the largest of its sign."""
    return json.loads(
        arguments, parse_float=_finite, parse_int=lambda text: _finite(text) if len(text) > 300 else int(text)
    )


def _finite(text: str) -> float:
    return max(-sys.float_info.max, min(float(text), sys.float_info.max))


def _ending(choice: dict[str, Any]) -> dict[str, Any]:
    stop = choice.get("stop")
    reason = "stop_sequence" if stop is not None else _REASONS[choice["finish_reason"]]
    return {"stop_reason": reason, "stop_sequence": stop}


def _usage(native: dict[str, int]) -> dict[str, int]:
    used = {"input_tokens": native["prompt_tokens"], "output_tokens": native["completion_tokens"]}
    return {**_NOTHING_USED, **used}


_NOTHING_USED = {
    "input_tokens": 0,
    "output_tokens": 0,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 0,
}


def _event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()
