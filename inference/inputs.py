"""What a request may hold before anything is computed from it."""

from collections.abc import Iterator, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from inference.schemas import GenerateRequest
from osora_core.errors import UserError

# So many characters at most become one where a tokenizer normalises its text.
_NORMALISED = 4


def characters_of_tokens(tokenizer: PreTrainedTokenizerBase, tokens: int) -> int:
    """More characters than any text of so many tokens has."""
    longest = max(map(len, tokenizer.get_vocab()))
    normaliser = getattr(tokenizer.backend_tokenizer, "normalizer", None)
    return tokens * longest * (1 if normaliser is None else _NORMALISED)


def check(body: GenerateRequest, most_tokens: int, most_characters: int) -> None:
    """Raise UserError for a text that no tokenizer needs to see to be too long, and for what is no text at all."""
    texts: dict[str, Any] = {**body.prompts, "messages": body.messages, "tools": body.tools}
    for param, value in texts.items():
        size = sum(len(text) for _, text in _texts(value, param))
        if size > most_characters:
            raise UserError(
                f"{param} has {size} characters; this base takes at most {most_tokens} tokens, which are never more "
                f"than {most_characters} characters",
                param=param,
                next_action=f"shorten {param}",
            )
    if body.messages is not None and len(body.messages) > most_tokens:
        raise UserError(
            f"messages has {len(body.messages)} messages; this base takes at most {most_tokens} tokens",
            param="messages",
            next_action="leave out the oldest messages",
        )
    texts |= {param: getattr(body, param) for param in ("json_schema", "regex", "stop")}
    for param, value in texts.items():
        for place, text in _texts(value, param):
            _check_characters(place, text)


def _check_characters(place: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        raise UserError(
            f"{place} has half of a surrogate pair, U+{code:04X}, at character {error.start + 1}: it stands for no "
            "character",
            param=place,
            next_action="send the whole pair, or the character itself",
        ) from None


def _texts(value: object, place: str) -> Iterator[tuple[str, str]]:
    """Every text within a JSON value, the names of fields too, with its place. However deep: no recursion."""
    waiting: list[tuple[str, Any]] = [(place, value)]
    while waiting:
        place, value = waiting.pop()
        if isinstance(value, str):
            yield place, value
        elif isinstance(value, dict):
            for name, item in value.items():
                yield place, name
                waiting.append((f"{place}.{name}" if name.isprintable() else place, item))
        elif isinstance(value, Sequence):
            waiting.extend((f"{place}.{index}", item) for index, item in enumerate(value))
