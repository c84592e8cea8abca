"""The answer in a chat."""

from typing import Any

from api.openai.answers import Answer


class ChatAnswer(Answer):
    """A message of the assistant."""

    object = "chat.completion"
    chunk_object = "chat.completion.chunk"
    prefix = "chatcmpl-"

    def whole_choice(self, choice: dict[str, Any]) -> dict[str, Any]:
        """With the message, and the reason for its end."""
        calls = choice.get("tool_calls")
        message = {"role": "assistant", "content": choice["text"], "refusal": None}
        if calls:
            message |= {"content": choice["text"] or None, "tool_calls": calls}
        return {
            "index": choice["index"],
            "message": message,
            "logprobs": _logprobs(choice["logprobs"]),
            "finish_reason": choice["finish_reason"],
        }

    def begun(self, index: int) -> dict[str, Any]:
        """Says who speaks."""
        return _delta(index, {"role": "assistant", "content": "", "refusal": None})

    def continued(self, piece: dict[str, Any]) -> dict[str, Any]:
        """More of the message."""
        if "tool_calls" in piece:
            return _delta(piece["index"], {"tool_calls": piece["tool_calls"]})
        return _delta(piece["index"], {"content": piece["text"]}, logprobs=_logprobs(piece.get("logprobs")))

    def ended(self, choice: dict[str, Any]) -> dict[str, Any]:
        """Why it ends."""
        return _delta(choice["index"], {}, finish_reason=choice["finish_reason"])


def _delta(
    index: int, delta: dict[str, Any], *, logprobs: dict[str, Any] | None = None, finish_reason: str | None = None
) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}


def _logprobs(scores: list[dict[str, Any]] | None) -> dict[str, Any] | None:
    if scores is None:
        return None
    content = [{**_score(score), "top_logprobs": [_score(top) for top in score["top_logprobs"]]} for score in scores]
    return {"content": content, "refusal": None}


def _score(score: dict[str, Any]) -> dict[str, Any]:
    return {name: score[name] for name in ("token", "bytes", "logprob")}
