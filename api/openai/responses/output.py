"""What a response says so far: its items, and the events that make them."""

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

Change = tuple[str, dict[str, Any]]
"""An event's type, and its fields."""


class Output:
    """Items as they come. Only the last is open; `items` are all, each as far as it is."""

    def __init__(self) -> None:
        self.items: list[dict[str, Any]] = []
        self._is_open = False
        self._call: int | None = None  # which of the native calls the open item is
        self._early: list[dict[str, Any]] = []  # likelihoods that came before any text

    def take(self, piece: dict[str, Any]) -> Iterator[Change]:
        """A native piece, or a whole native choice."""
        scores = [_score(score) for score in piece.get("logprobs") or ()]
        text = piece.get("text") or ""
        if text or (scores and self._message is not None):
            yield from self._say(text, [*self._early, *scores])
            self._early = []
        else:
            self._early += scores
        for index, call in enumerate(piece.get("tool_calls") or ()):
            yield from self._ask(call.get("index", index), call)

    def end(self, finish_reason: str) -> Iterator[Change]:
        """Closes what is open; an answer without a word is an empty message. A second time it does nothing."""
        if not self.items:
            yield from self._say("", self._early)
        is_cut = finish_reason == "length" and self._message is not None  # calls come whole
        yield from self._close("incomplete" if is_cut else "completed")

    @property
    def _message(self) -> dict[str, Any] | None:
        return self.items[-1] if self._is_open and self.items[-1]["type"] == "message" else None

    def _say(self, text: str, scores: list[dict[str, Any]]) -> Iterator[Change]:
        if self._message is None:
            yield from self._open({"id": f"msg_{uuid4().hex}", "type": "message", "role": "assistant", "content": []})
            part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
            yield "response.content_part.added", {**self._place(), "content_index": 0, "part": {**part}}
            self.items[-1]["content"].append(part)
        (part,) = self.items[-1]["content"]
        part["text"] += text
        part["logprobs"] += scores
        yield "response.output_text.delta", {**self._place(), "content_index": 0, "delta": text, "logprobs": scores}

    def _ask(self, index: int, call: dict[str, Any]) -> Iterator[Change]:
        function = call["function"]
        if not self._is_open or self._call != index:
            head = {"type": "function_call", "call_id": call["id"], "name": function["name"], "arguments": ""}
            yield from self._open({"id": f"fc_{uuid4().hex}", **head})
            self._call = index
        arguments = function.get("arguments") or ""
        self.items[-1]["arguments"] += arguments
        yield "response.function_call_arguments.delta", {**self._place(), "delta": arguments}

    def _open(self, item: dict[str, Any]) -> Iterator[Change]:
        yield from self._close("completed")
        item["status"] = "in_progress"
        self.items.append(item)
        self._is_open = True
        yield "response.output_item.added", {"output_index": len(self.items) - 1, "item": _copy(item)}

    def _close(self, status: str) -> Iterator[Change]:
        if not self._is_open:
            return
        item = self.items[-1]
        item["status"] = status
        if item["type"] == "message":
            (part,) = item["content"]
            said = {"text": part["text"], "logprobs": part["logprobs"]}
            yield "response.output_text.done", {**self._place(), "content_index": 0, **said}
            yield "response.content_part.done", {**self._place(), "content_index": 0, "part": part}
        else:
            said = {"name": item["name"], "arguments": item["arguments"]}
            yield "response.function_call_arguments.done", {**self._place(), **said}
        yield "response.output_item.done", {"output_index": len(self.items) - 1, "item": item}
        self._is_open, self._call = False, None

    def _place(self) -> dict[str, Any]:
        return {"item_id": self.items[-1]["id"], "output_index": len(self.items) - 1}


def _copy(item: dict[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, list) else value for name, value in item.items()}


def _score(score: dict[str, Any]) -> dict[str, Any]:
    named = ("token", "bytes", "logprob")
    tops = [{name: top[name] for name in named} for top in score["top_logprobs"]]
    return {**{name: score[name] for name in named}, "top_logprobs": tops}
