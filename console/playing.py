"""One prompt to several models at once: what each is asked, and what it has answered so far."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from osora.errors import OsoraError
from osora.schemas import Generation, Message
from osora.sdk import AsyncOsora

MOST_MODELS = 3
"""Beside the base: what can still be read side by side."""

# As often as a person sees a difference, however fast tokens come.
_SHOWN_EVERY_SECONDS = 0.1
_ALTERNATIVES = 5


@dataclass(frozen=True)
class Settings:
    """How all of them are asked. None is what the service chooses."""

    max_tokens: int | None = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    probabilities: bool = True

    def options(self) -> dict[str, Any]:
        """As the SDK takes them."""
        asked: dict[str, Any] = {"max_tokens": self.max_tokens, "temperature": self.temperature}
        if self.temperature > 0:
            asked |= {"top_p": self.top_p, "seed": self.seed}
        if self.probabilities:
            asked |= {"logprobs": True, "top_logprobs": _ALTERNATIVES}
        return asked


@dataclass
class Seat:
    """A model at the table. `strength` scales an adapter."""

    model: str
    is_base: bool = False
    strength: float = 1.0
    turns: list[Message] = field(default_factory=list)
    """What was said with it: each model remembers its own answers."""

    def target(self) -> dict[str, Any]:
        """Whom to ask, as the SDK takes it."""
        if self.is_base:
            return {"base": self.model}
        return {"adapter": self.model} | ({} if self.strength == 1 else {"strength": self.strength})

    def asked(self, system: str, prompt: str, *, is_chat: bool) -> str | list[Message]:
        """What is sent: the conversation, or where the base has no template for one, the prompt as it is."""
        if not is_chat:
            return prompt
        first: list[Message] = [{"role": "system", "content": system}] if system.strip() else []
        return [*first, *self.turns, {"role": "user", "content": prompt}]

    def remember(self, prompt: str, answer: str) -> None:
        """The next prompt goes on from here."""
        self.turns += [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]


@dataclass
class Answer:
    """What a model has said so far."""

    text: str = ""
    seconds: float = 0.0
    first_seconds: float | None = None
    error: OsoraError | None = None
    result: Generation | None = None
    is_stopped: bool = False

    @property
    def is_over(self) -> bool:
        return self.result is not None or self.error is not None or self.is_stopped

    def timing(self) -> str:
        """`12 tokens · first after 34 ms · 56 ms in all · 214 tokens/s`."""
        if self.result is None:
            return ""
        told, used = self.result.get("timing") or {}, self.result.get("usage") or {}
        tokens = used.get("completion_tokens", 0)
        parts = [f"{tokens} token{'' if tokens == 1 else 's'}"]
        first, total = told.get("first_token_ms"), told.get("total_ms")
        if first is not None:
            parts.append(f"first after {first:,.0f} ms")
        if total:
            parts.append(f"{total:,.0f} ms in all")
            parts.append(f"{1000 * tokens / total:,.0f} tokens/s")
        if self.result.get("finish_reason") == "length":
            parts.append("cut at the limit")
        return " · ".join(parts)

    def receipt(self) -> list[tuple[str, str]]:
        """Exactly what made it."""
        found = (self.result or {}).get("receipt") or {}
        return [(name.replace("_", " "), str(value)) for name, value in found.items() if value is not None]

    def tokens(self) -> list[dict[str, Any]]:
        """Of each token its text, its probability, and the likeliest at its place; none if they were not asked for."""
        choices = (self.result or {}).get("choices") or [{}]
        return [_token(score) for score in choices[0].get("logprobs") or ()]


async def ask(
    osora: AsyncOsora, seat: Seat, asked: str | list[Message], settings: Settings, show: Callable[[Answer], None]
) -> Answer:
    """Ask one model; `show` is told of the answer as it grows, and at its end. Never raises `OsoraError`."""
    answer, began, shown = Answer(), time.monotonic(), 0.0
    stream = osora.stream(asked, **seat.target(), **settings.options())
    try:
        async for piece in stream:
            answer.text += piece
            now = time.monotonic()
            answer.seconds = now - began
            if answer.first_seconds is None:
                answer.first_seconds = answer.seconds
            if now - shown >= _SHOWN_EVERY_SECONDS:
                show(answer)
                shown = now
        answer.result = stream.result
        if stream.result is not None:
            answer.text = stream.result.get("text", answer.text)
    except OsoraError as error:
        answer.error = error
    answer.seconds = time.monotonic() - began
    show(answer)
    return answer


def _token(score: Mapping[str, Any]) -> dict[str, Any]:
    others = [
        {"text": other["token"], "share": _share(other.get("logprob"))} for other in score.get("top_logprobs") or ()
    ]
    return {"text": score["token"], "share": _share(score.get("logprob")), "others": others}


def _share(logprob: float | None) -> float | None:
    return None if logprob is None else round(math.exp(logprob), 4)
