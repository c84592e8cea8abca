"""The continuation of a prompt."""

import codecs
from collections import defaultdict
from typing import Any

from api.openai.answers import Answer


class CompletionAnswer(Answer):
    """Text, in one piece or several."""

    object = "text_completion"
    chunk_object = "text_completion"
    prefix = "cmpl-"

    def __init__(self, id: str, model: str, *, choices: int = 1, with_usage: bool = False) -> None:
        super().__init__(id, model, choices=choices, with_usage=with_usage)
        self._places: defaultdict[int, _Place] = defaultdict(_Place)

    def whole_choice(self, choice: dict[str, Any]) -> dict[str, Any]:
        """With its text, and the reason for its end."""
        return {**self.continued(choice), "finish_reason": choice["finish_reason"]}

    def begun(self, index: int) -> None:
        """Nothing is."""

    def continued(self, piece: dict[str, Any]) -> dict[str, Any]:
        """More text."""
        index, scores = piece["index"], piece.get("logprobs")
        logprobs = None if scores is None else self._places[index].logprobs(scores)
        return {"index": index, "text": piece["text"], "logprobs": logprobs, "finish_reason": None}

    def ended(self, choice: dict[str, Any]) -> dict[str, Any]:
        """Why it ends."""
        return {"index": choice["index"], "text": "", "logprobs": None, "finish_reason": choice["finish_reason"]}


class _Place:
    """How many characters of a choice there are so far: a character may be several tokens."""

    def __init__(self) -> None:
        self._characters = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def logprobs(self, scores: list[dict[str, Any]]) -> dict[str, Any]:
        tops = [{top["token"]: top["logprob"] for top in score["top_logprobs"]} or None for score in scores]
        return {
            "tokens": [score["token"] for score in scores],
            "token_logprobs": [score["logprob"] for score in scores],
            "top_logprobs": tops if any(tops) else None,
            "text_offset": [self._after(bytes(score["bytes"])) for score in scores],
        }

    def _after(self, token: bytes) -> int:
        before = self._characters
        self._characters += len(self._decoder.decode(token))
        return before
