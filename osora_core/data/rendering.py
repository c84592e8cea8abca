"""Training rows to tokens: the base's own chat template, and a loss mask over what the assistant says."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from transformers import PreTrainedTokenizerBase

from osora_core.errors import DataError, UserError

T = TypeVar("T")


@dataclass(frozen=True)
class Example:
    """One training sequence: token ids, and for each whether the loss counts its prediction. `line` is 1-based."""

    tokens: tuple[int, ...]
    mask: tuple[bool, ...]
    line: int

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def sequences(self) -> tuple["Example"]:
        """What goes through the model of it."""
        return (self,)

    @property
    def loss_tokens(self) -> int:
        """Predictions that count: the first token has none."""
        return sum(self.mask[1:])

    @property
    def content(self) -> tuple[object, ...]:
        """All that decides what is learned from it."""
        return self.tokens, self.mask


@dataclass(frozen=True)
class Preference:
    """Two answers to one conversation, of which the model is to prefer `chosen`. Tokens are those of both."""

    chosen: Example
    rejected: Example
    line: int

    def __len__(self) -> int:
        return len(self.chosen) + len(self.rejected)

    @property
    def sequences(self) -> tuple[Example, Example]:
        return self.chosen, self.rejected

    @property
    def loss_tokens(self) -> int:
        return self.chosen.loss_tokens + self.rejected.loss_tokens

    @property
    def content(self) -> tuple[object, ...]:
        return self.chosen.content, self.rejected.content


Row = Example | Preference


def sequences(rows: Sequence[Row]) -> list[Example]:
    """What goes through the model of rows of one kind: of preferences all preferred answers, then all others."""
    return [sequence for side in zip(*(row.sequences for row in rows), strict=True) for sequence in side]


class Renderer:
    """Turns rows into examples of at most `max_length` tokens with the tokenizer's chat template."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length

    def render(self, row: Mapping[str, Any], line: int) -> Example:
        """A `messages` row or a `prompt`/`completion` row as an example.

        Raises DataError naming the line if the row has neither shape, is too long, or has nothing to train on.
        """
        if "messages" in row:
            text, spans = self._chat(row["messages"], line)
        elif "prompt" in row and "completion" in row:
            text, spans = self._completion(str(row["prompt"]), str(row["completion"]))
        else:
            raise DataError(
                "a row needs 'messages', or 'prompt' and 'completion'; found " + ", ".join(map(repr, row)),
                line=line,
            )
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        tokens: list[int] = encoded["input_ids"]
        mask = _mask(encoded["offset_mapping"], spans)
        if len(tokens) > self.max_length:
            raise DataError(
                f"the row is {len(tokens)} tokens long, the limit is {self.max_length}",
                line=line,
                next_action="shorten or split the row, or raise max_length if the base allows it",
            )
        example = Example(tuple(tokens), tuple(mask), line)
        if example.loss_tokens == 0:
            raise DataError("nothing to train on: no assistant text with weight 1", line=line, param="messages")
        return example

    def preference(self, row: Mapping[str, Any], line: int) -> Preference:
        """An `input`/`preferred_output`/`non_preferred_output` row as two examples; only the answers count.

        Raises DataError naming the line if the row has another shape, is too long, or an answer is empty.
        """
        missing = {"input", "preferred_output", "non_preferred_output"} - row.keys()
        if missing:
            raise DataError(
                f"a row of preferences needs {min(missing)!r}; found " + ", ".join(map(repr, row)),
                line=line,
                param=min(missing),
                next_action="write preference rows for the method dpo, or use the method supervised",
            )
        asked = [{**message, "weight": 0} for message in row["input"]["messages"]]
        chosen, rejected = (
            self.render({"messages": [*asked, *row[answer]]}, line)
            for answer in ("preferred_output", "non_preferred_output")
        )
        return Preference(chosen, rejected, line)

    def prompt(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """Tokens of a conversation that ends where the assistant is to speak."""
        return self.encode(self._template(messages, generate=True))

    def encode(self, text: str) -> list[int]:
        """Tokens of plain text, continued as it is."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _template(self, messages: Sequence[Mapping[str, Any]], *, generate: bool) -> str:
        if self.tokenizer.chat_template is None:
            raise UserError(
                "this base has no chat template",
                param="messages",
                next_action="use prompt/completion rows and prompts, or add a chat template to the base's tokenizer",
            )
        try:
            text = self.tokenizer.apply_chat_template(
                [dict(message) for message in messages], tokenize=False, add_generation_prompt=generate
            )
        except Exception as error:  # templates raise whatever their author chose
            raise UserError(f"the base's chat template refuses these messages: {error}", param="messages") from error
        return str(text)

    def _chat(self, messages: Sequence[Mapping[str, Any]], line: int) -> tuple[str, list[tuple[int, int]]]:
        """The rendered conversation and the character spans of trained assistant turns, end-of-turn mark included.

        A turn's span is what rendering it adds to the generation prompt before it. That holds for every template
        whose rendering of a conversation begins with its rendering of the conversation's beginning.
        """
        text = self._template(messages, generate=False)
        spans = []
        for index, message in enumerate(messages):
            if message["role"] != "assistant" or message.get("weight", 1) == 0:
                continue
            before = self._template(messages[:index], generate=True) if index else ""
            through = self._template(messages[: index + 1], generate=False)
            if not (text.startswith(through) and through.startswith(before)):
                raise DataError(
                    f"the chat template renders message {index} differently inside the whole conversation, so its "
                    "loss mask is unknown",
                    line=line,
                    param=f"messages.{index}",
                    next_action="split the conversation so that this answer is its last message",
                )
            spans.append((len(before), len(through.rstrip())))
        return text, spans

    def _completion(self, prompt: str, completion: str) -> tuple[str, list[tuple[int, int]]]:
        text = prompt + completion + str(self.tokenizer.eos_token or "")
        return text, [(len(prompt), len(text))]


def read_examples(lines: Iterable[bytes | str], renderer: Renderer) -> list[Example]:
    """Render every JSONL line, in order; blank lines are skipped. Raises DataError at the first bad one."""
    return _read(lines, renderer.render)


def read_preferences(lines: Iterable[bytes | str], renderer: Renderer) -> list[Preference]:
    """The same for a file of preferences."""
    return _read(lines, renderer.preference)


def _read(lines: Iterable[bytes | str], render: Callable[[Mapping[str, Any], int], T]) -> list[T]:
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"not valid JSON: {error}", line=number) from error
        if not isinstance(row, dict):
            raise DataError(f"a row is a JSON object, not {type(row).__name__}", line=number)
        rows.append(render(row, number))
    return rows


def _mask(offsets: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int]]) -> list[bool]:
    """Whether each token begins inside a span. Both sequences ascend, so one pass is enough."""
    mask = []
    remaining = iter(spans)
    span = next(remaining, None)
    for begin, end in offsets:
        while span is not None and begin >= span[1]:
            span = next(remaining, None)
        mask.append(span is not None and end > begin >= span[0])
    return mask
