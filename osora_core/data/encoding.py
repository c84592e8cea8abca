"""Text to token ids. There is one way to make them, so that what is trained is, token for token, what is asked.

Two rules hold for every tokenizer:

* A prompt is encoded by itself, and an answer by itself after it, as a continuation. A tokenizer that puts a space
  before a text (Llama 2's and its kin) puts none before an answer, and no token spans the boundary: an answer begins
  where generation begins. Only where it begins right behind a control token, and the tokenizer takes what is there for
  the beginning of a text, it does put one; `osora_core.data.decoding` drops it again.
* Text never becomes a control token. Those come only from a chat template, from the tokenizer's own begin of text and
  from the end of text after a completion.
"""

import json
import re
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from osora_core.errors import UserError

# Planes 15 and 16: characters that mean nothing, so that text hardly ever has them.
_PRIVATE = range(0xF0000, 0x10FFFE)


@dataclass(frozen=True)
class Control:
    """A control token. One that strips takes the whitespace beside it in, as its tokenizer does."""

    id: int
    strips_left: bool
    strips_right: bool


class Encoding:
    """A tokenizer's control tokens, and its ids of text that has none.

    Control tokens are those that the tokenizer calls special, and of its other added tokens those that the chat
    template prints around the turns of a plain conversation (`printed`), which some tokenizers do not call special.
    Further added tokens, like `<think>`, are text that anyone may write.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, printed: str = "") -> None:
        self.controls = {
            token.content: Control(id_, token.lstrip, token.rstrip)
            for id_, token in tokenizer.added_tokens_decoder.items()
            if token.content and (token.special or (token.content.strip() and token.content in printed))
        }
        self.begin = _begin_of_text(tokenizer)
        """What the tokenizer puts before a text: its begin of text, or nothing."""
        self.end: int | None = tokenizer.eos_token_id
        """What follows a completion."""
        self.numbers = tuple(range(max(tokenizer.get_vocab().values()) + 1))
        """The ids of all tokens, each an object that what keeps many of them can share."""
        self._pattern = _any_of(self.controls)
        self._control_ids = frozenset(control.id for control in self.controls.values())
        state = _plain_state(tokenizer, self.controls)
        self._continued = _text_only(_without_prefix(state))
        self._start = self._continued if state == _without_prefix(state) else _text_only(state)
        self._after_control = self._start if self._starts_anew(tokenizer) else self._continued

    def prompt(self, text: str) -> list[int]:
        """Plain text from its beginning."""
        return [*self.begin, *self._ids(self._start, text)]

    def beginning(self, text: str) -> list[int]:
        """Plain text from its beginning, which goes on behind `begin`."""
        return self._ids(self._start, text)

    def continuation(self, text: str) -> list[int]:
        """Plain text that goes on where another ended."""
        return self._ids(self._continued, text)

    def starts_anew_after(self, token: int) -> bool:
        """Whether text behind this token is encoded as the beginning of a text."""
        return self._after_control is not self._continued and token in self._control_ids

    def starts_anew_behind(self, printed: str) -> bool:
        """The same of text behind what a template printed, which may end with space that its last token takes in."""
        if self._after_control is self._continued:
            return False
        last = next(iter(deque(self._pattern.finditer(printed), maxlen=1)), None)
        if last is None:
            return False
        rest = printed[last.end() :]
        return not rest or (self.controls[last[0]].strips_right and rest.isspace())

    def template(self, text: str, hidden: "Hidden", *, continues: bool = False, after: str | None = None) -> list[int]:
        """What a chat template printed: its control tokens, and the text between them, of which `hidden` is revealed.

        `continues`: text goes on where another ended; `after`: it follows that control token.
        """
        ids: list[int] = []
        backend = self._continued if continues else self._start
        strips = False
        if after is not None:
            backend, strips = self._after_control, self.controls[after].strips_right
        position = 0
        for match in self._pattern.finditer(text):
            control = self.controls[match[0]]
            ids += self._between(backend, text[position : match.start()], strips, control.strips_left, hidden)
            ids.append(control.id)
            position, backend, strips = match.end(), self._after_control, control.strips_right
        return ids + self._between(backend, text[position:], strips, False, hidden)

    def first_control(self, text: str) -> str | None:
        """The first control token in a text that a template printed."""
        match = self._pattern.search(text)
        return match[0] if match else None

    def _between(self, backend: Tokenizer, text: str, left: bool, right: bool, hidden: "Hidden") -> list[int]:
        text = text.lstrip() if left else text
        return self._ids(backend, hidden.reveal(text.rstrip() if right else text))

    def _ids(self, backend: Tokenizer, text: str) -> list[int]:
        """Ids of text. Some models have control tokens in their vocabularies like any others: there they are cut."""
        ids = _ids(backend, text)
        if self._control_ids.isdisjoint(ids):
            return ids
        # Two may overlap, so the search goes on behind the first character.
        cuts, position = [0], 0
        while match := self._pattern.search(text, position):
            position = match.start() + 1
            cuts.append(position)
        pieces = pairwise([*cuts, len(text)])
        return [id_ for begin, end in pieces for id_ in _ids(self._continued if begin else backend, text[begin:end])]

    def _starts_anew(self, tokenizer: PreTrainedTokenizerBase) -> bool:
        """Whether the tokenizer treats what follows a control token as the beginning of a text."""
        if self._start is self._continued or not self.controls:
            return False
        control, found = next(iter(self.controls.items()))
        native: list[int] = tokenizer.backend_tokenizer.encode(control + "x", add_special_tokens=False).ids
        return native == [found.id, *_ids(self._start, "x")]


class Hidden:
    """Stand-ins for the first characters of strings that must not be seen in a text, while a template handles it.

    A template may look at a text, trim it and cut it: all that it prints of a hidden string still has the stand-in.
    """

    def __init__(self, strings: Iterable[str], texts: Iterable[str]) -> None:
        """`texts`: all that will be hidden, whose characters cannot be stand-ins. Raises UserError if none are left."""
        strings = list(strings)
        self._pattern = _any_of(strings)
        firsts = sorted({string[0] for string in strings})
        used: set[str] = set()
        found = False
        for text in texts:
            found = found or self._pattern.search(text) is not None
            used.update(text)
        free = (chr(code) for code in _PRIVATE if chr(code) not in used)
        self._stand_ins = dict(zip(firsts, free, strict=False)) if found else {}
        if found and len(self._stand_ins) < len(firsts):
            raise UserError("the messages use every private character of Unicode, of which some must be free")
        self._back = {ord(stand_in): first for first, stand_in in self._stand_ins.items()}

    def hide(self, value: Any) -> Any:
        """A JSON value with every such string in it hidden."""
        if not self._stand_ins:
            return value
        if isinstance(value, str):
            return self._in_text(value)
        if isinstance(value, dict):
            return {self.hide(key): self.hide(item) for key, item in value.items()}
        return [self.hide(item) for item in value] if isinstance(value, list | tuple) else value

    def reveal(self, text: str) -> str:
        return text.translate(self._back) if self._back else text

    def _in_text(self, text: str) -> str:
        pieces: list[str] = []
        position = 0
        # Two may overlap, so the search goes on behind the first character.
        while match := self._pattern.search(text, position):
            pieces += text[position : match.start()], self._stand_ins[text[match.start()]]
            position = match.start() + 1
        return "".join((*pieces, text[position:]))


def _any_of(strings: Iterable[str]) -> re.Pattern[str]:
    """Matches the longest of the strings; nothing, where there is none."""
    longest_first = sorted(strings, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")


def _ids(backend: Tokenizer, text: str) -> list[int]:
    # `encode` would hold the interpreter for seconds over a long text, and with it every other thread.
    return list(backend.encode_batch_fast([text], add_special_tokens=False)[0].ids) if text else []


def _begin_of_text(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    plain: list[int] = tokenizer("x", add_special_tokens=False)["input_ids"]
    whole: list[int] = tokenizer("x")["input_ids"]
    before = next(i for i in range(len(whole)) if whole[i : i + len(plain)] == plain)
    return tuple(whole[:before])


def _plain_state(tokenizer: PreTrainedTokenizerBase, controls: Iterable[str]) -> dict[str, Any]:
    """The tokenizer's own state, without what it does around a text, and with all control tokens called special."""
    state: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    state |= {"post_processor": None, "truncation": None, "padding": None}
    known = set(controls)
    state["added_tokens"] = [
        {**token, "special": token["special"] or token["content"] in known} for token in state["added_tokens"]
    ]
    return state


def _text_only(state: dict[str, Any]) -> Tokenizer:
    """A tokenizer of our own, for which special tokens are text."""
    backend = Tokenizer.from_str(json.dumps(state))
    backend.encode_special_tokens = True
    return backend


def _without_prefix(state: dict[str, Any]) -> dict[str, Any]:
    """The state of a tokenizer that puts nothing before a text and strips nothing off its beginning."""
    return {
        **state,
        "normalizer": _unprefixed(state["normalizer"]),
        "pre_tokenizer": _unprefixed(state["pre_tokenizer"]),
    }


def _unprefixed(part: dict[str, Any] | None) -> dict[str, Any] | None:
    if part is None or part["type"] == "Prepend":
        return None
    changes: dict[str, Any] = {
        key: [inner for inner in map(_unprefixed, part[key]) if inner is not None]
        for key in ("normalizers", "pretokenizers")
        if key in part
    }
    changes |= {"prepend_scheme": "never"} if "prepend_scheme" in part else {}
    changes |= {"add_prefix_space": False} if "add_prefix_space" in part else {}
    changes |= {"strip_left": False} if "strip_left" in part else {}
    return {**part, **changes}
