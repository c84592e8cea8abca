"""Conversations through a base's chat template: where answers begin and end, and their token ids.

A conversation is cut where answers begin and end, in the same way whether it is trained on or asked about. So one
training sequence serves all of its answers: the ids before each are those of the prompt that asks for it.

The cuts are found in one rendering of the whole. The header that a template prints before an answer (`<|im_start|>`,
`assistant` and a line break, for one) is known from a conversation of two lines. In a message that string is hidden
while the template renders, and so are control tokens: whatever is found of them is the template's own.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import pairwise
from typing import Any

from transformers import PreTrainedTokenizerBase

from osora_core.data.encoding import Encoding, Hidden
from osora_core.errors import UserError
from osora_core.tools.messages import Messages, Tools, Transcript
from osora_core.tools.probe import Dialect, dialect_of

_QUESTION, _ANSWER = "Which one?", "This one."
# So many answers of a conversation are held against the prompts that ask for them, and of more so many and those at
# distances that double: a rendering for each would take time that grows with the square of their count.
_CHECKED = 8


@dataclass(frozen=True)
class Cut:
    """An answer in a rendered text begins at `begin` and ends, with its end of turn, at `end`; None where the template
    marks no end with a control token."""

    begin: int
    end: int | None


class AmbiguousAnswerError(Exception):
    """The template does not show where the answer that is message `index` lies."""

    def __init__(self, index: int, problem: str) -> None:
        super().__init__(problem)
        self.index = index


@dataclass(frozen=True)
class _Marks:
    """What a template prints: before an answer, after it, and in all of a conversation of two turns."""

    header: str = ""
    closing: str = ""
    whole: str = ""


class Conversations:
    """What a tokenizer and its chat template make of conversations; see `conversations_of`.

    Of a conversation, `hidden` is what must not be seen of it meanwhile, and `text` what the template prints of it, in
    which that is hidden still.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        marks = _marks(tokenizer)
        self.dialect = _dialect(tokenizer)
        self.encoding = Encoding(tokenizer, marks.whole + self.dialect.printed)
        headers = [marks.header] if marks.header else []
        self._closing = self.encoding.first_control(marks.closing)
        self._tail = marks.closing if self._closing is None else ""
        after_result = self._header_after_result(marks.header)
        headers += [after_result] if after_result else []
        self._header = re.compile("|".join(map(re.escape, headers)) or r"(?!)")
        format = self.dialect.format
        if not format.preamble and self.encoding.starts_anew_behind(marks.header):
            format = replace(format, preamble=" ")
        self.call_format = format
        """How calls are written, with what the tokenizer itself may put before an answer."""
        self._unseen = [*self.encoding.controls, *(header.strip() for header in headers)]

    @property
    def end_of_turn(self) -> int | None:
        """The control token that ends an answer, where the template prints one."""
        return None if self._closing is None else self.encoding.controls[self._closing].id

    def transcript(self, messages: Messages, tools: Tools | None) -> Transcript:
        """A conversation as the template takes it. Raises UserError for what the template cannot show."""
        return self.dialect.transcript(messages, tools)

    def hide(self, transcript: Transcript) -> Hidden:
        """What to hide of a conversation."""
        return Hidden(self._unseen, _texts([transcript.messages, transcript.tools]))

    def render(self, messages: Messages, tools: Tools | None, hidden: Hidden, *, generate: bool) -> str:
        """The text of a conversation, which ends where the assistant is to speak if it is to `generate`.

        Raises UserError where there is no template, or it refuses the messages.
        """
        if self._tokenizer.chat_template is None:
            raise UserError(
                "this base has no chat template",
                param="messages",
                next_action="send a `prompt` (osora generate --raw), train on lines of `prompt` and `completion`, or "
                "add a chat template to the base's tokenizer",
            )
        try:
            seen = [_hide(message, hidden) for message in messages]
            return _render(self._tokenizer, seen, hidden.hide(tools), generate=generate)
        except Exception as error:  # templates raise whatever their author chose
            raise UserError(f"the base's chat template refuses these messages: {error}", param="messages") from error

    def cuts(self, text: str) -> list[Cut]:
        """The answers in a text, by the headers before them; none where the template has no header."""
        begins = [match.end() for match in self._header.finditer(text)]
        return [Cut(begin, self._end(text, begin, until)) for begin, until in pairwise([*begins, len(text)])]

    def _end(self, text: str, begin: int, until: int) -> int | None:
        at = text.find(self._closing, begin, until) if self._closing is not None else -1
        return None if self._closing is None or at < 0 else at + len(self._closing)

    def encode(self, text: str, hidden: Hidden, cuts: Sequence[Cut]) -> list[tuple[int, list[int]]]:
        """Ids of a text: those of each piece between the cuts, with where in the text it begins."""
        pieces = []
        position, after, anew = 0, None, False

        def take(until: int, after: str | None, *, continues: bool) -> None:
            ids = self.encoding.template(text[position:until], hidden, continues=continues, after=after)
            pieces.append((position, ids))

        for cut in cuts:
            take(cut.begin, after, continues=position > 0)
            anew = self.encoding.starts_anew_behind(text[position : cut.begin])
            position, after = cut.begin, None
            if cut.end is not None:
                take(cut.end, None, continues=not anew)
                position, after, anew = cut.end, self._closing, False
        take(len(text), after, continues=position > 0 and not anew)
        return pieces

    def locate(
        self, transcript: Transcript, text: str, hidden: Hidden, cuts: Sequence[Cut], wanted: Sequence[int]
    ) -> dict[int, Cut]:
        """Where the answers that are the messages `wanted`, in ascending order, lie in the text of them all.

        What comes before an answer is what is asked for it: that is checked against the template itself, for all of a
        few answers and for some of many. Raises AmbiguousAnswerError where it is not so.
        """
        messages = transcript.messages
        places = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
        known = dict(zip(places, cuts, strict=True)) if len(places) == len(cuts) else {}
        unsure = [index for index in wanted if index not in known]
        if len(unsure) > _CHECKED:
            raise AmbiguousAnswerError(unsure[0], "the chat template hides where so many answers begin")
        found = {index: known[index] for index in wanted if index in known}
        for index, cut in found.items():
            if cut.end is None and index < len(messages) - 1:
                raise AmbiguousAnswerError(index, "the chat template marks no end of an answer that others follow")
        for index in {*_some(wanted), *unsure}:
            found[index] = self._checked(transcript, text, hidden, cuts, index) if index else self._opening(known)
        return found

    @staticmethod
    def _opening(known: Mapping[int, Cut]) -> Cut:
        """The place of an answer that nothing comes before, so that nobody can ask for it: it has to have a header."""
        if 0 not in known:
            raise AmbiguousAnswerError(0, "the chat template prints no header before it")
        return known[0]

    def _checked(self, transcript: Transcript, text: str, hidden: Hidden, cuts: Sequence[Cut], index: int) -> Cut:
        """The place of one answer, after a rendering of what comes before it and of what comes up to its end."""
        messages, tools = transcript.messages, transcript.tools
        before = self.render(messages[:index], tools, hidden, generate=True)
        if not text.startswith(before):
            raise AmbiguousAnswerError(index, "the chat template renders what comes before it differently")
        begin = len(before)
        cut = next((cut for cut in cuts if cut.begin == begin), None)
        if index == len(messages) - 1:
            return cut or Cut(begin, self._end(text, begin, len(text)))
        if cut is None or cut.end is None:
            raise AmbiguousAnswerError(index, "the chat template hides where it begins or ends")
        if not self.render(messages[: index + 1], tools, hidden, generate=False).startswith(text[: cut.end]):
            raise AmbiguousAnswerError(index, "the chat template renders it differently where it is the last message")
        return cut

    def _header_after_result(self, header: str) -> str:
        """What is printed between a tool's result and an answer, from the first control token on, where it is no header
        of every answer."""
        after = self.dialect.after_result
        control = self.encoding.first_control(after)
        if control is None or (header and after.endswith(header)):
            return ""
        return after[after.index(control) :]

    def without_tail(self, text: str) -> str:
        """A text that ends in an answer, less what the template prints after that, if it is no control token."""
        return text.removesuffix(self._tail)


def conversations_of(tokenizer: PreTrainedTokenizerBase) -> Conversations:
    """Those of a tokenizer with its present chat template, which take up to seconds to make of a large one."""
    return _conversations(tokenizer, str(tokenizer.chat_template))


@lru_cache(maxsize=64)  # each request asks, so no server may have more bases
def _conversations(tokenizer: PreTrainedTokenizerBase, template: str) -> Conversations:
    return Conversations(tokenizer)


def _render(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, Any]], tools: Tools | None, *, generate: bool
) -> str:
    known: Any = [dict(message) for message in messages]
    described: Any = None if tools is None else list(tools)
    return str(tokenizer.apply_chat_template(known, tools=described, tokenize=False, add_generation_prompt=generate))


def _dialect(tokenizer: PreTrainedTokenizerBase) -> Dialect:
    return dialect_of(partial(_render, tokenizer))


def _hide(message: Mapping[str, Any], hidden: Hidden) -> dict[str, Any]:
    """A message with all hidden but a role that is a word: a header may be that word, and templates compare it."""
    seen: dict[str, Any] = hidden.hide(dict(message))
    return seen | {"role": message["role"]} if str(message["role"]).isidentifier() else seen


def _marks(tokenizer: PreTrainedTokenizerBase) -> _Marks:
    """From a conversation of two turns. Nothing, where the template refuses that: then only last answers are found."""
    if tokenizer.chat_template is None:
        return _Marks()
    question, answer = {"role": "user", "content": _QUESTION}, {"role": "assistant", "content": _ANSWER}
    try:
        bare = _render(tokenizer, [question], None, generate=False)
        asked = _render(tokenizer, [question], None, generate=True)
        answered = _render(tokenizer, [question, answer], None, generate=False)
        whole = _render(tokenizer, [question, answer, question], None, generate=False)
    except Exception:  # templates raise whatever their author chose
        return _Marks()
    # Some print a header for the assistant, others end the user's turn in a way that serves as one.
    headers = (asked.removeprefix(bare) if asked.startswith(bare) else "", asked.rpartition(_QUESTION)[2].lstrip())
    # One character is no header: it may be anywhere.
    header = next((header for header in headers if len(header.strip()) > 1), "")
    return _Marks(header, answered.rpartition(_ANSWER)[2], whole)


def _some(indices: Sequence[int]) -> list[int]:
    """The first few, the last, and others at distances that double."""
    doubling = [1 << power for power in range(len(indices).bit_length())]
    return [*indices[:_CHECKED], *(indices[n] for n in doubling if n < len(indices)), *indices[-1:]]


def _texts(value: Any) -> Iterator[str]:
    """Every string in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from value
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)
