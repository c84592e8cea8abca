"""The formats by their rows' keys, and the reader of each."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, NoReturn

from osora_data.formats.alpaca import read_alpaca
from osora_data.formats.columns import COLUMNS
from osora_data.formats.examples import AS_TEXT, COMPLETION
from osora_data.formats.near import nearest
from osora_data.formats.openai import read_chat, read_completion, read_preference
from osora_data.formats.pairs import read_pair
from osora_data.formats.row_check import RowCheck
from osora_data.formats.sharegpt import read_sharegpt
from osora_data.words import quoted, short

_LOOKED_AT = 20
_TEXT_KEYS = frozenset(("text",))


@dataclass(frozen=True)
class Shape:
    """A format as it is written: its name in sentences, and what makes a canonical row of a row."""

    name: str
    read: Callable[[RowCheck, dict[str, Any]], dict[str, Any]]


def _read_text(check: RowCheck, row: dict[str, Any]) -> dict[str, Any]:
    check.ignore_others(row, "", _TEXT_KEYS)
    text = check.text(row, "", "text", "the text to learn")
    if text == "":
        check.reject("text", "is empty, so there is nothing to learn", "give it text or remove the line", "")
    return {"text": text}


CHAT = Shape("chat (`messages`)", read_chat)
COMPLETIONS = Shape("completion (`prompt` and `completion`)", read_completion)
PREFERENCES = Shape("preference (`input`, `preferred_output`, `non_preferred_output`)", read_preference)
PAIRS = Shape("preference (`prompt`, `chosen`, `rejected`)", read_pair)
ALPACA = Shape("Alpaca (`instruction` and `output`)", read_alpaca)
SHAREGPT = Shape("ShareGPT (`conversations`)", read_sharegpt)
TEXT = Shape("text (`text`)", _read_text)

# The first that has a key of the row; those with fewer keys in common with others before those with more.
_BY_KEYS = (
    (PAIRS, ("chosen", "rejected")),
    (PREFERENCES, ("preferred_output", "non_preferred_output")),
    (CHAT, ("messages",)),
    (SHAREGPT, ("conversations",)),
    (ALPACA, ("instruction",)),
    (COMPLETIONS, ("prompt", "completion")),
    (TEXT, ("text",)),
    (PREFERENCES, ("input",)),
)

# Rows that other tools read, by keys that they have all of, and what to write instead.
_FOREIGN = (
    (
        {"completion", "label"},
        "is a rated answer (`prompt`, `completion`, `label`), as TRL's KTO reads them: no method here does",
        "keep the good answers, without `label`, or write pairs of a good and a bad one (`chosen`, `rejected`)",
    ),
    (
        {"text", "label"},
        "is a text with a `label`, and it is not known which of the two is to be learned",
        f"to learn labels write {COMPLETION}; to learn texts leave `label` out",
    ),
    ({"input", "output"}, "has `input` and `output`, and no `instruction`", "rename them to `prompt` and `completion`"),
    ({"question", "answer"}, "has `question` and `answer`", "rename them to `prompt` and `completion`"),
    ({"query", "response"}, "has `query` and `response`", "rename them to `prompt` and `completion`"),
    ({"prompt", "response"}, "has `prompt` and `response`", "rename `response` to `completion`"),
    ({"instruction", "response"}, "has `instruction` and `response`", "rename `response` to `output`"),
    ({"role", "content"}, "is a message by itself", "put the messages of a conversation into one row's `messages`"),
)
_CERTAIN = frozenset(("messages", "chosen", "rejected", "preferred_output", "non_preferred_output", "conversations"))


def shape_of(row: dict[str, Any]) -> Shape | None:
    """The format of a row, by its keys; None where they tell none.

    Whoever puts rows of several formats into one table gets null in the columns that a row has not: those tell nothing,
    unless there are no others.
    """
    if row.get("messages") is not None and "chosen" not in row:  # what most are
        return CHAT
    filled = (shape for shape, keys in _BY_KEYS if any(row.get(key) is not None for key in keys))
    present = (shape for shape, keys in _BY_KEYS if any(key in row for key in keys))
    return next(chain(filled, present), None)


def refuse_foreign(check: RowCheck, row: dict[str, Any]) -> None:
    """A row of a format that is known and not read is told so at once, not key by key."""
    if not _CERTAIN.isdisjoint(row):
        return
    for keys, problem, next_action in _FOREIGN:
        if keys <= row.keys() and not (keys == {"input", "output"} and "instruction" in row):
            check.reject(None, problem, next_action)


def refuse_unknown(check: RowCheck, row: dict[str, Any]) -> NoReturn:
    """Rejects a row of no known format."""
    for key, value in islice(row.items(), _LOOKED_AT):
        if (meant := nearest(key, COLUMNS, row)) is not None:
            check.reject(short(key), "is not known here", f"did you mean `{meant}`?", value)
    keys = quoted(sorted(islice(row, _LOOKED_AT)))
    check.reject(None, f"has neither `messages` nor `prompt` and `completion`; its keys are {keys}", AS_TEXT)
