"""From the native answer, whole or streamed, to OpenAI's shapes."""

import json
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, AsyncIterator
from typing import Any, ClassVar

from fastapi.responses import JSONResponse, Response, StreamingResponse

# How a field that the inference server may name is called by those who ask here.
_PARAMS = {"json_schema": "response_format", "strength": "osora.strength", "stop_tokens": "osora.stop_tokens"}
_DONE = b"data: [DONE]\n\n"


class Answer(ABC):
    """One answer in the making."""

    object: ClassVar[str]
    chunk_object: ClassVar[str]

    def __init__(self, id: str, model: str, *, with_usage: bool) -> None:
        self.id = id
        self._model = model
        self._with_usage = with_usage
        self._created = int(time.time())

    @abstractmethod
    def whole_choice(self, choice: dict[str, Any]) -> dict[str, Any]:
        """A native choice as one of an answer that is not streamed."""

    @abstractmethod
    def begun(self, index: int) -> dict[str, Any] | None:
        """What is said of a choice before its first text, if anything is."""

    @abstractmethod
    def continued(self, piece: dict[str, Any]) -> dict[str, Any]:
        """A native piece of a choice as that of a chunk."""

    @abstractmethod
    def ended(self, choice: dict[str, Any]) -> dict[str, Any]:
        """A native choice that is whole as its last piece, which has no text."""

    def translate(self, native: Response, choices: int) -> Response:
        """The native response in this shape; what is refused keeps its status."""
        if isinstance(native, StreamingResponse):
            native.body_iterator = self._chunks(native.body_iterator, choices)
            return native
        if native.media_type != "application/json":
            return native  # the client is gone
        said = json.loads(bytes(native.body))
        passed = {name: value for name, value in native.headers.items() if name == "retry-after"}
        if native.status_code != 200:
            return JSONResponse(_with_our_params(said), native.status_code, passed)
        return JSONResponse(self._whole(said))

    def _whole(self, native: dict[str, Any]) -> dict[str, Any]:
        choices = [self.whole_choice(choice) for choice in native["choices"]]
        return {**self._head(self.object, choices), "usage": native["usage"], "osora": _own(native)}

    def _head(self, object: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": object,
            "created": self._created,
            "model": self._model,
            "system_fingerprint": None,
            "choices": choices,
        }

    async def _chunks(self, pieces: AsyncIterable[Any], choices: int) -> AsyncIterator[bytes]:
        for index in range(choices):
            opening = self.begun(index)
            if opening is not None:
                yield self._chunk(opening)
        async for name, data in _events(pieces):
            match name:
                case "token":
                    yield self._chunk(self.continued(data))
                case "error":
                    yield _data(_with_our_params(data))
                case "done":
                    for choice in data["choices"]:
                        yield self._chunk(self.ended(choice), osora=_own(data))
                    if self._with_usage:
                        yield _data({**self._head(self.chunk_object, []), "usage": data["usage"]})
                    yield _DONE

    def _chunk(self, choice: dict[str, Any], **more: Any) -> bytes:
        usage = {"usage": None} if self._with_usage else {}
        return _data({**self._head(self.chunk_object, [choice]), **usage, **more})


async def _events(pieces: AsyncIterable[Any]) -> AsyncIterator[tuple[str, Any]]:
    """The events of a native stream, however it is cut into pieces."""
    rest = b""
    async for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n\n")
        for event in whole:
            fields = dict(line.split(b": ", 1) for line in event.split(b"\n") if b": " in line)
            try:
                found = fields[b"event"].decode(), json.loads(fields[b"data"])
            except (KeyError, ValueError):
                continue  # an event that was cut off: the error that comes next says so
            yield found


def _own(native: dict[str, Any]) -> dict[str, Any]:
    return {name: native[name] for name in ("timing", "receipt")}


def _with_our_params(said: dict[str, Any]) -> dict[str, Any]:
    error = said["error"]
    param = error.get("param")
    return {"error": {"code": None, **error, "param": _PARAMS.get(param, param)}}


def _data(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"
