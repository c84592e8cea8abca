"""The old model's answers to the prompts of a file, while it still answers."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any, Literal

from osora.errors import OpenAIError
from osora.migrate.each import each
from osora.migrate.journal import Journal
from osora.migrate.openai_api import OpenAIClient
from osora.migrate.pace import PaceStoppedError
from osora.migrate.prompts import Message, Prompt
from osora.migrate.text import one_line

Verdict = Literal["kept", "refusal", "empty", "cut"]
# After so many in a row that are refused, and none answered, it is not the prompts.
_HOPELESS = 10
# What OpenAI's models say when they decline, and nothing else: a helpdesk is sorry too.
_DECLINED = re.compile(
    r"(?:I.m|I am) (?:very )?sorry,? but I (?:can.t|cannot|can not|am unable to|am not able to) "
    r"(?:assist|help|comply|fulfill|provide)(?: you)? (?:with )?(?:that|this)(?: request)?[.!]?",
    re.IGNORECASE,
)
_CALL = ("name", "arguments")
_COMPLETION_MODELS = re.compile(r"(?:ft:)?(?:babbage|davinci|gpt-3\.5-turbo-instruct)")


@dataclass(frozen=True)
class Settings:
    """How the old model is asked. `max_tokens` None: until it ends by itself."""

    model: str
    temperature: float
    max_tokens: int | None
    concurrency: int

    @property
    def continues_text(self) -> bool:
        """Whether it is one of the models that continue a text and hold no conversation."""
        return _COMPLETION_MODELS.match(self.model) is not None


def fitting(prompts: Iterable[Prompt], settings: Settings) -> Iterator[Prompt]:
    """The prompts as the model takes them: to one that holds conversations, a text is a user's turn.

    A conversation for a model that holds none is left to the API to refuse.
    """
    for prompt in prompts:
        if prompt.text is None or settings.continues_text:
            yield prompt
        else:
            messages = [{"role": "user", "content": prompt.text}]
            yield Prompt(prompt.line, messages, None, prompt.answer, {})


def unanswered(prompts: Iterable[Prompt], journal: Journal) -> Iterator[Prompt]:
    """The prompts without an answer in the journal, each once."""
    seen: set[str] = set()
    for prompt in prompts:
        key = prompt.key
        if key not in journal and key not in seen:
            seen.add(key)
            yield prompt


def record(
    client: OpenAIClient,
    settings: Settings,
    prompts: Iterable[Prompt],
    journal: Journal,
    on_answer: Callable[[], None] = lambda: None,
) -> dict[int, str]:
    """Asks for all of `prompts`, at most `concurrency` at once, and writes each answer to the journal as it comes.

    Whatever ends it early, answers that are under way are waited for and written. Returns why the API would not take
    some prompts, by their lines. Raises OpenAIError for what no other prompt would fare better with.
    """
    rejected: dict[int, str] = {}
    answered = 0

    def save(future: Future[dict[str, Any]]) -> None:
        client.pace.stop()  # of those under way, none begins another request
        with suppress(OpenAIError, PaceStoppedError):
            journal.add(future.result())

    with closing(each(lambda prompt: _ask(client, settings, prompt), prompts, settings.concurrency, save)) as answers:
        for prompt, future in answers:
            try:
                journal.add(future.result())
                answered += 1
            except OpenAIError as error:
                if error.status == 400 and not answered and len(rejected) + 1 >= _HOPELESS:
                    error.next_action = f"none of the first {_HOPELESS} prompts was taken: see whether --model is right"
                    raise
                if error.status != 400:
                    raise
                rejected[prompt.line] = error.said or str(error)
            on_answer()
    return rejected


def _ask(client: OpenAIClient, settings: Settings, prompt: Prompt) -> dict[str, Any]:
    """An entry of the journal."""
    body: dict[str, Any] = {"model": settings.model, "temperature": settings.temperature}
    if prompt.messages is None:
        limit = {"max_tokens": settings.max_tokens} if settings.max_tokens else {}
        answer = client.request("POST", "/completions", json=body | limit | {"prompt": prompt.text})
    else:
        limit = {"max_completion_tokens": settings.max_tokens} if settings.max_tokens else {}
        body |= limit | {"messages": prompt.asked, **prompt.rest}
        answer = client.request("POST", "/chat/completions", json=body)
    try:
        choice = answer["choices"][0]
        message = {"content": choice["text"]} if prompt.messages is None else choice["message"]
        entry = {"key": prompt.key, "message": _message(message), "finish_reason": choice.get("finish_reason")}
        return entry | {"refusal": message.get("refusal"), "usage": answer.get("usage")}
    except (KeyError, TypeError, IndexError, AttributeError):
        raise OpenAIError(f"{client.url} answered with what is no answer", status=502) from None


def _message(message: dict[str, Any]) -> Message:
    """What a training file has of an answer."""
    kept: Message = {"role": "assistant", "content": message.get("content")}
    if message.get("tool_calls"):
        kept["tool_calls"] = [
            {"id": call["id"], "type": "function", "function": {key: call["function"][key] for key in _CALL}}
            for call in message["tool_calls"]
        ]
    return kept


def verdict(entry: dict[str, Any]) -> Verdict:
    """Whether an answer is one to learn from."""
    message = entry["message"]
    content = (message.get("content") or "").strip()
    if entry.get("refusal") or entry.get("finish_reason") == "content_filter" or _DECLINED.fullmatch(content):
        return "refusal"
    if entry.get("finish_reason") == "length":
        return "cut"
    return "kept" if content or message.get("tool_calls") else "empty"


def shown_reasons(rejected: Mapping[int, str], most: int = 5) -> list[str]:
    """A line for each of the first prompts that were not taken."""
    lines = [f"line {line}: {one_line(reason, 200)}" for line, reason in sorted(rejected.items())]
    return lines[:most] + ([f"and {len(lines) - most} more"] if len(lines) > most else [])
