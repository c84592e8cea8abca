"""What recording will take, before anybody pays for it. Estimates say that they are; prices are the user's."""

import json
import math
from dataclasses import dataclass

from osora.migrate.prompts import Prompt, answer_text

BYTES_A_TOKEN = 4  # of UTF-8: about right for English, and on the safe side of most other scripts
_TOKENS_A_MESSAGE = 4
UNKNOWN_ANSWER_TOKENS = 500


@dataclass(frozen=True)
class Prices:
    """US dollars for a million tokens, as the user found them."""

    prompt: float
    answer: float

    def cost(self, prompt_tokens: int, answer_tokens: int) -> float:
        """In dollars."""
        return (prompt_tokens * self.prompt + answer_tokens * self.answer) / 1_000_000


@dataclass
class Estimate:
    """Requests still to be made, and their tokens. `unknown`: how many of them have no answer to go by."""

    requests: int = 0
    prompt_tokens: int = 0
    known_answer_tokens: int = 0
    unknown: int = 0

    def add(self, prompt: Prompt) -> None:
        self.requests += 1
        self.prompt_tokens += _prompt_tokens(prompt)
        if prompt.answer is None:
            self.unknown += 1
        else:
            self.known_answer_tokens += _tokens(answer_text(prompt.answer))

    def answer_tokens(self, max_tokens: int | None) -> int:
        """Of all answers: as long as those in the file; where it has none, `max_tokens` or a guess for each."""
        if self.unknown == 0:
            return self.known_answer_tokens
        return self.known_answer_tokens + self.unknown * self.tokens_of_unknown(max_tokens)

    def tokens_of_unknown(self, max_tokens: int | None) -> int:
        """What an answer is counted as that the file does not have."""
        known = self.requests - self.unknown
        if known:
            return math.ceil(self.known_answer_tokens / known)
        return max_tokens or UNKNOWN_ANSWER_TOKENS


def _prompt_tokens(prompt: Prompt) -> int:
    if prompt.messages is None:
        return _tokens(prompt.text or "")
    rest = _tokens(json.dumps(prompt.rest, ensure_ascii=False)) if prompt.rest else 0
    return rest + sum(_tokens(answer_text(message)) + _TOKENS_A_MESSAGE for message in prompt.messages)


def _tokens(text: str) -> int:
    return math.ceil(len(text.encode(errors="replace")) / BYTES_A_TOKEN)
