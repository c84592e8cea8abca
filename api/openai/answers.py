"""From the native answer, whole or streamed, to OpenAI's shapes with choices."""

import json
import time
from abc import abstractmethod
from collections.abc import AsyncIterator
from typing import Any, ClassVar, Literal, Self

from api.generate.generation import new_id
from api.generate.translation import Events, Translation, own_part
from api.openai.sampling import TextRequest

# How a field that the inference server may name is called by those who ask here.
_PARAMS = {"json_schema": "response_format", "strength": "osora.strength", "stop_tokens": "osora.stop_tokens"}
_DONE = b"data: [DONE]\n\n"


class Answer(Translation):
    """An answer of choices."""

    object: ClassVar[str]
    chunk_object: ClassVar[str]
    prefix: ClassVar[Literal["chatcmpl-", "cmpl-"]]

    def __init__(self, id: str, model: str, *, choices: int = 1, with_usage: bool = False) -> None:
        super().__init__(id)
        self._model = model
        self._choices = choices
        self._with_usage = with_usage
        self._created = int(time.time())

    @classmethod
    def to(cls, body: TextRequest) -> Self:
        """The answer to this request, under an id of its own."""
        return cls(new_id(cls.prefix), body.model, choices=body.n, with_usage=body.with_usage)

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

    def whole(self, native: dict[str, Any]) -> dict[str, Any]:
        """All choices, what they cost, and what made them."""
        choices = [self.whole_choice(choice) for choice in native["choices"]]
        return {**self._head(self.object, choices), "usage": native["usage"], "osora": own_part(native)}

    def refused(self, said: dict[str, Any], status: int) -> dict[str, Any]:
        """The one shape of errors."""
        return renamed(said, _PARAMS)

    async def streamed(self, events: Events) -> AsyncIterator[bytes]:
        """Chunks, one choice in each."""
        for index in range(self._choices):
            opening = self.begun(index)
            if opening is not None:
                yield self._chunk(opening)
        async for name, data in events:
            match name:
                case "token":
                    yield self._chunk(self.continued(data))
                case "error":
                    yield _data(renamed(data, _PARAMS))
                case "done":
                    for choice in data["choices"]:
                        yield self._chunk(self.ended(choice), osora=own_part(data))
                    if self._with_usage:
                        yield _data({**self._head(self.chunk_object, []), "usage": data["usage"]})
                    yield _DONE

    def _head(self, object: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": object,
            "created": self._created,
            "model": self._model,
            "system_fingerprint": None,
            "choices": choices,
        }

    def _chunk(self, choice: dict[str, Any], **more: Any) -> bytes:
        usage = {"usage": None} if self._with_usage else {}
        return _data({**self._head(self.chunk_object, [choice]), **usage, **more})


def renamed(said: dict[str, Any], params: dict[str, str]) -> dict[str, Any]:
    """The body of an error of the inference server, its field called as it is here."""
    error = said["error"]
    param = error.get("param")
    return {"error": {"code": None, **error, "param": params.get(param, param)}}


def _data(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"
